// How things stand, at a glance; what is wrong is named first.

import { drawCharts } from '../chart.js';
import { at, element } from '../element.js';
import { count, duration, percent, plural, seconds } from '../format.js';
import { get } from '../ops.js';
import { empty, link, list, pill, section, soft, table } from '../parts.js';
import { queueOf } from './targets.js';

const LATE = 60; // seconds that something may wait before it is called late
const FAILING = 0.9; // share of attempts that succeed
const SOON = 7; // days

export const overview = {
  title: 'Overview',
  async load(_, signal) {
    const [stats, held] = await Promise.all([get('stats', signal), get('events?outcome=quarantined&limit=100', signal)]);
    return { ...stats, held: held.data.filter((e) => !e.replayed_as).length };
  },
  every: () => 5000,
  draw: (stats) => [problems(stats), figures(stats), outcomes(stats), element('div', { id: 'charts', class: 'charts', 'data-drawn': '' }), section('Targets', targetTable(stats))],
  mounted: (stats) => drawCharts(at('charts'), stats),
};

const inWindow = (series, name) => series.reduce((sum, point) => sum + point[name], 0);

// wrong finds what somebody should look at: a text, and where it is put right.
function wrong(stats) {
  const found = [];
  const say = (text, ...where) => found.push(link(text, ...where));
  for (const t of stats.targets) {
    if (t.status === 'paused') say(`${t.name} is paused (${t.reason}): ${queueOf(t)}`, 'targets');
    if (t.success !== null && t.success < FAILING) say(`${t.name} takes only ${percent(t.success)} of what is sent to it`, 'targets');
  }
  if (stats.dead_letters) say(`${plural(stats.dead_letters, 'dead letter')}`, 'deadletters');
  if (stats.held) say(`${stats.held === 100 ? '100 or more events' : plural(stats.held, 'event')} in quarantine`, 'quarantine');
  const paused = new Set(stats.targets.filter((t) => t.status === 'paused').map((t) => `to:${t.name}`));
  for (const { lane, oldest_seconds: age } of stats.lanes) {
    if (age <= LATE || paused.has(lane)) continue;
    const values = lane.startsWith('to:') ? { target: lane.slice(3) } : lane === 'tasks' ? {} : { kind: lane };
    say(`The oldest in the queue ${lane} waits for ${seconds(age)}`, 'deliveries', { ...values, status: 'pending' });
  }
  const [came, refused] = [inWindow(stats.series, 'events'), inWindow(stats.series, 'refused')];
  const failed = inWindow(stats.series, 'failed');
  if (failed) say(`${plural(failed, 'decision')} that the issuer did not take`, 'challenges', { status: 'failed' });
  if (refused) say(`${plural(refused, 'webhook')} refused within ${seconds(stats.window_seconds)}`, 'events', { outcome: 'refused' });
  if (!came) say(`No webhook was accepted within ${seconds(stats.window_seconds)}: does the issuer have the right address and secret?`, 'events');
  if (stats.memory.full_in_days !== null && stats.memory.full_in_days < SOON) {
    say(`Redis is full in ${plural(Math.floor(stats.memory.full_in_days), 'day')}`, 'system');
  }
  return found;
}

function problems(stats) {
  const found = wrong(stats);
  if (!found.length) return element('p', { class: 'well' }, 'Nothing is wrong.');
  return element('section', { class: 'wrong', 'aria-labelledby': 'wrong' },
    element('h2', { id: 'wrong' }, 'To be looked at'), list('plain', ...found.map((one) => element('li', {}, one))));
}

const figure = (name, value, more = '') => element('div', {}, element('dt', {}, name), element('dd', {}, value, more ? soft(more) : ''));

function figures({ series, at: now, challenges, latency, subscriptions }) {
  const minute = series.filter((point) => Date.parse(now) - Date.parse(point.at) <= 60_000);
  const p99 = ({ p99_ms: ms }) => `p99 ${duration(ms)}`;
  return element('dl', { class: 'figures' },
    figure('Webhooks, last minute', `${(inWindow(minute, 'events') / 60).toFixed(1)}/s`),
    figure('Pending challenges', count(challenges.pending ?? 0), challenges.confirming ? `and ${count(challenges.confirming)} confirming` : ''),
    figure('Time to decision', duration(latency.decision.p50_ms), p99(latency.decision)),
    figure('Webhook to push', duration(latency.push.p50_ms), p99(latency.push)),
    figure('Decision to issuer', duration(latency.confirm.p50_ms), p99(latency.confirm)),
    figure('Devices', count(subscriptions)));
}

const OUTCOMES = ['approved', 'rejected', 'completed', 'expired', 'failed'];

function outcomes({ series, window_seconds: window }) {
  const counts = OUTCOMES.map((status) => [status, inWindow(series, status)]);
  const all = counts.reduce((sum, [, n]) => sum + n, 0);
  if (!all) return section('How challenges end', empty(`None has ended within ${seconds(window)}.`));
  return section('How challenges end', element('ul', { class: 'shares' }, ...counts.map(([status, n]) => element('li', {},
    element('span', {}, status), element('progress', { class: `of-${status}`, max: all, value: n, 'aria-label': status }),
    element('span', {}, percent(n / all)), element('span', { class: 'soft' }, count(n))))));
}

function targetTable({ targets }) {
  if (!targets.length) return empty('No targets are configured: forward.targets.');
  return table('Targets', ['Target', 'Success', 'p99', 'Oldest waits'], targets.map((t) => [
    element('span', {}, link(t.name, 'targets'), ' ', pill(t.status)), percent(t.success), duration(t.p99_ms), seconds(t.oldest_seconds),
  ]));
}
