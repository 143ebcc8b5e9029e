// One box for everything that an operator may hold in hand.

import { element } from '../element.js';
import { get, OpsError, path, query } from '../ops.js';
import { empty, link, list, mono, section, soft, to } from '../parts.js';
import { eventRows } from './events.js';

const PAGE_OF = { evt: 'event', chl: 'challenge', dlv: 'delivery' };

// none is for a card without an owner, and an id that is none of a card.
async function ownerOf(merchant, card, signal) {
  try {
    return await get(path`merchants/${merchant}/cards/${card}`, signal);
  } catch (error) {
    if (error instanceof OpsError && [400, 404].includes(error.status)) return null;
    throw error;
  }
}

async function userOf(merchant, user, signal) {
  const [cards, devices] = await Promise.all([
    get(path`merchants/${merchant}/users/${user}/cards`, signal), get(path`merchants/${merchant}/users/${user}/subscriptions`, signal),
  ]);
  return { merchant, user, cards: cards.data.length, devices: devices.data.length };
}

export const search = {
  title: 'Search',
  under: 'events',
  async load({ q = '' }, signal) {
    const page = PAGE_OF[/^([a-z]{3})_\w+$/.exec(q)?.[1]];
    if (page) {
      location.replace(to(page, { id: q }));
      return null;
    }
    const { merchants } = await get('stats', signal);
    const [ofCard, ofUser, owners, users] = await Promise.all([
      get(query('events', { card_id: q, limit: '10' }), signal), get(query('events', { user_id: q, limit: '10' }), signal),
      Promise.all(merchants.map((merchant) => ownerOf(merchant, q, signal))), Promise.all(merchants.map((merchant) => userOf(merchant, q, signal))),
    ]);
    return { q, ofCard: ofCard.data, ofUser: ofUser.data, owners: owners.filter(Boolean), users: users.filter((u) => u.cards || u.devices) };
  },
  draw(found) {
    if (!found) return [];
    const { q, ofCard, ofUser, owners, users } = found;
    if (![ofCard, ofUser, owners, users].some((one) => one.length)) {
      return [empty('Nothing is known under ', mono(q), ': no event, challenge, card or user. Records older than their retention are gone.')];
    }
    return [
      element('p', { class: 'lead' }, q),
      users.length > 0 && section('The cardholder', list('plain', ...users.map((u) => element('li', {},
        link(u.user, 'cardholder', { merchant: u.merchant, user: u.user }), ` of ${u.merchant}: ${u.devices} devices, ${u.cards} cards`)))),
      owners.length > 0 && section('The card', list('plain', ...owners.map((o) => element('li', {},
        'belongs to ', link(o.user_id, 'cardholder', { merchant: o.merchant, user: o.user_id }), ` of ${o.merchant}, ${o.assigned_by === 'operator' ? 'by an operator’s word' : 'learnt from an event'}`)))),
      ofCard.length > 0 && section('Events of the card', eventRows(ofCard), more({ card_id: q })),
      ofUser.length > 0 && section('Events of the user', eventRows(ofUser), more({ user_id: q })),
    ];
  },
};

const more = (values) => soft(link('All of them', 'events', values));
