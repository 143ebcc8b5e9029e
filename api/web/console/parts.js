// The pieces that pages are made of. Text goes in as text, never as markup.

import { element } from './element.js';
import { formatDay } from './format.js';
import { query } from './ops.js';

export const to = (page, values = {}) => query(`#/${page}`, values);
export const link = (text, page, values) => element('a', { href: to(page, values) }, text);
export const paragraph = (...children) => element('p', {}, ...children);
export const soft = (...children) => element('p', { class: 'soft' }, ...children);
export const empty = (...children) => element('p', { class: 'empty' }, ...children);
export const section = (title, ...children) => element('section', {}, element('h2', {}, title), ...children);
export const list = (name, ...items) => element('ul', { class: name }, ...items);
export const mono = (text) => element('code', {}, text);

// button carries out the page's action of this name with the id.
export function button(text, action, id, look = '', label = '') {
  const node = element('button', { type: 'button', class: `button ${look}`, 'data-act': action, 'data-id': id }, text);
  if (label) node.setAttribute('aria-label', label);
  return node;
}

const KIND = {
  approved: 'good', completed: 'good', delivered: 'good', active: 'good', forwarded: 'good', challenge: 'good',
  failed: 'bad', dead: 'bad', refused: 'bad', rejected: 'bad',
  quarantined: 'warn', parked: 'warn', paused: 'warn', pending: 'warn', confirming: 'warn', expired: 'warn',
};

// pill shows a status as the API names it.
export const pill = (status) => element('span', { class: `pill ${KIND[status] ?? ''}` }, status);

export function time(at) {
  return element('time', { datetime: at, title: at }, formatDay(at));
}

// facts lists names and what they are; what is null is left out.
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== '');
  return element('dl', { class: 'facts' }, ...known.map(([name, value]) => element('div', {}, element('dt', {}, name), element('dd', {}, value))));
}

// table has a caption for those who cannot see where it stands.
export function table(caption, heads, rows) {
  return element('table', {},
    element('caption', { class: 'unseen' }, caption),
    element('thead', {}, element('tr', {}, ...heads.map((head) => element('th', { scope: 'col' }, head)))),
    element('tbody', {}, ...rows.map(([first, ...rest]) => element('tr', {},
      element('th', { scope: 'row' }, first), ...rest.map((cell) => element('td', {}, cell))))));
}

export const json = (value) => element('pre', {}, JSON.stringify(value, null, 2));

// field is a labelled input, choice a labelled select; "" stands for all.
export function field(label, name, value = '', attributes = {}) {
  return element('label', {}, `${label} `, element('input', { name, value: value ?? '', ...attributes }));
}

export function choice(label, name, value, options, all = 'all') {
  const option = (text, of) => element('option', of === (value ?? '') ? { value: of, selected: '' } : { value: of }, text);
  return element('label', {}, `${label} `, element('select', { name }, ...(all ? [option(all, '')] : []), ...options.map((one) => option(one, one))));
}

// filters is a form that leads to a page with what was filled in.
export const filters = (page, ...fields) => element('form', { class: 'filters', 'data-go': page }, ...fields, element('button', { class: 'button' }, 'Show'));

// pages leads through a list that the API cuts into pages.
export function pages(page, values, next) {
  const links = [];
  if (values.cursor) links.push(element('a', { class: 'button', href: to(page, { ...values, cursor: '' }) }, 'First page'));
  if (next) links.push(element('a', { class: 'button', href: to(page, { ...values, cursor: next }) }, 'Next page'));
  return element('div', { class: 'buttons' }, ...links);
}
