// The page: session, connection, and what the buttons do.

import { firstToken, takeToken } from './fragment.js';
import { config } from './config.js';
import { at, element, say } from './element.js';
import { formatTime } from './format.js';
import { language, t, translate } from './lang.js';
import { explain } from './messages.js';
import { Queue } from './queue.js';
import { Relay } from './relay.js';
import { load, remove, save } from './store/session.js';
import { isLive } from './view.js';

const RECENT = 20;

let token = '';
let relay = null;
let refused = ''; // the last token that was not accepted
let leave = new AbortController(); // ends everything that belongs to the current session
let line = 'live';
let upToDateAt = 0; // when the page last knew all that waits; 0: never in this session
const queue = new Queue({ act, overdue: ask, ended, change: arrange });
const tabs = new BroadcastChannel('approvals');

// What is not needed to see and answer what waits is loaded once that is shown
// and nothing else is to be done.
const idle = () => new Promise((done) => {
  if (window.requestIdleCallback) requestIdleCallback(done, { timeout: 500 });
  else setTimeout(done, 100);
});
const panelModule = () => import('./panel.js');
const reportModule = () => import('./report.js');
const signInModule = () => import('./signin.js');

async function start() {
  translate(document);
  say(at('name'), config.name);
  document.title = config.name;
  for (const link of document.querySelectorAll('.help')) {
    link.hidden = !config.support_url;
    link.href = config.support_url;
  }
  if (firstToken) await signIn(firstToken, true);
  else await resume();
  const { onMessage, ready } = await signInModule();
  onMessage((sent) => sent !== token && sent !== refused && signIn(sent, true));
  ready();
  reportModule();
  at('logo').append(element('img', { src: new URL(config.logo, import.meta.url).href, width: 32, height: 32, alt: '' }));
  save('lang', language).catch(() => {});
}

// Without storage (some private windows) the session lasts as long as the page.
const stored = () => load('token').catch(() => undefined);

async function resume() {
  const kept = await stored();
  if (kept) await signIn(kept, false);
  else showSignedOut('');
}

async function signIn(newToken, isNew) {
  reset();
  token = newToken;
  relay = new Relay({ token });
  const mine = relay;
  queue.clear(() => mine.now());
  show('starting');
  at('aside').hidden = true;
  if (isNew) save('token', token).catch(() => {});
  await refresh();
  if (mine !== relay) return;
  show('signed-in');
  followAddress();
  relay.watch({ onSnapshot, onChallenge: (challenge) => queue.take(challenge, true), onState, signal: leave.signal })
    .catch(failed);
  await idle();
  const { panel } = await panelModule();
  await panel.prepare();
  if (mine !== relay) return;
  at('aside').hidden = false;
  panel.start(relay);
}

function reset() {
  leave.abort();
  leave = new AbortController();
  relay = null;
  upToDateAt = 0;
  closeReport();
  queue.clear(Date.now);
  onState('live');
  notice('');
}

const show = (page) => ['starting', 'signed-out', 'signed-in'].forEach((id) => { at(id).hidden = id !== page; });

async function closeReport(id) {
  if (at('report').open) (await reportModule()).dropReport(id);
}

async function showSignedOut(reason) {
  reset();
  token = '';
  at('sign-in').hidden = !config.login_url;
  at('signed-out-reason').textContent = reason;
  at('signed-out-reason').hidden = reason === '';
  at('sign-in').href = await signInModule().then(({ loginAddress }) => loginAddress(), () => config.login_url);
  if (token === '') show('signed-out'); // nobody has signed in meanwhile
}

async function signOut() {
  // A shared device must not go on receiving pushes; but being offline must
  // not keep anybody from signing out.
  const { panel } = await panelModule();
  await panel.stop().catch(() => {});
  await Promise.all([remove('token'), remove('push')]).catch(() => {});
  tabs.postMessage('signed-out');
  showSignedOut('');
}

// failed ends the session when its token is refused, unless another tab has
// signed in again meanwhile.
async function failed(error) {
  if (error.status !== 401) return;
  const tried = token;
  const kept = await stored();
  if (tried !== token) return;
  if (kept && kept !== tried) return void signIn(kept, false);
  refused = tried;
  await remove('token').catch(() => {});
  await showSignedOut(t('page.session_ended'));
  const { ready, leaveToSignIn } = await signInModule();
  if (!ready()) leaveToSignIn();
}

function onState(state) {
  if (line === 'live' && upToDateAt) upToDateAt = relay.now();
  line = state;
  at('connection').dataset.state = state;
  queue.offline = state === 'offline';
  say(at('connection'), state === 'live' ? '' : t(`page.${state}`));
  say(at('as-of'), state === 'live' || !upToDateAt ? '' : t('page.as_of', { time: formatTime(upToDateAt) }));
  showIdle();
  // While no stream stands, each new try also asks once.
  if (state === 'reconnecting' && relay) refresh('pending');
}

function onSnapshot(pending) {
  upToDateAt = relay.now();
  queue.takePending(pending, true);
  refresh();
}

