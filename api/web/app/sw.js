'use strict';
const VERSION = '{{version}}';
const FILES = ['{{files}}'];

// The service worker: keeps the app for times without a network, shows pushes,
// and carries out what is pressed on them. The server fills in the two lines
// above. It is a classic script, because not every browser with push runs
// module workers; so it repeats the names of store/session.js.
//
// A notification that is closed decides nothing: there is no listener for it.

const SCOPE = self.registration.scope;
const API = new URL('../v1/', SCOPE);
const CACHES = 'approvals-';
const CACHE = CACHES + VERSION;
const SHELL = new Set(FILES.map((file) => new URL(file, SCOPE).href));

const NETWORK_PATIENCE = 3000; // then the kept file is shown
const CALL_TIMEOUT = 8000;
const ANSWER_PATIENCE = 20_000; // well within the minute after which browsers end a busy worker

// The last resort, where lang/ cannot be read. Keys as there.
const ENGLISH = {
  'challenge.approve': 'Approve',
  'challenge.reject': 'Reject',
  'outcome.sending': 'Sending to your bank…',
  'outcome.approved': 'Approved',
  'outcome.rejected': 'Rejected',
  'outcome.completed': 'Done',
  'outcome.expired': 'Expired',
  'outcome.expired_text': 'Nothing was approved. If you still want it, start again.',
  'outcome.cancelled': 'Withdrawn',
  'outcome.refused': 'Failed: your bank did not accept the answer',
  'outcome.unreachable': 'Failed: your bank could not be reached in time',
  'outcome.unknown': 'Not certain whether it worked',
  'outcome.unknown_text': 'Your bank may or may not have received your answer. Ask your bank before you pay again.',
  'sw.answered': 'Already answered',
  'sw.answered_text': 'Open the app to see the answer.',
  'sw.sent': 'Your answer was sent',
  'sw.sent_text': 'Open the app to see how it ended.',
  'sw.no_answer': 'No connection',
  'sw.no_answer_text': 'Your answer may not have arrived. Try again, or open the app to check.',
  'sw.open': 'Please check in the app',
  'sw.open_text': 'It shows whether this still needs your answer.',
  'sw.on': 'Notifications are on',
  'sw.not_on': 'Notifications are not on yet',
  'sw.not_on_text': 'Open the app and turn them on again.',
  'sw.new': 'There is something new',
  'sw.new_text': 'Open the app to see it.',
};

// A new version takes over at once: pages that are open have loaded their
// modules already, and every other file is asked of the network first.
self.addEventListener('install', (event) => {
  self.skipWaiting();
  event.waitUntil(keepShell());
});
self.addEventListener('activate', (event) => event.waitUntil(takeOver()));

self.addEventListener('fetch', (event) => {
  const file = shellFile(event.request);
  if (file) event.respondWith(serve(event, file));
});

self.addEventListener('push', (event) => {
  const message = read(event);
  event.waitUntil(message.activation ? activate(message) : show(message));
});

self.addEventListener('notificationclick', (event) => {
  const { notification, action } = event;
  notification.close();
  const { challenge, navigate } = notification.data ?? {};
  // A worker cannot ask for a passkey.
  const answers = action === 'reject' || (action === 'approve' && !challenge.step_up);
  event.waitUntil(answers ? decide(notification, action) : open(navigate));
});

self.addEventListener('message', (event) => {
  if (event.data?.type === 'ended') event.waitUntil(clear(asks(event.data.id)));
});

self.addEventListener('pushsubscriptionchange', (event) => event.waitUntil(resubscribe(event)));

// Nothing but FILES is ever kept, so no answer of the API and no token. Of the
// languages it is the one in use, and each other once it is.
async function keepShell() {
  const lang = languageFile(await stored('lang') ?? navigator.language);
  const files = [...SHELL].filter((file) => !isLanguage(file) || file === lang);
  try {
    const cache = await caches.open(CACHE);
    await cache.addAll(files.map((file) => new Request(file, { cache: 'no-cache' })));
  } catch (error) {
    // On a full disk the app still needs this worker for its pushes. Anything
    // else fails the installation, which the next start of the app tries again.
    if (error.name !== 'QuotaExceededError') throw error;
  }
}

