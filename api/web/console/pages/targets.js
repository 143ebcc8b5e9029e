// Your services that events are forwarded to.

import { element } from '../element.js';
import { count, duration, percent, plural, seconds } from '../format.js';
import { get, path, post } from '../ops.js';
import { button, empty, facts, link, list, paragraph, pill, soft } from '../parts.js';

// queueOf says how much waits for a target or a lane.
export const queueOf = ({ waiting, later }) => `${count(waiting)} waiting${later ? `, ${count(later)} to be tried later` : ''}`;

const card = (t) => element('li', { class: 'card' },
  element('div', { class: 'head' }, element('h2', {}, t.name), pill(t.status)),
  t.status === 'paused' ? paragraph(t.reason) : '',
  facts([
    ['Queue', queueOf(t)], ['Oldest waits', seconds(t.oldest_seconds)], ['Success', percent(t.success)],
    ['Attempts', `${count(t.delivered)} of ${count(t.attempts)} delivered`], ['p50', duration(t.p50_ms)], ['p99', duration(t.p99_ms)],
  ]),
  element('div', { class: 'buttons' },
    t.status === 'paused' ? button('Resume', 'resume', t.name, 'primary', `Resume ${t.name}`) : button('Pause', 'pause', t.name, '', `Pause ${t.name}`),
    link('Deliveries', 'deliveries', { target: t.name }), link('Dead letters', 'deadletters', { target: t.name })));

export const targets = {
  title: 'Targets',
  load: (_, signal) => get('stats', signal),
  every: () => 5000,
  draw: (stats) => [
    soft(`Success and latency are of the last ${plural(Math.round(stats.window_seconds / 60), 'minute')}.`),
    stats.targets.length ? list('cards', ...stats.targets.map(card)) : empty('No targets are configured: forward.targets.'),
  ],
  actions: {
    pause: (name) => ({
      title: `Pause ${name}?`,
      text: `Nothing more is sent to ${name}. What is owed to it is kept, up to its max_backlog, and goes out when you resume it.`,
      yes: 'Pause',
      run: () => post(path`targets/${name}/pause`),
      done: ({ status }) => `${name} is ${status}. All nodes follow within seconds.`,
    }),
    resume: (name) => ({
      title: `Resume ${name}?`,
      text: `What is owed to ${name} goes out at once, the oldest first.`,
      yes: 'Resume',
      run: () => post(path`targets/${name}/resume`),
      done: ({ status }) => `${name} is ${status}.`,
    }),
  },
};