async function refresh(status = 'all') {
  const asked = relay;
  try {
    const { data } = await asked.list({ status, limit: RECENT });
    if (asked !== relay) return;
    const isFirst = upToDateAt === 0;
    upToDateAt = relay.now();
    queue.takePending(data.filter(isLive), !isFirst);
    for (const challenge of data) queue.take(challenge, false);
    showIdle();
  } catch (error) {
    if (asked !== relay) return;
    if (!upToDateAt && line === 'live') onState(navigator.onLine ? 'reconnecting' : 'offline');
    await failed(error);
  }
}

// ask fetches one challenge: whatever the page believes, the server knows.
async function ask(id) {
  const asked = relay;
  try {
    const challenge = await asked.get(id);
    if (asked === relay) queue.take(challenge, false);
  } catch (error) {
    if (asked !== relay) return;
    if (error.code !== 'not_found') return void failed(error);
    queue.forget(id);
    if (wanted() === id) notice(t('page.gone'));
  }
}

function arrange(waiting) {
  document.title = waiting > 0 ? `(${waiting}) ${config.name}` : config.name;
  (waiting > 0 ? navigator.setAppBadge?.(waiting) : navigator.clearAppBadge?.())?.catch(() => {});
  showIdle();
}

// showIdle says that nothing waits, but only where that is known.
function showIdle() {
  const state = upToDateAt && line !== 'offline' ? 'nothing' : line === 'offline' ? 'offline' : 'unreachable';
  at('idle').hidden = at('queue').childElementCount > 0;
  at('idle').dataset.state = state;
  say(at('idle-title'), t(`page.${state}_title`));
  say(at('idle-text'), t(`page.${state}_text`));
}

function notice(text) {
  at('notice').textContent = text;
  at('notice').hidden = text === '';
}

// ended tidies up after a challenge that needs nobody any more: this device
// gets no push about what was answered on it. What the worker says about an
// answer that was given on a notification stays. The tag does not tell which one
// it is: challenges that ask the same share a notification.
async function ended(id) {
  closeReport(id);
  const registration = await navigator.serviceWorker?.getRegistration();
  for (const notification of await registration?.getNotifications?.() ?? []) {
    const { challenge } = notification.data ?? {};
    if (challenge?.id === id && challenge.status === 'pending') notification.close();
  }
}

// calls is what each button asks of the relay.
const calls = {
  approve: ({ challenge, shown }) => relay.approve(challenge.id, shown),
  reject: ({ challenge }) => relay.reject(challenge.id, 'cancelled'),
  not_me: ({ challenge }) => relay.reject(challenge.id, 'not_me'),
  done: ({ challenge }) => relay.done(challenge.id),
  show_code: ({ challenge }) => relay.reveal(challenge.id),
  open_link: ({ challenge }) => relay.reveal(challenge.id),
};
const DECISIONS = ['approve', 'reject', 'not_me'];

async function act(action, view) {
  view.error = '';
  if (line === 'offline') {
    view.error = t('error.offline');
    return;
  }
  if (action === 'not_me' && !await (await reportModule()).confirmReport(view.challenge)) return;
  if (view.busy || view.challenge.status !== 'pending') return;
  await carryOut(action, view);
}

async function carryOut(action, view) {
  const { id } = view.challenge;
  const asked = relay;
  const deciding = DECISIONS.includes(action);
  if (deciding) queue.claim(id);
  if (deciding) view.sending();
  else view.busy = true;
  try {
    const answer = await calls[action](view);
    if (asked !== relay) return;
    view.busy = false;
    showAnswer(action, answer, view);
  } catch (error) {
    if (asked !== relay) return;
    view.busy = false;
    if (error.status === 401) return void failed(error);
    if (deciding) queue.claim(id, false);
    view.error = explain(error);
    // Whatever was refused or lost: what the server has now is the truth.
    await ask(id);
    if (!isLive(view.challenge)) view.error = '';
    if (error.code === 'already_decided') view.answeredElsewhere();
  }
}

function showAnswer(action, answer, view) {
  if (action === 'open_link') openLink(answer.action_url, view);
  else if (action !== 'show_code') queue.take(answer, false);
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

async function followAddress() {
  const newToken = takeToken();
  if (newToken) return void signIn(newToken, true);
  const id = wanted();
  if (!id || !relay) return;
  notice('');
  if (!queue.get(id)) await ask(id);
  if (queue.get(id) && wanted() === id) queue.point(id);
}

addEventListener('hashchange', followAddress);
navigator.serviceWorker?.addEventListener('message', async ({ data }) => {
  const { panel } = await panelModule();
  if (data.type === 'push') panel.activated(data.on);
  if (data.type === 'decided') queue.claim(data.id);
  if (data.type === 'changed' && relay) ask(data.id);
  if (data.type === 'resubscribe' && relay) panel.start(relay);
  if (data.type !== 'navigate') return;
  if (data.hash === location.hash) followAddress();
  else location.hash = data.hash;
});
addEventListener('offline', () => relay && onState('offline'));
document.addEventListener('visibilitychange', () => document.hidden && queue.leave());
tabs.addEventListener('message', () => token && showSignedOut(''));
at('sign-out').addEventListener('click', signOut);
setInterval(() => queue.tick(), 1000);

await start();
