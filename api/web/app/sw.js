// The service worker: shows pushes and carries out what is pressed on them.
// It is a classic script, because not every browser with push runs module
// workers; so it repeats the names of store/session.js.
//
// A notification that is closed decides nothing: there is no listener for it.
'use strict';

const SCOPE = self.registration.scope;
const API = new URL('../v1/', SCOPE);

const OUTCOMES = {
  confirming: 'Sending to your bank…',
  approved: 'Approved',
  rejected: 'Rejected',
  completed: 'Done',
  expired: 'Expired. Nothing was approved.',
  cancelled: 'Withdrawn',
};

self.addEventListener('install', () => self.skipWaiting());
self.addEventListener('activate', (event) => event.waitUntil(self.clients.claim()));

self.addEventListener('push', (event) => {
  const message = read(event);
  event.waitUntil(message.activation ? activate(message) : show(message));
});

self.addEventListener('notificationclick', (event) => {
  const { notification, action } = event;
  notification.close();
  const answers = action === 'approve' || action === 'reject';
  event.waitUntil(answers ? decide(notification, action) : open(notification.data?.navigate));
});

// read returns the push's JSON. A declarative push ("web_push": 8030) has the
// same members; should the browser hand over only its proposed notification,
// that is shown. Whatever comes, something must be shown, or the browser
// takes the subscription away.
function read(event) {
  try {
    const message = event.data?.json();
    if (message?.notification) return message;
  } catch {
    // Not JSON: the fallback below.
  }
  const { title, body, tag, navigate } = event.notification ?? {};
  return {
    notification: {
      title: title ?? 'Card approvals', body: body ?? 'Open the app to see what is new.', tag, navigate,
    },
  };
}

function show({ notification, challenge }) {
  const pending = challenge?.status === 'pending';
  const answerable = pending && challenge.method === 'approve' && challenge.action_token;
  return notify(notification.title, {
    body: notification.body,
    tag: notification.tag,
    lang: notification.lang,
    dir: notification.dir,
    silent: notification.silent,
    requireInteraction: pending,
    data: { navigate: notification.navigate, challenge },
    actions: answerable ? [{ action: 'approve', title: 'Approve' }, { action: 'reject', title: 'Reject' }] : [],
  });
}

// notify leaves out what was not given: a member that is undefined would be
// taken as a value by some browsers.
function notify(title, options) {
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  return self.registration.showNotification(title, Object.fromEntries(given));
}

// activate proves to the API that this browser receives what is pushed.
async function activate({ notification, activation }) {
  const path = `push/subscriptions/${encodeURIComponent(activation.id)}/activate`;
  const token = await loadToken().catch(() => undefined);
  const response = await call('POST', path, token, { code: activation.code });
  const on = response?.status === 204;
  const pages = await self.clients.matchAll({ type: 'window', includeUncontrolled: true });
  for (const page of pages) page.postMessage({ type: 'push', on });
  return notify(on ? 'Notifications are on' : 'Notifications are not on yet', {
    body: on ? notification.body : 'Open the app and turn them on again.',
    tag: notification.tag ?? 'activation',
    data: { navigate: notification.navigate },
  });
}

// decide sends the answer and shows how it ended, in place of the question.
async function decide(notification, action) {
  const { navigate, challenge } = notification.data;
  const say = (title, body) => notify(title, {
    body, tag: notification.tag || challenge.id, silent: true, data: { navigate },
  });
  await say(OUTCOMES.confirming, notification.body);
  const path = `challenges/${encodeURIComponent(challenge.id)}`;
  const response = await call('POST', `${path}/${action}`, challenge.action_token, {});
  if (!response?.ok) return say(...await refusal(response));
  let answer = await response.json().catch(() => ({ status: 'confirming' }));
  for (let tries = 0; answer.status === 'confirming' && tries < 8; tries += 1) {
    await new Promise((resolve) => setTimeout(resolve, 2000));
    answer = await ask(path, challenge.action_token) ?? answer;
  }
  if (answer.status === 'confirming') return say(OUTCOMES.confirming, 'Open the app to see how it ended.');
  if (answer.status === 'failed') return say(failure(answer), 'Open the app to see what happened.');
  return say(OUTCOMES[answer.status] ?? 'Ended', notification.body);
}

// ask reads the challenge. The action token ends with it, so the session's
// own token is tried first.
async function ask(path, actionToken) {
  const token = await loadToken().catch(() => undefined);
  let response = token && await call('GET', path, token);
  if (!response?.ok) response = await call('GET', path, actionToken);
  return response?.ok ? response.json().catch(() => undefined) : undefined;
}

const failure = (answer) => (answer.failure?.code === 'unknown'
  ? 'Not certain that this reached your bank'
  : 'Failed. Your bank did not take the answer.');

async function refusal(response) {
  const { code } = await response?.json().catch(() => ({})) ?? {};
  if (code === 'already_decided') return ['Already answered', 'Open the app to see the answer.'];
  if (code === 'expired') return [OUTCOMES.expired, ''];
  if (!response) return ['No connection', 'Your answer may not have arrived. Open the app to check.'];
  return ['Not answered yet', 'Open the app to answer.'];
}

// open brings the app to the front, at what the notification is about.
async function open(navigate) {
  const url = new URL(navigate ?? SCOPE, SCOPE);
  const pages = await self.clients.matchAll({ type: 'window', includeUncontrolled: true });
  const page = pages.find((candidate) => candidate.url.startsWith(SCOPE));
  if (!page || !url.href.startsWith(SCOPE)) return self.clients.openWindow(url);
  page.postMessage({ type: 'navigate', hash: url.hash });
  return page.focus();
}

// call returns the response, or undefined when there was none.
async function call(method, path, token, body) {
  const headers = { Authorization: `Bearer ${token}` };
  if (body) headers['Content-Type'] = 'application/json';
  try {
    return await fetch(new URL(path, API), {
      method, headers, body: body && JSON.stringify(body), cache: 'no-store', credentials: 'omit', redirect: 'error',
    });
  } catch {
    return undefined;
  }
}

function loadToken() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open('approvals', 1);
    request.onupgradeneeded = () => request.result.createObjectStore('session');
    request.onerror = () => reject(request.error);
    request.onsuccess = () => {
      const database = request.result;
      const read = database.transaction('session').objectStore('session').get('token');
      read.onsuccess = () => resolve(read.result);
      read.onerror = () => reject(read.error);
      database.close();
    };
  });
}
