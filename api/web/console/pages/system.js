// What the relay keeps, for how long, and how much it says in its log.

import { element } from '../element.js';
import { bytes, count, plural, seconds } from '../format.js';
import { get, put } from '../ops.js';
import { choice, empty, facts, section, soft, table } from '../parts.js';
import { queueOf } from './targets.js';

const LEVELS = ['debug', 'info', 'warn', 'error'];

export const system = {
  title: 'System',
  async load(_, signal) {
    const [stats, log] = await Promise.all([get('stats', signal), get('log', signal)]);
    return { stats, log };
  },
  draw: ({ stats: { memory, retention, lanes, version, node }, log }) => [
    facts([['Version', version], ['Node', node]]),
    section('Memory of Redis',
      facts([
        ['Used', bytes(memory.used_bytes)], ['Limit', memory.max_bytes === null ? 'none: set maxmemory, with noeviction' : bytes(memory.max_bytes)],
        ['Full in', memory.max_bytes === null ? null : memory.full_in_days === null ? 'never, at the rate of the last hour' : plural(Math.floor(memory.full_in_days), 'day')],
      ]),
      memory.kinds.length ? table('Memory by kind of record', ['Kind', 'Records', 'Size (estimated)'],
        memory.kinds.map((k) => [k.kind, count(k.count), bytes(k.bytes)])) : empty('Nothing is kept yet.')),
    section('Retention', facts(Object.entries(retention).map(([name, s]) => [name.replace('_seconds', ''), seconds(s)])),
      soft('Set by retention in the configuration.')),
    section('Queues', table('Queues', ['Lane', 'Queue', 'Oldest waits'], lanes.map((l) => [l.lane, queueOf(l), seconds(l.oldest_seconds)]))),
    section('Log', element('form', { class: 'filters', 'data-act': 'log' }, choice('Level', 'level', log.level, LEVELS, ''), element('button', { class: 'button' }, 'Change level')),
      soft('Of this node, until it restarts.')),
  ],
  actions: {
    log: (_, { level }) => ({
      title: `Log at level ${level}?`,
      text: level === 'debug' ? 'Debug writes a line for every request. No level logs codes, card numbers or keys.' : 'It holds for this node, until it restarts.',
      yes: 'Change level',
      run: () => put('log', { level }),
      done: (answer) => `The log level is ${answer?.level ?? level}.`,
    }),
  },
};
