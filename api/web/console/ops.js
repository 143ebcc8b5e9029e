// The ops API. The admin token lives in this tab's session storage and in no
// address; the operator's name is remembered and sent along, for the relay's log.

const TOKEN = 'relay-admin-token';
const NAME = 'relay-operator';

export const session = {
  get token() { return sessionStorage.getItem(TOKEN) ?? ''; },
  set token(token) { if (token) sessionStorage.setItem(TOKEN, token); else sessionStorage.removeItem(TOKEN); },
  get name() { return localStorage.getItem(NAME) ?? ''; },
  set name(name) { localStorage.setItem(NAME, name); },
};

// OpsError is a refusal of the relay (RFC 9457), or, with status 0, no answer.
export class OpsError extends Error {
  constructor(status, { code = '', detail = '', request_id: requestID = '' } = {}) {
    super(detail || `status ${status}`);
    Object.assign(this, { status, code, detail, requestID });
  }
}

// path escapes what is filled in: path`events/${id}`.
export const path = (parts, ...values) => String.raw({ raw: parts }, ...values.map(encodeURIComponent));

// query adds the values that are there.
export function query(base, values) {
  const given = Object.entries(values).filter(([, value]) => value);
  return given.length ? `${base}?${new URLSearchParams(given)}` : base;
}

// utf8 is a text as fetch takes headers: one character for each of its bytes.
const utf8 = (text) => String.fromCharCode(...new TextEncoder().encode(text));

async function call(method, where, body, signal) {
  const headers = {};
  if (session.token) headers.Authorization = `Bearer ${session.token}`;
  if (session.name) headers['X-Operator'] = utf8(session.name);
  let answer;
  try {
    answer = await fetch(`/ops/v1/${where}`, { method, headers, body, signal, cache: 'no-store' });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new OpsError(0);
  }
  if (!answer.ok) throw new OpsError(answer.status, await answer.json().catch(() => undefined));
  return answer;
}

async function json(answer) {
  return answer.status === 204 ? null : answer.json();
}

export const get = async (where, signal) => json(await call('GET', where, undefined, signal));
export const post = async (where) => json(await call('POST', where));
export const put = async (where, value) => json(await call('PUT', where, JSON.stringify(value)));
export const remove = async (where) => json(await call('DELETE', where));

// postLines sends NDJSON and returns the last line of the answer, in which the
// relay sums up.
export async function postLines(where, bytes) {
  const text = await (await call('POST', where, bytes)).text();
  const last = JSON.parse(text.trim().split('\n').at(-1));
  if (!last.done) throw new OpsError(503, last);
  return last;
}

// explain turns what went wrong into what can be done about it.
export function explain(error) {
  if (!(error instanceof OpsError)) return `The console itself failed: ${error.message}`;
  if (error.status === 0) return 'The relay does not answer. Is it running, and is the way to it open?';
  if (error.status === 503) return `The relay is up, but its store is away: ${error.detail || 'Redis does not answer.'}`;
  if (error.status === 404) return 'There is no such record. It may have passed its retention, or the id is mistyped.';
  const request = error.status >= 500 && error.requestID ? ` (request ${error.requestID})` : '';
  return `${error.detail || `The relay answered ${error.status}.`}${request}`;
}
