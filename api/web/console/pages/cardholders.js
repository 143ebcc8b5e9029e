// One cardholder: devices, cards, challenges; and the owners of many cards at once.

import { at, element } from '../element.js';
import { count, plural } from '../format.js';
import { get, path, postLines, put, query, remove } from '../ops.js';
import { button, choice, empty, field, filters, link, list, mono, pages, pill, section, soft, time } from '../parts.js';
import { challengeRows } from './challenges.js';

const CHUNK = 256 << 10; // bytes of an import that are sent at once

export const cardholders = {
  title: 'Cardholders',
  load: (_, signal) => get('stats', signal),
  draw: ({ merchants }) => [
    section('Look up', filters('cardholder', choice('Merchant', 'merchant', merchants[0], merchants, ''), field('User', 'user', '', { required: '' }))),
    section('Import card owners',
      soft('A file with one card to a line: ', mono('{"card_id":"…","user_id":"…"}'), '. It wins over what events teach. Run it again after a fault: nothing happens twice.'),
      element('form', { class: 'filters', 'data-act': 'import' },
        choice('Merchant', 'merchant', merchants[0], merchants, ''),
        element('label', {}, 'File ', element('input', { type: 'file', name: 'file', accept: '.ndjson,.jsonl,.json,.txt', required: '' })),
        element('button', { class: 'button primary' }, 'Import')),
      element('div', { 'data-drawn': '' }, element('progress', { id: 'progress', max: '1', 'aria-label': 'Import', hidden: '' }), element('ul', { id: 'refused' }))),
  ],
  actions: {
    import: (_, { merchant, file }) => ({
      title: `Import ${file.name}?`,
      text: `Each of its lines makes a card of ${merchant} the user’s that it names, whoever had it before.`,
      yes: 'Import',
      run: (say) => importFile(merchant, file, say),
      done: ({ imported, refused }) => `Done: ${plural(imported, 'card')} imported, ${plural(refused, 'line')} refused.`,
    }),
  },
};

// importFile sends a file piece by piece, because a browser shows no answer
// before the request is over.
async function importFile(merchant, file, say) {
  const [bar, refusals] = [at('progress'), at('refused')];
  const sum = { imported: 0, refused: 0 };
  refusals.replaceChildren();
  bar.hidden = false;
  let lines = 0;
  for (let from = 0; from < file.size;) {
    const piece = wholeLines(new Uint8Array(await file.slice(from, from + CHUNK).arrayBuffer()), from + CHUNK >= file.size);
    const answer = await postLines(path`merchants/${merchant}/` + 'cards:import', piece);
    sum.imported += answer.imported;
    sum.refused += answer.refused;
    for (const { line, detail } of answer.errors ?? []) {
      if (refusals.childElementCount < 100) refusals.append(element('li', {}, `Line ${count(lines + line)}: ${detail}`));
    }
    lines += piece.reduce((n, byte) => n + (byte === 10), 0);
    from += piece.length;
    bar.value = from / file.size;
    say(`${plural(sum.imported, 'card')} imported, ${plural(sum.refused, 'line')} refused…`);
  }
  bar.hidden = true;
  return sum;
}

// wholeLines cuts what a piece has of its last line; a line longer than a piece
// is sent as it is, for the relay to refuse.
function wholeLines(bytes, last) {
  const end = bytes.lastIndexOf(10) + 1;
  return last || end === 0 ? bytes : bytes.subarray(0, end);
}

// unlessNotConfigured lets pass that the relay asks nobody for passkeys.
function unlessNotConfigured(error) {
  if (error.code !== 'not_configured') throw error;
}

