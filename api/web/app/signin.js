// Where a token comes from besides the address, and where to go without one.

import { config } from './config.js';
import { usable } from './fragment.js';

const ONCE = 30_000; // a login page that sends back refused tokens must not make a loop

// onMessage calls take(token) for each token that the page that opened this
// one sends, if its origin is allowed.
export function onMessage(take) {
  addEventListener('message', ({ origin, source, data }) => {
    const isOpener = source !== null && source === window.opener;
    if (!isOpener || !config.origins.includes(origin)) return;
    if (data?.type === 'relay:token' && usable(data.token)) take(data.token);
  });
}

// ready tells the opener that a token is waited for, and returns whether there
// is one to tell. It goes to no other origin than the allowed ones.
export function ready() {
  if (!window.opener || window.opener.closed) return false;
  for (const origin of config.origins) window.opener.postMessage({ type: 'relay:ready' }, origin);
  return config.origins.length > 0;
}

// loginAddress is the login page with the way back, '' if there is none. The
// way back holds the challenge that was open, and never a token: that one is
// out of the address before anything else happens. maxAge, in seconds, is how long
// ago the sign-in may be (OpenID Connect, max_age).
export function loginAddress(maxAge) {
  if (!config.login_url) return '';
  const address = new URL(config.login_url);
  const route = location.hash.startsWith('#/') ? location.hash : '';
  address.searchParams.set('return_to', location.origin + location.pathname + route);
  if (maxAge) address.searchParams.set('max_age', maxAge);
  return address.href;
}

// leaveToSignIn goes to the login page and returns whether it does.
export function leaveToSignIn(maxAge) {
  const address = loginAddress(maxAge);
  if (!address || document.hidden) return false;
  const last = maxAge ? 'left-to-sign-in-again' : 'left-to-sign-in';
  try {
    if (Date.now() - Number(sessionStorage.getItem(last)) < ONCE) return false;
    sessionStorage.setItem(last, String(Date.now()));
  } catch {
    return false; // no storage, so no way to notice a loop
  }
  location.assign(address);
  return true;
}
