// Takes the token out of the address. The page loads this module on its own
// and asynchronously, so the token is gone from the address bar and the
// history before the rest of the app has even arrived.

// takeToken returns the token of "#token=…", or null, and removes it from the
// address whether or not it can be used. A header value with any other
// character would make fetch throw, so such a token is as good as none.
export function takeToken() {
  const parameters = new URLSearchParams(location.hash.slice(1));
  const token = parameters.get('token');
  if (token === null) return null;
  history.replaceState(null, '', location.pathname + location.search);
  return /^[\w.~+/=-]+$/.test(token) ? token : null;
}

export const firstToken = takeToken();
