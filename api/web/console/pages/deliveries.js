// What was sent: every delivery with its attempts, and those that were given up.

import { element } from '../element.js';
import { count, duration, plural } from '../format.js';
import { get, path, post, query, remove } from '../ops.js';
import { button, choice, empty, facts, field, filters, link, list, mono, pages, paragraph, pill, soft, time } from '../parts.js';

const KINDS = ['push', 'confirm', 'lock', 'forward'];
const STATUSES = ['pending', 'delivered', 'dead', 'parked'];
const WHAT = { push: 'Push to', confirm: 'Confirm to', lock: 'Card lock at', forward: 'Forward to' };

const titleOf = ({ kind, target }) => `${WHAT[kind] ?? kind} ${target ?? 'the issuer'}`;

// attempts shows one delivery, whole.
export const attempts = (d) => element('article', { class: 'card', 'aria-label': titleOf(d) },
  element('div', { class: 'head' }, element('h2', {}, link(titleOf(d), 'delivery', { id: d.id })), pill(d.status)),
  d.next_attempt_at && d.status === 'pending' ? paragraph('Next attempt ', time(d.next_attempt_at)) : '',
  d.attempts.length ? element('ol', { class: 'attempts' }, ...d.attempts.map(attempt)) : soft('Not tried yet.'));

function attempt(a) {
  return element('li', {},
    element('div', {}, time(a.at), ` ${a.status_code ?? 'no answer'} after ${duration(a.latency_ms)}`),
    a.error ? element('p', { class: 'fault' }, a.error) : '',
    a.response?.trim() ? element('pre', {}, a.response) : '');
}

function lastSaid({ attempts: all }) {
  const last = all.at(-1);
  if (!last) return 'never tried';
  return `${plural(all.length, 'attempt')}, the last: ${last.error || `answered ${last.status_code}`}`;
}

function rows(data, actions) {
  return list('rows', ...data.map((d) => element('li', {},
    d.attempts.length ? time(d.attempts.at(-1).at) : element('span', {}, 'not yet'),
    element('span', { class: 'what' }, link(titleOf(d), 'delivery', { id: d.id })),
    pill(d.status),
    element('span', { class: 'soft' }, lastSaid(d)),
    actions(d))));
}

const replay = (id) => ({
  title: 'Send this delivery again?',
  text: 'It is owed anew, with a fresh list of retries, and goes out at once. The other side may get it a second time, under the same id.',
  yes: 'Replay',
  run: () => post(path`deliveries/${id}/replay`),
  done: () => 'The delivery is on its way again.',
});

const drop = (id) => ({
  title: 'Drop this dead letter?',
  text: 'It is forgotten, and will never be sent. This cannot be taken back.',
  yes: 'Drop',
  danger: true,
  run: () => remove(path`deliveries/${id}`),
  done: () => 'The dead letter is dropped.',
});

const whose = (d) => `${titleOf(d)}, ${d.id}`;
const buttonsOf = (d) => element('span', { class: 'buttons' },
  button('Replay', 'replay', d.id, '', `Replay: ${whose(d)}`), button('Drop', 'drop', d.id, 'danger', `Drop: ${whose(d)}`));

export const deliveries = {
  title: 'Deliveries',
  load: (values, signal) => get(query('deliveries', { ...values, limit: '50' }), signal),
  draw: ({ data, next_cursor: next }, values) => [
    soft('What is, and was, owed to push services, the issuer and your targets.'),
    filters('deliveries', choice('Kind', 'kind', values.kind, KINDS), field('Target', 'target', values.target), choice('Status', 'status', values.status, STATUSES)),
    data.length ? rows(data, () => '') : empty('No delivery matches.'),
    pages('deliveries', values, next),
  ],
};

export const deadletters = {
  title: 'Dead letters',
  async load(values, signal) {
    const [page, stats] = await Promise.all([
      get(query('deliveries', { ...values, status: 'dead', limit: '50' }), signal), get('stats', signal),
    ]);
    return { ...page, stats };
  },
  draw({ data, next_cursor: next, stats }, values) {
    const all = values.target ? `Replay all of ${values.target}` : 'Replay all';
    return [
      paragraph('Deliveries that were given up after the last retry, or that the other side will never take. Mend the cause, then replay them. ',
        `${plural(stats.dead_letters, 'dead letter')} in all.`),
      filters('deadletters', choice('Kind', 'kind', values.kind, KINDS), choice('Target', 'target', values.target, stats.targets.map(({ name }) => name))),
      data.length && !values.kind && element('div', { class: 'buttons' }, button(all, 'all', values.target ?? '')),
      data.length ? rows(data, buttonsOf) : empty('No dead letters.'),
      pages('deadletters', values, next),
    ];
  },
  actions: {
    replay,
    drop,
    all: (target) => ({
      title: target ? `Replay all dead letters of ${target}?` : 'Replay all dead letters?',
      text: target ? `Everything that was given up for ${target} is owed to it again, and goes out at once.`
        : 'Everything that was given up, of every kind and target, is owed again. Pushes and confirms of challenges that have ended do nothing.',
      yes: 'Replay all',
      run: () => post(query('deadletters/replay', { target })),
      done: ({ replayed }) => `${count(replayed)} on their way again.`,
    }),
  },
};

export const delivery = {
  title: 'Delivery',
  under: 'deadletters',
  load: ({ id }, signal) => get(path`deliveries/${id}`, signal),
  draw: (d) => [
    facts([
      ['Kind', d.kind], ['Target', d.target ?? 'the issuer'], ['Status', pill(d.status)], ['Delivery', mono(d.id)],
      ['Event', d.event_id && link(d.event_id, 'event', { id: d.event_id })],
      ['Challenge', d.challenge_id && link(d.challenge_id, 'challenge', { id: d.challenge_id })],
    ]),
    d.status === 'dead' && buttonsOf(d),
    attempts(d),
  ],
  actions: { replay, drop },
};
