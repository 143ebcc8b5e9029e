// What came in: every webhook, one of them, and those that could not be understood.

import { element } from '../element.js';
import { plural } from '../format.js';
import { get, path, post, query } from '../ops.js';
import { button, choice, empty, facts, field, filters, json, link, list, mono, pages, paragraph, pill, section, soft, table, time } from '../parts.js';
import { attempts } from './deliveries.js';

const OUTCOMES = ['challenge', 'forwarded', 'duplicate', 'quarantined', 'refused'];

// eventRows lists events, newest first.
export const eventRows = (events) => list('rows', ...events.map((e) => element('li', {},
  time(e.received_at),
  element('span', { class: 'what' }, link(e.type || 'no type', 'event', { id: e.id }), soft(e.merchant)),
  pill(e.outcome),
  element('span', { class: 'soft' }, ...about(e)))));

function about({ reason, card_id: card, user_id: user, remote_ip: ip }) {
  const parts = [reason, user && `user ${user}`, card && `card ${card}`, ip && `from ${ip}`].filter(Boolean);
  return [parts.join(' · ')];
}

// instant is what a local date and time of a form is to the API.
const instant = (local) => (local ? new Date(local).toISOString() : '');

export const events = {
  title: 'Events',
  load: (values, signal) => get(query('events', { ...values, since: instant(values.since), until: instant(values.until), limit: '50' }), signal),
  draw: ({ data, next_cursor: next }, values) => [
    soft('Every webhook that was received, newest first, also those that were refused.'),
    filters('events',
      field('Type', 'type', values.type), choice('Outcome', 'outcome', values.outcome, OUTCOMES),
      field('Card', 'card_id', values.card_id), field('User', 'user_id', values.user_id),
      field('Since', 'since', values.since, { type: 'datetime-local' }), field('Until', 'until', values.until, { type: 'datetime-local' })),
    data.length ? eventRows(data) : empty('No event matches. Records older than their retention are gone.'),
    pages('events', values, next),
  ],
};

function replay({ id, outcome }) {
  return {
    title: 'Run this event again?',
    text: outcome === 'quarantined'
      ? 'It arrives anew, through today’s configuration, as if it had come when it first did. If it still cannot be understood, it stays in quarantine.'
      : 'It is sent again to every target that wants it today, under the same webhook-id.',
    yes: 'Replay',
    run: () => post(path`events/${id}/replay`),
    done: (answer) => (answer.status === 'quarantined'
      ? 'It still cannot be understood, and stays in quarantine. Mend merchants.….fields in the configuration first.'
      : `Replayed: ${answer.status} as ${answer.event_id}.`),
  };
}

const replayable = (e) => (e.outcome === 'quarantined' && !e.replayed_as) || e.outcome === 'forwarded';

export const event = {
  title: 'Event',
  under: 'events',
  async load({ id }, signal) {
    const record = await get(path`events/${id}`, signal);
    const sent = record.outcome === 'refused' ? { data: [] } : await get(query('deliveries', { event_id: id }), signal);
    return { record, sent: sent.data };
  },
  draw: ({ record: e, sent }) => [
    facts([
      ['Outcome', pill(e.outcome)], ['Reason', e.reason], ['Type', e.type], ['Merchant', e.merchant], ['Event', mono(e.id)],
      ['Challenge', e.challenge_id && link(e.challenge_id, 'challenge', { id: e.challenge_id })],
      ['User', e.user_id && link(e.user_id, 'cardholder', { merchant: e.merchant, user: e.user_id })],
      ['Card', e.card_id && link(e.card_id, 'search', { q: e.card_id })],
      ['Replayed as', e.replayed_as && link(e.replayed_as, 'event', { id: e.replayed_as })],
      ['Happened', e.occurred_at && time(e.occurred_at)], ['Received', time(e.received_at)], ['From', e.remote_ip],
    ]),
    replayable(e) && element('div', { class: 'buttons' }, button('Replay', 'replay', e.id, 'primary')),
    e.fields?.length && section('Fields', soft('Names and types; values of what nobody could read are never shown.'), fieldTable(e.fields)),
    section('Payload', e.payload ? json(e.payload) : empty(withoutPayload(e))),
    section('Deliveries', sent.length ? element('div', {}, ...sent.map(attempts)) : empty('Nothing was owed to anybody because of this event.')),
  ],
  actions: { replay: (id, _, { record }) => replay(record) },
};

function withoutPayload({ outcome }) {
  if (outcome === 'quarantined') return 'Not shown in quarantine.';
  if (outcome === 'refused') return 'What is refused is not kept.';
  return 'It is gone: a challenge’s body is dropped when the challenge ends.';
}

const fieldTable = (fields) => table('Fields of the payload', ['Field', 'Type'], fields.map((f) => [mono(f.path), f.type]));

export const quarantine = {
  title: 'Quarantine',
  load: (values, signal) => get(query('events', { outcome: 'quarantined', cursor: values.cursor, limit: '20' }), signal),
  draw: ({ data, next_cursor: next }, values) => [
    paragraph('Authentic events that could not be understood. Mend ', mono('merchants.NAME.fields'), ' or ', mono('action_types'),
      ' in the configuration, restart the relay, and replay them. A challenge whose time is over rings nobody.'),
    data.some((e) => !e.replayed_as) && element('div', { class: 'buttons' }, button('Replay all', 'all', '', '')),
    data.length ? list('cards', ...data.map(held)) : empty('Nothing is in quarantine.'),
    pages('quarantine', values, next),
  ],
  actions: {
    replay: (id) => replay({ id, outcome: 'quarantined' }),
    all: () => ({
      title: 'Replay the whole quarantine?',
      text: 'Every event in it arrives anew, through today’s configuration. What still cannot be understood stays.',
      yes: 'Replay all',
      run: () => post('quarantine/replay'),
      done: ({ replayed, quarantined }) => `${plural(replayed, 'event')} replayed; ${plural(quarantined, 'event')} still cannot be understood.`,
    }),
  },
};

const held = (e) => element('li', { class: 'card' },
  element('div', { class: 'head' }, element('h2', {}, link(e.type || 'no type', 'event', { id: e.id })), time(e.received_at)),
  paragraph(e.reason),
  soft(e.merchant, ' · ', mono(e.id)),
  e.replayed_as
    ? paragraph('Replayed as ', link(e.replayed_as, 'event', { id: e.replayed_as }))
    : element('div', { class: 'buttons' }, button('Replay', 'replay', e.id, '', `Replay ${e.type} of ${e.received_at}`)),
  e.fields?.length ? element('details', {}, element('summary', {}, `${plural(e.fields.length, 'field')}`), fieldTable(e.fields)) : '');