async function takeOver() {
  const names = await caches.keys();
  const old = names.filter((name) => name.startsWith(CACHES) && name !== CACHE);
  await Promise.all(old.map((name) => caches.delete(name)));
  await self.clients.claim();
}

// shellFile names the kept file that can stand in for an answer of the network.
function shellFile({ method, mode, url }) {
  if (method !== 'GET') return undefined;
  const { origin, pathname } = new URL(url);
  const file = origin + pathname;
  if (SHELL.has(file)) return file;
  return mode === 'navigate' ? SCOPE : undefined;
}

const languageFile = (lang) => new URL(`lang/${lang.slice(0, 2)}.json`, SCOPE).href;
const isLanguage = (file) => file.startsWith(new URL('lang/', SCOPE).href);

async function keep(file, response) {
  const cache = await caches.open(CACHE);
  await cache.put(file, response);
}

// What a page without a network consists of must be of one version, and must
// not wait anew for each file: its files come from the cache at once.
const offlinePages = new Set();

async function serve(event, file) {
  const { request, clientId, resultingClientId } = event;
  const kept = () => caches.match(file, { cacheName: CACHE, ignoreVary: true });
  if (offlinePages.has(clientId)) return await kept() ?? fetch(request);
  const network = fetch(request);
  const response = await Promise.race([network, pause(NETWORK_PATIENCE)]).catch(() => undefined);
  if (response?.ok && isLanguage(file)) event.waitUntil(keep(file, response.clone()));
  if (response && response.status < 500) return response;
  const standIn = await kept();
  if (!standIn) return network;
  if (request.mode === 'navigate') offlinePages.add(resultingClientId);
  return standIn;
}

// read returns the push's JSON. Whatever comes, something must be shown, or the
// browser takes the subscription away. Safari hands over a declarative push
// ("web_push": 8030) as the notification it proposes, which carries the rest as
// its data; what is shown in its place must say itself where it leads, and the
// tag does not replace an older one there.
function read(event) {
  try {
    const message = event.data?.json();
    if (message?.notification) return { ...message, apple: message.web_push === 8030 };
  } catch {
    // Not JSON: the fallback below.
  }
  const { title, body, tag, lang, dir, silent, navigate, data } = event.notification ?? {};
  return {
    notification: { title, body, tag, lang, dir, silent, navigate },
    challenge: data?.challenge,
    activation: data?.activation,
    apple: Boolean(event.notification),
  };
}

async function show({ notification, challenge, apple }) {
  const words = await wording(notification.lang);
  const pending = challenge?.status === 'pending';
  if (apple && notification.tag) await clear(tagged(notification.tag));
  await notify(notification.title ?? words['sw.new'], {
    body: notification.body ?? words['sw.new_text'],
    tag: notification.tag,
    lang: notification.lang,
    dir: notification.dir,
    silent: notification.silent,
    requireInteraction: pending,
    navigate: apple ? notification.navigate : undefined,
    data: { navigate: notification.navigate, challenge },
    actions: pending ? actions(challenge, words) : [],
  });
  await badge();
}

function actions({ method, action_token: actionToken, step_up: stepUp }, words) {
  if (method !== 'approve' || !actionToken) return [];
  const reject = { action: 'reject', title: words['challenge.reject'] };
  return stepUp === 'blocked' ? [reject] : [{ action: 'approve', title: words['challenge.approve'] }, reject];
}

const showing = new Set(); // what is on its way to the screen

// notify leaves out what was not given: a member that is undefined would be
// taken as a value by some browsers.
async function notify(title, options) {
  const given = Object.entries(options).filter(([, value]) => value !== undefined && value !== null);
  const shown = self.registration.showNotification(title, {
    icon: 'icons/icon-192.png',
    badge: 'icons/badge-96.png',
    ...Object.fromEntries(given),
  });
  showing.add(shown);
  await shown.finally(() => showing.delete(shown));
}

