// The page: session, list of challenges, and what the buttons do.

import { firstToken, takeToken } from './fragment.js';
import { Api } from './api.js';
import { follow } from './events.js';
import { explain } from './messages.js';
import { PushPanel } from './panel.js';
import { clearToken, loadToken, saveToken } from './store/session.js';
import { ChallengeView, isLive } from './view.js';
import { now } from './clock.js';

const SWEEP_GRACE = 3000; // how long after its end the server may take to say that a challenge expired
const ORDER = { pending: 0, confirming: 1 };
const STATES = {
  live: '',
  reconnecting: 'Reconnecting…',
  offline: 'You are offline',
};

const at = (id) => document.getElementById(id);
const views = new Map(); // challenge id -> ChallengeView
let token = '';
let api = null;
let leave = new AbortController(); // ends everything that belongs to the current session
const lastAsked = new Map(); // challenge id -> when its overdue end was asked for
const panel = new PushPanel();

async function start() {
  if (firstToken) return signIn(firstToken, true);
  const stored = await storedToken();
  return stored ? signIn(stored, false) : showSignedOut('');
}

// Without storage (some private windows) the session lasts as long as the page.
const storedToken = () => loadToken().catch(() => undefined);

function signIn(newToken, isNew) {
  reset();
  token = newToken;
  if (isNew) saveToken(token).catch(() => {});
  api = new Api(token);
  at('signed-out').hidden = true;
  at('signed-in').hidden = false;
  at('loading').hidden = false;
  panel.start(api);
  refresh('all');
  follow(api, { onEvent, onState, signal: leave.signal }).catch(failed);
}

function reset() {
  leave.abort();
  leave = new AbortController();
  api = null;
  for (const view of views.values()) view.hideSecret();
  views.clear();
  lastAsked.clear();
  at('queue').replaceChildren();
  at('recent').replaceChildren();
  notice('');
}

function showSignedOut(reason) {
  reset();
  token = '';
  document.title = 'Card approvals';
  onState('live');
  at('signed-in').hidden = true;
  at('signed-out').hidden = false;
  at('signed-out-reason').textContent = reason;
  at('signed-out-reason').hidden = reason === '';
}

async function signOut() {
  // A shared device must not go on receiving pushes; but being offline must
  // not keep anybody from signing out.
  await panel.stop().catch(() => {});
  await clearToken().catch(() => {});
  showSignedOut('');
}

// failed ends the session when its token is refused, unless another tab has
// signed in again meanwhile.
async function failed(error) {
  if (error.status !== 401) return;
  const refused = token;
  const stored = await storedToken();
  if (refused !== token) return;
  if (stored && stored !== refused) {
    signIn(stored, false);
    return;
  }
  await clearToken().catch(() => {});
  showSignedOut('Your session has ended. Please sign in again.');
}

function onState(state) {
  at('connection').textContent = STATES[state];
  at('connection').hidden = state === 'live';
  // While no stream stands, each new try also asks once.
  if (state === 'reconnecting') refresh('pending');
}

function onEvent(name, data) {
  if (name === 'challenge') take(data);
  if (name === 'snapshot') {
    takePending(Array.isArray(data) ? data : data.data);
    refresh('all');
  }
}

async function refresh(status) {
  const asked = api;
  try {
    const { data } = await asked.challenges(status);
    if (asked !== api) return;
    if (status === 'pending') takePending(data);
    else data.forEach(take);
    at('loading').hidden = true;
    arrange();
  } catch (error) {
    if (asked === api) failed(error);
  }
}

// takePending takes in everything that is pending now; what is on the page as
// pending but not in it has ended meanwhile, so its end is asked for.
function takePending(pending) {
  const ids = new Set(pending.map(({ id }) => id));
  for (const [id, view] of views) {
    if (isLive(view.challenge) && !ids.has(id)) ask(id);
  }
  pending.forEach(take);
  at('loading').hidden = true;
  arrange();
}

async function ask(id) {
  const asked = api;
  try {
    const challenge = await asked.challenge(id);
    if (asked === api) take(challenge);
  } catch (error) {
    if (asked !== api) return;
    if (error.code === 'not_found') forget(id);
    else failed(error);
  }
}

function forget(id) {
  views.get(id)?.article.remove();
  views.delete(id);
  arrange();
  if (wanted() === id) notice('The request you opened is no longer here.');
}

// take shows a challenge, new or changed. Answers may overtake each other, and
// a challenge never goes back, so an earlier status than the shown one is old.
function take(challenge) {
  const view = views.get(challenge.id);
  if (!view) add(challenge);
  else if (order(challenge) >= order(view.challenge)) view.update(challenge);
  arrange();
}

