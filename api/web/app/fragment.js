// Takes the token out of the address. The page loads this module on its own
// and asynchronously, so the token is gone from the address bar and the
// history before the rest of the app has even arrived.

// usable tells whether a token can be sent at all: a header value with any
// other character would make fetch throw.
export const usable = (token) => typeof token === 'string' && /^[\w.~+/=-]+$/.test(token);

// takeToken returns the token of "#token=…", or null, and removes it from the
// address whether or not it can be used.
export function takeToken() {
  const token = new URLSearchParams(location.hash.slice(1)).get('token');
  if (token === null) return null;
  history.replaceState(null, '', location.pathname + location.search);
  return usable(token) ? token : null;
}

export const firstToken = takeToken();
