// Challenges, and the life of one from the webhook to the issuer's answer.

import { element } from '../element.js';
import { duration } from '../format.js';
import { get, path, post, query } from '../ops.js';
import { button, choice, empty, facts, field, filters, link, list, mono, pages, pill, section, soft, time } from '../parts.js';

const STATUSES = ['pending', 'confirming', 'approved', 'rejected', 'completed', 'expired', 'failed', 'cancelled'];
const REFRESH = 2000; // milliseconds, while a challenge lives

const amountOf = ({ amount }) => amount && `${amount.value} ${amount.currency ?? ''}`.trim();
const nameOf = (c) => [c.payee?.name ?? c.wallet ?? c.kind, amountOf(c)].filter(Boolean).join(', ');

// challengeRows lists challenges, newest first.
export const challengeRows = (data) => list('rows', ...data.map((c) => element('li', {},
  time(c.created_at),
  element('span', { class: 'what' }, link(nameOf(c), 'challenge', { id: c.id })),
  pill(c.status),
  element('span', { class: 'soft' }, [c.merchant, c.user_id ? `user ${c.user_id}` : 'no owner yet', c.card.last4 && `card ····${c.card.last4}`].filter(Boolean).join(' · ')))));

export const challenges = {
  title: 'Challenges',
  async load(values, signal) {
    const { merchants } = await get('stats', signal);
    return { merchants, ...await get(query('challenges', { ...values, merchant: values.merchant || (values.user_id && merchants[0]), limit: '50' }), signal) };
  },
  draw: ({ merchants, data, next_cursor: next }, values) => [
    filters('challenges', choice('Merchant', 'merchant', values.merchant, merchants), field('User', 'user_id', values.user_id), choice('Status', 'status', values.status, STATUSES)),
    data.length ? challengeRows(data) : empty('No challenge matches.'),
    pages('challenges', values, next),
  ],
};

export const challenge = {
  title: 'Challenge',
  under: 'challenges',
  async load({ id }, signal) {
    const timeline = await get(path`challenges/${id}/timeline`, signal);
    const sent = timeline.event ? (await get(query('deliveries', { event_id: id }), signal)).data : [];
    return { ...timeline, sent };
  },
  every: (data) => (['pending', 'confirming'].includes(data?.challenge.status) ? REFRESH : 0),
  draw: ({ challenge: c, event, entries, sent }) => [
    element('p', { class: 'lead' }, nameOf(c), ' ', pill(c.status)),
    facts([
      ['User', c.user_id ? link(c.user_id, 'cardholder', { merchant: c.merchant, user: c.user_id }) : 'none: its card belongs to nobody yet'],
      ['Card', c.card.id && link(c.card.last4 ? `····${c.card.last4}` : c.card.id, 'search', { q: c.card.id })],
      ['Kind', `${c.kind}, ${c.method}`], ['Reference', c.reference], ['Merchant', c.merchant], ['Challenge', mono(c.id)],
      ['Event', event && link(event.id, 'event', { id: event.id })],
      ['Expires', time(c.expires_at)], ['Step-up', c.step_up && `${c.step_up.method}${c.step_up.blocked ? ', blocked by failures: it can only be rejected' : ''}`],
      ...decisionOf(c),
      ['Failure', c.failure && `${c.failure.code}: ${c.failure.detail}`],
    ]),
    c.status === 'pending' && element('div', { class: 'buttons' }, button('Cancel challenge', 'cancel', c.id, 'danger')),
    section('Timeline', element('ol', { class: 'timeline' }, ...entries.map((entry) => drawEntry(entry, entries[0].at, sent)))),
    !event && soft('The record of its webhook has passed its retention, and its deliveries with it.'),
  ],
  actions: {
    cancel: (id) => ({
      title: 'Cancel this challenge?',
      text: 'It is withdrawn from the cardholder’s devices, and can no longer be approved. The issuer is not told, and lets the payment run out.',
      yes: 'Cancel challenge',
      danger: true,
      run: () => post(path`challenges/${id}/cancel`),
      done: ({ status }) => `The challenge is ${status}.`,
    }),
  },
};

// decisionOf says who decided, and where.
function decisionOf({ decision: d, merchant, user_id: user }) {
  if (!d) return [];
  const device = d.device ?? {};
  return [
    ['Decision', `${d.action}${d.reason ? ` (${d.reason})` : ''}`], ['Decided', time(d.decided_at)],
    ['Device', device.subscription_id && link(device.subscription_id, 'cardholder', { merchant, user })],
    ['Passkey', d.proof && link(d.proof.passkey_id, 'cardholder', { merchant, user })],
    ['From', device.ip], ['Browser', device.user_agent],
    ['Shown', d.shown && [d.shown.amount, d.shown.currency, d.shown.payee].filter(Boolean).join(' ')],
  ];
}

const SAID = {
  webhook: 'Webhook', announced: 'Announced', push: 'Push', revealed: 'Revealed', decision: 'Decision', confirm: 'Confirm to the issuer',
  lock: 'Card lock', end: 'End', follow_up: 'Push of the end', forward: 'Forward',
};

function drawEntry({ at, what, detail, ok, delivery_id: id }, first, sent) {
  const same = (a) => Math.floor(Date.parse(a.at)) === Date.parse(at);
  const response = id && sent.find((d) => d.id === id)?.attempts.find(same)?.response;
  const since = Math.max(0, Date.parse(at) - Date.parse(first));
  const state = ok === null ? '' : ok ? 'good' : 'bad';
  return element('li', { class: state },
    element('div', { class: 'when' }, time(at), element('span', { class: 'soft' }, `+${since < 1000 ? `${since} ms` : duration(since)}`)),
    element('div', {},
      element('strong', {}, id ? link(SAID[what] ?? what, 'delivery', { id }) : SAID[what] ?? what),
      ...(ok === null ? [] : [' ', element('span', { class: `pill ${state}` }, ok ? 'delivered' : 'failed')]),
      element('p', {}, detail),
      response?.trim() ? element('pre', {}, response) : ''));
}