export const cardholder = {
  title: 'Cardholder',
  under: 'cardholders',
  async load({ merchant, user, cursor }, signal) {
    const [devices, passkeys, cards, recent] = await Promise.all([
      get(path`merchants/${merchant}/users/${user}/subscriptions`, signal),
      get(path`merchants/${merchant}/users/${user}/passkeys`, signal).catch(unlessNotConfigured),
      get(path`merchants/${merchant}/users/${user}/cards`, signal),
      get(query('challenges', { merchant, user_id: user, limit: '10', cursor }), signal),
    ]);
    return { merchant, user, devices: devices.data, passkeys: passkeys?.data, cards: cards.data, recent };
  },
  every: () => 5000,
  draw: ({ merchant, user, devices, passkeys, cards, recent }, values) => [
    element('p', { class: 'lead' }, user, ' ', element('span', { class: 'soft' }, `of ${merchant}`)),
    section('Devices',
      devices.length ? list('rows', ...devices.map(deviceRow)) : empty('No device of this cardholder gets pushes: nobody has turned notifications on, or the push service has ended the subscription.'),
      devices.length > 1 ? element('div', { class: 'buttons' }, button('Revoke all devices', 'revokeAll', '', 'danger')) : ''),
    passkeys && section('Passkeys',
      passkeys.length ? list('rows', ...passkeys.map(passkeyRow)) : empty('No passkey: this cardholder cannot approve what needs one.')),
    section('Cards',
      cards.length ? list('rows', ...cards.map(cardRow)) : empty('No card is known to be this cardholder’s.'),
      element('form', { class: 'filters', 'data-act': 'assign' }, field('Card', 'card', '', { required: '' }), element('button', { class: 'button' }, 'Assign card'))),
    section('Challenges',
      recent.data.length ? challengeRows(recent.data) : empty('No challenge within the retention.'),
      pages('cardholder', values, recent.next_cursor)),
    section('Erase', soft('For offboarding, and for who asks to be forgotten.'),
      element('div', { class: 'buttons' }, link('Events of this cardholder', 'events', { merchant, user_id: user }), button('Erase cardholder', 'erase', '', 'danger'))),
  ],
  actions: {
    revoke: (id, _, { merchant, user, devices }) => ({
      title: `Revoke ${nameOf(devices.find((d) => d.id === id))}?`,
      text: 'It gets no more pushes, and those it has can no longer approve anything. The cardholder can turn notifications on again there.',
      yes: 'Revoke',
      danger: true,
      run: () => remove(path`merchants/${merchant}/users/${user}/subscriptions/${id}`),
      done: () => 'The device is revoked.',
    }),
    revokeAll: (_, __, { merchant, user, devices }) => ({
      title: `Revoke all devices of ${user}?`,
      text: `All ${devices.length} get no more pushes, and those they have can no longer approve anything.`,
      yes: 'Revoke all',
      danger: true,
      run: () => remove(path`merchants/${merchant}/users/${user}/subscriptions`),
      done: () => 'All devices are revoked.',
    }),
    removePasskey: (id, _, { merchant, user, passkeys }) => ({
      title: `Remove ${passkeyName(passkeys.find((p) => p.id === id))}?`,
      text: 'It can no longer approve anything. The cardholder can add another after signing in again.',
      yes: 'Remove',
      danger: true,
      run: () => remove(path`merchants/${merchant}/users/${user}/passkeys/${id}`),
      done: () => 'The passkey is removed.',
    }),
    assign: (_, { card }, { merchant, user }) => ({
      title: `Assign the card ${card}?`,
      text: `It is ${user}’s from now on, whatever events say, and its challenges that have no owner yet become theirs.`,
      yes: 'Assign card',
      run: () => put(path`merchants/${merchant}/cards/${card}`, { user_id: user }),
      done: (owner) => `The card ${owner.card_id} is ${owner.user_id}’s. It is listed here in a moment.`,
    }),
    release: (card, _, { merchant, user }) => ({
      title: `Release the card ${card}?`,
      text: `It is no longer ${user}’s. The next event that names an owner teaches it anew.`,
      yes: 'Release card',
      danger: true,
      run: () => remove(path`merchants/${merchant}/cards/${card}`),
      done: () => 'The card is released.',
    }),
    erase: (_, __, { merchant, user }) => ({
      title: `Erase ${user}?`,
      text: 'All devices, passkeys, cards, challenges and records of this cardholder are forgotten; what is pending is cancelled first. This cannot be taken back.',
      yes: 'Erase',
      danger: true,
      run: () => remove(path`merchants/${merchant}/users/${user}`),
      done: () => `${user} is erased.`,
    }),
  },
};

const nameOf = (device) => device.label || 'an unnamed device';

const deviceRow = (d) => element('li', {},
  time(d.last_used_at),
  element('span', { class: 'what' }, nameOf(d), soft(`at ${d.endpoint_host}`)),
  pill(d.status),
  element('span', { class: 'soft' }, mono(d.id)),
  element('span', { class: 'buttons' }, button('Revoke', 'revoke', d.id, 'danger', `Revoke ${nameOf(d)}, ${d.id}`)));

const passkeyName = (passkey) => passkey.label || 'an unnamed passkey';

const passkeyRow = (p) => element('li', {},
  time(p.last_used_at ?? p.created_at),
  element('span', { class: 'what' }, passkeyName(p), soft(p.last_used_at ? 'last used' : 'added')),
  element('span', { class: 'pill' }, p.last_used_at ? 'used' : 'never used'),
  element('span', { class: 'soft' }, mono(p.id)),
  element('span', { class: 'buttons' }, button('Remove', 'removePasskey', p.id, 'danger', `Remove ${passkeyName(p)}, ${p.id}`)));

const cardRow = (c) => element('li', {},
  time(c.assigned_at),
  element('span', { class: 'what' }, link(c.card_id, 'search', { q: c.card_id })),
  element('span', { class: 'pill' }, c.assigned_by === 'operator' ? 'assigned' : 'learnt'),
  element('span', { class: 'soft' }, c.assigned_by === 'operator' ? 'by the operator’s word, which wins over events' : 'from an event that named its user'),
  element('span', { class: 'buttons' }, button('Release', 'release', c.card_id, 'danger', `Release ${c.card_id}`)));