// clear closes notifications. It waits for what is on its way to the screen,
// whichever it is: to Chromium's getNotifications such a one looks closed already,
// so that it forgets it, and then its buttons do nothing. For that reason no page
// calls getNotifications: this worker alone shows and asks.
async function clear(which) {
  while (showing.size > 0) await Promise.allSettled(showing);
  for (const notification of await self.registration.getNotifications()) {
    if (which(notification)) notification.close();
  }
}

const tagged = (wanted) => ({ tag }) => tag === wanted;

// asks tells a question about a challenge from what was said about its answer. The
// tag does not: challenges that ask the same share a notification.
const asks = (id) => ({ data }) => data?.challenge?.id === id && data.challenge.status === 'pending';

// activate proves to the API that this browser receives what is pushed.
async function activate({ notification, activation, apple }) {
  const words = await wording(notification.lang);
  const path = `push/subscriptions/${encodeURIComponent(activation.id)}/activate`;
  const token = await stored('token');
  let response;
  for (let tries = 0; tries < 4 && !answered(response); tries += 1) {
    if (tries > 0) await backoff(tries);
    response = await call('POST', path, token, { code: activation.code });
  }
  const on = response?.status === 204;
  await tell({ type: 'push', on });
  await notify(words[on ? 'sw.on' : 'sw.not_on'], {
    body: on ? notification.body : words['sw.not_on_text'],
    tag: notification.tag || 'activation',
    navigate: apple ? notification.navigate : undefined,
    data: { navigate: notification.navigate },
  });
}

// decide sends the answer and shows how it ended, in place of the question.
async function decide({ data, body, tag, lang }, action) {
  const { navigate, challenge } = data;
  const words = await wording(lang);
  const say = (key, more) => notify(words[key], {
    body: [body, words[`${key}_text`]].filter(Boolean).join('\n'),
    tag: tag || challenge.id,
    lang,
    silent: true,
    data: { navigate },
    ...more,
  });
  await Promise.all([say('outcome.sending'), tell({ type: 'decided', id: challenge.id })]);
  const outcome = await send(challenge, action);
  if (outcome === 'open') {
    await clear(tagged(tag || challenge.id));
    await open(navigate).catch(() => say('sw.open'));
  } else if (outcome === 'sw.no_answer') {
    await say(outcome, { data, actions: actions(challenge, words) });
  } else {
    await say(outcome);
  }
  await Promise.all([tell({ type: 'changed', id: challenge.id }), badge()]);
}

// send returns how it ended: the key of what to say, or "open" where only the
// app can settle it: the API asks for more than a press, as that what was shown
// be echoed, or for a new session.
//
// The same decision again is no error and waits up to 3 s for the issuer. So it
// is simply sent again while there is no answer, and while the issuer has given
// none. The push's own token is void once the challenge has ended: refused after
// a try that may have been taken, it says nothing about how it ended.
async function send({ id, action_token: actionToken }, action) {
  const tokens = [actionToken, await stored('token')].filter(Boolean);
  const deadline = Date.now() + ANSWER_PATIENCE;
  let soFar = 'open';
  for (let failures = 0; Date.now() < deadline;) {
    const response = await call('POST', `challenges/${encodeURIComponent(id)}/${action}`, tokens[0], {});
    const answer = await response?.json().catch(() => undefined);
    if (response?.ok && answer?.status === 'confirming') {
      soFar = 'sw.sent';
    } else if (response?.ok && answer) {
      return ended(answer);
    } else if (response?.status === 401) {
      tokens.shift();
      if (tokens.length === 0) return soFar === 'open' ? 'open' : 'sw.sent';
    } else if (answered(response) && !response.ok) {
      return refused(answer);
    } else {
      if (soFar === 'open') soFar = 'sw.no_answer';
      failures += 1;
      await backoff(failures);
    }
  }
  return soFar;
}

const FAILURES = { issuer_refused: 'outcome.refused', issuer_unreachable: 'outcome.unreachable' };

function ended({ status, failure }) {
  return status === 'failed' ? FAILURES[failure?.code] ?? 'outcome.unknown' : `outcome.${status}`;
}

