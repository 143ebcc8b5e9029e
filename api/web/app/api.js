// Client of the cardholder API, /v1 beside the app.

import { observe } from './clock.js';

const BASE = new URL('../v1/', import.meta.url);
const TIMEOUT = 15_000;

// ApiError is every way a call can fail. status is 0 and code "unreachable"
// when there was no answer, so that whether the call took effect is unknown;
// else they are those of the problem document (RFC 9457). retryAfter is in
// seconds, 0 when the server did not say.
export class ApiError extends Error {
  constructor(status, code, detail, retryAfter = 0) {
    super(detail);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

export class Api {
  #token;

  constructor(token) {
    this.#token = token;
  }

  challenges(status) {
    return this.#json('GET', `challenges?status=${status}&limit=20`);
  }

  challenge(id) {
    return this.#json('GET', `challenges/${encodeURIComponent(id)}`);
  }

  // act posts approve, reject, reveal or done for one challenge.
  act(id, action, body) {
    return this.#json('POST', `challenges/${encodeURIComponent(id)}/${action}`, body);
  }

  pushKey() {
    return this.#json('GET', 'push/key');
  }

  subscribe(subscription) {
    return this.#json('POST', 'push/subscriptions', subscription);
  }

  unsubscribe(id) {
    return this.#json('DELETE', `push/subscriptions/${encodeURIComponent(id)}`);
  }

  // events opens the stream of server-sent events; signal ends it.
  events(signal) {
    return this.#send('GET', 'events', undefined, signal);
  }

  async #json(method, path, body) {
    const response = await this.#send(method, path, body, AbortSignal.timeout(TIMEOUT));
    if (response.status === 204) return null;
    try {
      return await response.json();
    } catch {
      throw new ApiError(0, 'unreachable', 'The answer broke off.');
    }
  }

  async #send(method, path, body, signal) {
    const headers = { Authorization: `Bearer ${this.#token}` };
    if (body !== undefined) headers['Content-Type'] = 'application/json';
    const sent = Date.now();
    let response;
    try {
      response = await fetch(new URL(path, BASE), {
        method,
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        signal,
        cache: 'no-store',
        credentials: 'omit',
        redirect: 'error',
      });
    } catch {
      throw new ApiError(0, 'unreachable', 'There was no answer.');
    }
    observe(response.headers.get('Date'), sent, Date.now());
    if (!response.ok) throw await problem(response);
    return response;
  }
}

async function problem(response) {
  const document = await response.json().catch(() => ({}));
  const retryAfter = Number(response.headers.get('Retry-After')) || 0;
  return new ApiError(response.status, document.code ?? 'unknown', document.detail ?? '', retryAfter);
}