const order = ({ status }) => ORDER[status] ?? 2;

function add(challenge) {
  const view = new ChallengeView(challenge, act);
  if (isLive(challenge)) {
    const answered = [...views.values()].every((other) => !isLive(other.challenge));
    if (answered) putAway();
    // At the end: nothing may move under a finger that is about to approve.
    at('queue').append(view.article);
  }
  views.set(challenge.id, view);
  if (!isLive(challenge)) putInRecent(view);
  if (wanted() === challenge.id) point(view);
}

// putAway moves what has ended to the recent ones. It runs only when nothing
// else can be pressed or nobody looks, because the page moves by it.
function putAway() {
  for (const view of views.values()) {
    if (!isLive(view.challenge) && view.article.parentElement === at('queue')) putInRecent(view);
  }
  arrange();
}

function putInRecent(view) {
  const created = Date.parse(view.challenge.created_at);
  const next = [...at('recent').children].find(({ id }) => Date.parse(views.get(id).challenge.created_at) < created);
  at('recent').insertBefore(view.article, next ?? null);
}

function arrange() {
  const waiting = [...views.values()].filter(({ challenge }) => challenge.status === 'pending').length;
  document.title = waiting > 0 ? `(${waiting}) Card approvals` : 'Card approvals';
  at('nothing').hidden = !at('loading').hidden || at('queue').childElementCount > 0;
  at('recent-section').hidden = at('recent').childElementCount === 0;
}

function notice(text) {
  at('notice').textContent = text;
  at('notice').hidden = text === '';
}

async function act(action, view) {
  const { id } = view.challenge;
  const asked = api;
  const deciding = action === 'approve' || action === 'reject' || action === 'not_me';
  view.error = '';
  if (deciding) view.sending();
  else view.busy = true;
  try {
    const answer = await asked.act(id, ...calls[action](view));
    if (asked !== api) return;
    view.busy = false;
    showAnswer(action, answer, view);
  } catch (error) {
    if (asked !== api) return;
    view.busy = false;
    view.error = explain(error);
    if (error.status === 401) return void failed(error);
    // Whatever was refused or lost: what the server has now is the truth.
    await ask(id);
    if (!isLive(view.challenge) && error.code !== 'already_decided') view.error = '';
  }
}

// calls is what each button posts: the API's action and its body.
const calls = {
  approve: (view) => ['approve', { shown: view.shown }],
  reject: () => ['reject', { reason: 'cancelled' }],
  not_me: () => ['reject', { reason: 'not_me' }],
  done: () => ['done'],
  show_code: () => ['reveal'],
  open_link: () => ['reveal'],
};

function showAnswer(action, answer, view) {
  if (action === 'open_link') openLink(answer.action_url, view);
  else if (action !== 'show_code') take(answer);
  else if (!document.hidden) view.showCode(answer.otp);
}

function openLink(address, view) {
  const url = new URL(address);
  if (url.protocol !== 'https:' && url.protocol !== 'http:') throw new TypeError('not a web link');
  view.showLink(url);
  window.open(url, '_blank', 'noopener,noreferrer');
}

// wanted is the challenge that the address points to, if any.
function wanted() {
  const match = /^#\/challenges\/([\w-]+)$/.exec(location.hash);
  return match ? match[1] : '';
}

function point(view) {
  view.article.scrollIntoView({ block: 'center' });
  view.article.focus({ preventScroll: true });
}

function followAddress() {
  const newToken = takeToken();
  if (newToken) return signIn(newToken, true);
  const id = wanted();
  if (!id || !api) return undefined;
  notice('');
  return views.has(id) ? point(views.get(id)) : ask(id);
}

function tick() {
  for (const view of views.values()) {
    view.tick();
    const { id, status, expires_at: expires } = view.challenge;
    const due = Math.max(Date.parse(expires), lastAsked.get(id) ?? 0) + SWEEP_GRACE;
    if (status === 'pending' && now() > due) {
      lastAsked.set(id, now());
      ask(id);
    }
  }
}

addEventListener('hashchange', followAddress);
navigator.serviceWorker?.addEventListener('message', ({ data }) => {
  if (data.type === 'push') panel.activated(data.on);
  if (data.type === 'navigate' && data.hash === location.hash) followAddress();
  else if (data.type === 'navigate') location.hash = data.hash;
});
document.addEventListener('visibilitychange', () => {
  if (!document.hidden) return;
  for (const view of views.values()) view.hideSecret();
  putAway();
});
at('sign-out').addEventListener('click', signOut);
setInterval(tick, 1000);

await start();
if (wanted() && api) followAddress();