function refused(problem) {
  if (problem?.code === 'already_decided') return 'sw.answered';
  return ['expired', 'cancelled'].includes(problem?.code) ? `outcome.${problem.code}` : 'open';
}

// badge shows how many requests are waiting, where there are badges and a
// session to ask with.
async function badge() {
  const token = navigator.setAppBadge && await stored('token');
  const response = token && await call('GET', 'challenges?status=pending&limit=100', token);
  if (!response?.ok) return;
  const { data = [] } = await response.json().catch(() => ({}));
  const waiting = data.filter(({ status }) => status === 'pending').length;
  await (waiting > 0 ? navigator.setAppBadge(waiting) : navigator.clearAppBadge()).catch(() => {});
}

// resubscribe replaces a subscription that the browser has given up. Without a
// session the pages are told; they check it at every start anyway.
async function resubscribe({ oldSubscription, newSubscription }) {
  const { pushManager } = self.registration;
  try {
    const subscription = newSubscription ?? await pushManager.subscribe({
      userVisibleOnly: true,
      applicationServerKey: oldSubscription?.options.applicationServerKey ?? await publicKey(),
    });
    const [token, lang] = await Promise.all([stored('token'), stored('lang')]);
    const response = token && await call('POST', 'push/subscriptions', token, { ...subscription.toJSON(), lang });
    if (response?.ok) return;
  } catch {
    // Nothing to subscribe with, or nobody to subscribe at.
  }
  await tell({ type: 'resubscribe' });
}

async function publicKey() {
  const response = await call('GET', 'push/key');
  const { public_key: key } = await response.json();
  return key;
}

// open brings the app to the front, at what the notification is about.
async function open(navigate) {
  const url = new URL(navigate ?? SCOPE, SCOPE);
  const [page] = url.href.startsWith(SCOPE) ? await pages() : [];
  if (!page) return self.clients.openWindow(url);
  page.postMessage({ type: 'navigate', hash: url.hash });
  return page.focus();
}

async function pages() {
  const windows = await self.clients.matchAll({ type: 'window', includeUncontrolled: true });
  return windows.filter(({ url }) => url.startsWith(SCOPE));
}

async function tell(message) {
  for (const page of await pages()) page.postMessage(message);
}

// call returns the response, or undefined when there was none in time.
async function call(method, path, token, body) {
  const headers = {};
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body) headers['Content-Type'] = 'application/json';
  try {
    return await fetch(new URL(path, API), {
      method,
      headers,
      body: body && JSON.stringify(body),
      signal: AbortSignal.timeout(CALL_TIMEOUT),
      cache: 'no-store',
      credentials: 'omit',
      redirect: 'error',
    });
  } catch {
    return undefined;
  }
}

// wording is what the worker says, in the language chosen in the app, else in
// that of the push.
async function wording(pushed = 'en') {
  const lang = await stored('lang') ?? pushed;
  if (lang.startsWith('en')) return ENGLISH;
  try {
    const file = languageFile(lang);
    const response = await caches.match(file, { cacheName: CACHE, ignoreVary: true })
      ?? await fetch(file, { signal: AbortSignal.timeout(NETWORK_PATIENCE) });
    return { ...ENGLISH, ...await response.json() };
  } catch {
    return ENGLISH;
  }
}

// stored reads what the page has left: "token" or "lang". Undefined where there
// is none, or no storage at all.
function stored(key) {
  return new Promise((resolve) => {
    const request = indexedDB.open('approvals', 1);
    request.onupgradeneeded = () => request.result.createObjectStore('session');
    request.onerror = () => resolve(undefined);
    request.onsuccess = () => {
      const database = request.result;
      const found = database.transaction('session').objectStore('session').get(key);
      found.onsuccess = () => resolve(found.result);
      found.onerror = () => resolve(undefined);
      database.close();
    };
  });
}

// answered tells a verdict of the API from having to ask again.
const answered = (response) => Boolean(response) && response.status < 500 && response.status !== 429;

const backoff = (failures) => pause(Math.min(500 * 2 ** failures, 8000) * (0.5 + Math.random() / 2));
const pause = (milliseconds) => new Promise((resolve) => { setTimeout(resolve, milliseconds); });
