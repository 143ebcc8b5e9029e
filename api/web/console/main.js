// Leads from the address to a page, keeps it up to date, and carries out what
// is pressed on it.
//
// A page is { title, load, draw, actions?, every? }. load(values, signal)
// fetches what it shows for the values in the address; draw(data, values) makes
// nodes of it; mounted(data), if there is one, draws what is more than nodes.
// actions[name](id, form) says what a button with data-act does: the question
// { title, text, yes, danger }, run() and done(answer), which says what came of
// it. every(data) is after how many milliseconds the page loads anew, 0 for never.

import { ask } from './ask.js';
import { at, element, say } from './element.js';
import { formatClock } from './format.js';
import { morph } from './morph.js';
import { explain, get, session } from './ops.js';
import { to } from './parts.js';
import { cardholder, cardholders } from './pages/cardholders.js';
import { challenge, challenges } from './pages/challenges.js';
import { deadletters, deliveries, delivery } from './pages/deliveries.js';
import { event, events, quarantine } from './pages/events.js';
import { overview } from './pages/overview.js';
import { search } from './pages/search.js';
import { system } from './pages/system.js';
import { targets } from './pages/targets.js';

const PAGES = {
  overview, search, events, event, quarantine, challenges, challenge, deadletters, deliveries, delivery, targets, cardholders, cardholder, system,
};

const root = at('page');
let shown = null; // { page, values, data, loading }
let timer;

function address() {
  const [, name, rest] = /^#\/([a-z]*)(?:\?(.*))?$/.exec(location.hash) ?? [];
  return { page: PAGES[name] ?? overview, name: PAGES[name] ? name : 'overview', values: Object.fromEntries(new URLSearchParams(rest)) };
}

// follow shows the page that the address names.
function follow() {
  const { page, name, values } = address();
  leave();
  shown = { page, values, data: undefined };
  for (const entry of document.querySelectorAll('#nav a')) {
    if (entry.hash === `#/${page.under ?? name}`) entry.setAttribute('aria-current', 'page');
    else entry.removeAttribute('aria-current');
  }
  document.title = `${page.title} · Approval relay`;
  say(at('title'), page.title);
  report('');
  trouble('');
  say(at('as-of'), '');
  root.replaceChildren(element('p', { class: 'empty', 'aria-busy': 'true' }, 'Loading…'));
  return load();
}

function leave() {
  clearTimeout(timer);
  shown?.loading?.abort();
}

// load fetches and draws the page. If that fails, what it showed stays, and is
// called old.
async function load() {
  clearTimeout(timer);
  const view = shown;
  const { page, values } = view;
  view.loading?.abort();
  view.loading = new AbortController();
  const { signal } = view.loading;
  try {
    const data = await page.load(values, signal);
    if (signal.aborted) return;
    view.data = data;
    trouble('');
    if (page.every) say(at('as-of'), `as of ${formatClock(Date.now())}`);
    show(page.draw(data, values));
    page.mounted?.(data);
  } catch (error) {
    if (signal.aborted) return;
    if (error.status === 401) return void signIn(session.token ? 'The relay does not take this token. It may have been changed.' : '');
    if (!error.status && error.name !== 'Error') console.error(error);
    trouble(explain(error));
    if (view.data === undefined) show([element('div', { class: 'buttons' }, element('button', { type: 'button', class: 'button', 'data-again': '' }, 'Try again'))]);
  }
  const wait = page.every?.(view.data);
  if (wait) timer = setTimeout(() => document.hidden || load(), wait);
}

function show(nodes) {
  const next = root.cloneNode(false);
  next.append(...nodes.filter(Boolean));
  morph(root, next);
}

function trouble(text) {
  say(at('trouble'), text);
  at('trouble').hidden = !text;
}

function report(text, good = true) {
  at('result').className = `result ${good ? 'good' : 'bad'}`;
  say(at('result'), text);
}

// carryOut asks, acts, says what came of it, and shows what is different now.
async function carryOut(control, id, form) {
  const view = shown;
  const action = view.page.actions[control.dataset.act](id, form, view.data);
  if (!(await ask(action))) return;
  report('Working…');
  try {
    const answer = await action.run((text) => report(text));
    report(action.done(answer));
  } catch (error) {
    if (error.status === 401) return void signIn('The relay does not take this token. It may have been changed.');
    report(explain(error), false);
  }
  if (view !== shown) return;
  await load();
  if (!control.isConnected || document.activeElement === document.body) at('title').focus();
}

root.addEventListener('click', ({ target }) => {
  if (target.closest('[data-again]')) return void follow();
  const control = target.closest('button[data-act]');
  if (control) carryOut(control, control.dataset.id);
});

document.addEventListener('submit', (event) => {
  const form = event.target;
  if (form.method === 'dialog') return;
  event.preventDefault();
  const values = Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, typeof value === 'string' ? value.trim() : value]));
  if (form.id === 'sign-in-form') return void takeToken(values.token);
  if (form.dataset.act) return void carryOut(form, form.dataset.id, values);
  const there = to(form.dataset.go, values);
  if (location.hash === there) follow();
  else location.hash = there;
});

function signIn(why) {
  leave();
  shown = null;
  session.token = '';
  signedIn(false);
  document.title = 'Sign in · Approval relay';
  say(at('title'), 'Console');
  say(at('as-of'), '');
  trouble(why);
  report('');
  root.replaceChildren(at('sign-in').content.cloneNode(true));
  root.querySelector('input').focus();
}

async function takeToken(token) {
  session.token = token;
  try {
    await get('stats');
  } catch (error) {
    if (error.status === 401) return void signIn('The relay does not take this token.');
    // Whatever else is wrong, the page will say.
  }
  signedIn(true);
  await follow();
  at('title').focus();
}

function signedIn(is) {
  at('nav').hidden = at('find').hidden = !is;
}

addEventListener('hashchange', async () => {
  if (at('nav').hidden) return; // the address waits until somebody has signed in
  await follow();
  at('title').focus();
  scrollTo(0, 0);
});
document.addEventListener('visibilitychange', () => !document.hidden && shown?.page.every && load());
at('skip').addEventListener('click', (event) => {
  event.preventDefault();
  at('title').focus();
});

signedIn(true);
follow();
