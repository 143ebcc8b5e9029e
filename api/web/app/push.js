// Web Push as the page sees it: permission, worker, subscription. The worker
// (sw.js) does the rest, also the proof that the subscription is ours.

const SCOPE = new URL('./', import.meta.url);
const SUBSCRIBE_TIMEOUT = 15_000; // without a network, some browsers never answer at all

// PushError carries a message that can be shown as it is.
export class PushError extends Error {}

// pushState tells what can be said without asking anybody: "unsupported",
// "blocked" (by the browser's settings) or "possible".
export function pushState() {
  if (!('serviceWorker' in navigator && 'PushManager' in window && 'Notification' in window)) return 'unsupported';
  return Notification.permission === 'denied' ? 'blocked' : 'possible';
}

// resume tells the API about this browser's subscription, if it has one, and
// returns the API's record of it ({id, status, …}), else null. Run at every
// start: a browser may have dropped its subscription meanwhile.
export async function resume(api) {
  if (pushState() !== 'possible' || Notification.permission !== 'granted') return null;
  const registration = await navigator.serviceWorker.getRegistration(SCOPE);
  const subscription = await registration?.pushManager.getSubscription();
  return subscription ? api.subscribe(subscription.toJSON()) : null;
}

// turnOn asks for permission (so it must be called from a click), subscribes,
// and returns the API's record. It throws a PushError or an ApiError.
export async function turnOn(api) {
  if (await Notification.requestPermission() !== 'granted') {
    throw new PushError('Notifications were not allowed. You can allow them in the settings of your browser.');
  }
  const { public_key: publicKey } = await api.pushKey();
  const subscription = await subscribe(publicKey);
  return api.subscribe(subscription.toJSON());
}

// turnOff drops this browser's subscription, then, if id is known, the API's
// record of it: without a network, the first alone still ends the pushes.
export async function turnOff(api, id) {
  const registration = await navigator.serviceWorker?.getRegistration(SCOPE);
  const subscription = await registration?.pushManager?.getSubscription();
  await subscription?.unsubscribe();
  if (id) await api.unsubscribe(id);
}

async function subscribe(publicKey) {
  const key = Uint8Array.from(atob(publicKey.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0));
  const late = new PushError('Your browser’s push service did not answer. Check your connection and try again.');
  try {
    return await within(SUBSCRIBE_TIMEOUT, late, async () => {
      await navigator.serviceWorker.register(new URL('sw.js', SCOPE), { scope: SCOPE.pathname, updateViaCache: 'none' });
      const { pushManager } = await navigator.serviceWorker.ready;
      const old = await pushManager.getSubscription();
      if (old && !sameKey(old.options.applicationServerKey, key)) await old.unsubscribe();
      return pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: key });
    });
  } catch (error) {
    if (error instanceof PushError) throw error;
    throw new PushError('Your browser could not turn on notifications. Check your connection and try again.');
  }
}

// A subscription made for another server key must go first: subscribing with
// the new one would be refused.
function sameKey(buffer, key) {
  const other = new Uint8Array(buffer ?? []);
  return other.length === key.length && other.every((byte, at) => byte === key[at]);
}

function within(milliseconds, error, work) {
  let timer;
  const timeout = new Promise((_, reject) => {
    timer = setTimeout(reject, milliseconds, error);
  });
  return Promise.race([work(), timeout]).finally(() => clearTimeout(timer));
}
