// Client of the approval relay's cardholder API: list, watch and answer
// challenges, turn on notifications, and keep passkeys. The app beside it is built
// on it, and so can any other frontend be: it imports nothing, and a page on
// another origin may load and use it where the relay's server.cors_origins names
// that origin. Passkeys belong to the host of the relay's server.public_url; at
// other origins they need a browser that knows WebAuthn's related origins.
//
// It keeps no token and stores nothing. Cookies are never sent, redirects never
// followed: the token goes to the relay and nowhere else.

/**
 * @typedef {'pending' | 'confirming' | 'approved' | 'rejected' | 'completed' | 'expired' | 'failed' | 'cancelled'} Status
 *
 * @typedef {object} Challenge
 * @property {string} id
 * @property {'three_ds' | 'card_verification'} kind
 * @property {'approve' | 'otp' | 'url'} method decide here, read a code, open a link
 * @property {Status} status
 * @property {{id: string | null, last4: string | null}} card
 * @property {{name: string | null, country: string | null} | null} payee country: ISO 3166-1 alpha-2
 * @property {{value: string, currency: string | null} | null} amount a decimal, never rescaled; ISO 4217
 * @property {string | null} reference the shop's page shows the same one
 * @property {string | null} wallet
 * @property {string | null} occurred_at this and all times: RFC 3339, UTC
 * @property {string} created_at
 * @property {string} expires_at
 * @property {string | null} revealed_at
 * @property {Decision | null} decision
 * @property {Failure | null} failure
 * @property {StepUp} [step_up] absent: an approval needs no more than the session
 *
 * @typedef {object} StepUp what an approval needs beside the session; a rejection never does
 * @property {'passkey'} method
 * @property {boolean} blocked after too many failures: it can only be rejected
 *
 * @typedef {object} Decision
 * @property {'approve' | 'reject'} action
 * @property {Reason | null} reason
 * @property {string} decided_at
 * @property {Shown} [shown]
 *
 * @typedef {'cancelled' | 'not_me'} Reason
 *
 * @typedef {object} Failure
 * @property {'issuer_refused' | 'issuer_unreachable' | 'unknown'} code unknown: the issuer may have taken it
 * @property {string} detail
 *
 * @typedef {object} Shown what the cardholder saw; a difference from the challenge is refused
 * @property {string} [amount]
 * @property {string} [currency]
 * @property {string} [payee]
 *
 * @typedef {object} Subscription
 * @property {string} id
 * @property {'pending' | 'active'} status active once its first push has been answered by activate
 * @property {string | null} label
 * @property {string} created_at
 * @property {string} last_used_at
 * @property {string} endpoint_host
 *
 * @typedef {object} Passkey
 * @property {string} id
 * @property {string | null} label
 * @property {string} created_at
 * @property {string | null} last_used_at
 *
 * @typedef {'live' | 'reconnecting' | 'offline'} LineState
 */

const TIMEOUT = 15_000; // of one call; an approval is answered within 3 s
const PUSH_TIMEOUT = 15_000; // without a network, some browsers' subscribe never ends at all
const QUIET = 40_000; // the server comments every 15 s; this much silence is a dead line
const STALE = 20_000; // the same, when somebody has just come back to look
const LONGEST_PAUSE = 30_000;

/**
 * Every way in which a call can fail. Where there was no answer, status is 0
 * and code "unreachable": it is unknown whether the call took effect, and doing
 * it again is safe, as the same decision again is no error. Else status, code,
 * detail and field are those of the problem document (RFC 9457).
 *
 * Also with status 0, from subscribe and resume: "push_unsupported",
 * "push_timeout" (the browser's push service did not answer) and "push_failed";
 * from stepUp, approve and addPasskey: "passkey_unsupported", "passkey_cancelled"
 * (by the user, who may have had none here, or too late), "passkey_exists" (it is
 * registered already) and "passkey_failed".
 */
export class RelayError extends Error {
  /**
   * @param {number} status
   * @param {string} code
   * @param {string} detail in English, for a log
   * @param {{field?: string, retryAfter?: number, requestId?: string, cause?: unknown}} [more]
   */
  constructor(status, code, detail, { field = '', retryAfter = 0, requestId = '', cause } = {}) {
    super(detail || code, { cause });
    this.name = 'RelayError';
    this.status = status;
    this.code = code;
    this.detail = detail;
    /** What an invalid_request names. */
    this.field = field;
    /** Seconds; 0 when the server did not say. */
    this.retryAfter = retryAfter;
    this.requestId = requestId;
  }
}

export class Relay {
  #base;
  #token;
  #clock = new Clock();

  /**
   * @param {object} [options]
   * @param {string | URL} [options.url] the relay; default: the one this file came from
   * @param {string | (() => string | Promise<string>)} [options.token] the user's JWT, or what returns it, asked before every call
   */
  constructor({ url = new URL('../', import.meta.url), token = '' } = {}) {
    this.#base = new URL('v1/', String(url).replace(/\/*$/, '/'));
    this.#token = token;
  }

  /**
   * One page, newest first. "pending" includes what is being confirmed.
   * @param {{status?: 'pending' | 'all', limit?: number, cursor?: string | null}} [query] limit: at most 100
   * @returns {Promise<{data: Challenge[], next_cursor: string | null}>}
   */
  list({ status = 'pending', limit, cursor } = {}) {
    const query = new URLSearchParams({ status });
    if (limit) query.set('limit', String(limit));
    if (cursor) query.set('cursor', cursor);
    return this.#json('GET', `challenges?${query}`);
  }

  /** @param {string} id @returns {Promise<Challenge>} */
  get(id) {
    return this.#json('GET', challengePath(id));
  }

  /**
   * The answer may still be "confirming": it is approved only once the issuer
   * has said so, which watch tells. Where a passkey is needed and none is given,
   * the user is asked for it.
   * @param {string} id
   * @param {Shown} [shown]
   * @param {object} [passkey] what stepUp gave
   * @returns {Promise<Challenge>}
   */
  async approve(id, shown, passkey) {
    try {
      return await this.#json('POST', challengePath(id, 'approve'), { shown, passkey });
    } catch (error) {
      if (passkey || !(error instanceof RelayError) || error.code !== 'step_up_required') throw error;
      return this.approve(id, shown, await this.stepUp(id));
    }
  }

  /**
   * Asks the user for a passkey, for the approval of this challenge alone. Call it
   * from a click.
   * @param {string} id
   * @returns {Promise<object>} an AuthenticationResponseJSON (WebAuthn), good for one try and two minutes
   */
  async stepUp(id) {
    needPasskeys();
    const { publicKey } = await this.#json('POST', challengePath(id, 'step-up'));
    return given(() => navigator.credentials.get({ publicKey: requestOptions(publicKey) }));
  }

  /** @param {string} id @param {Reason} [reason] @returns {Promise<Challenge>} */
  reject(id, reason) {
    return this.#json('POST', challengePath(id, 'reject'), { reason });
  }

  /**
   * Methods otp and url: the cardholder is finished, the code is wiped.
   * @param {string} id
   * @returns {Promise<Challenge>}
   */
  done(id) {
    return this.#json('POST', challengePath(id, 'done'), {});
  }

  /**
   * The code (method otp) or the link (method url); may be asked again while pending.
   * @param {string} id
   * @returns {Promise<{otp?: string, action_url?: string}>}
   */
  reveal(id) {
    return this.#json('POST', challengePath(id, 'reveal'), {});
  }

  /**
   * The server's time in milliseconds since the epoch, which is what expires_at
   * must be compared with: a phone's own clock may be minutes off.
   */
  now() {
    return this.#clock.now();
  }

  /**
   * Follows the challenges until signal aborts, then resolves. It reconnects by
   * itself and rejects only when the token is refused (a RelayError with status
   * 401). Each new connection begins with a snapshot of all that is pending.
   * @param {object} on
   * @param {(pending: Challenge[]) => void} [on.onSnapshot]
   * @param {(changed: Challenge) => void} [on.onChallenge]
   * @param {(state: LineState) => void} [on.onState] live: connected, and the snapshot is here
   * @param {AbortSignal} [on.signal]
   * @returns {Promise<void>}
   */
  async watch({ onSnapshot, onChallenge, onState, signal = new AbortController().signal }) {
    let failures = 0;
    /** @param {string} name @param {any} data */
    const onEvent = (name, data) => {
      if (signal.aborted) return;
      failures = 0;
      tell(onState, 'live');
      if (name === 'snapshot') tell(onSnapshot, data.data);
      if (name === 'challenge') tell(onChallenge, data);
    };
    while (!signal.aborted) {
      let wait = 0;
      try {
        await listen((quiet) => this.#send('GET', 'events', undefined, quiet), onEvent, signal);
      } catch (error) {
        if (error instanceof RelayError) {
          if (error.status === 401 && !signal.aborted) throw error;
          wait = error.retryAfter * 1000;
        }
      }
      if (signal.aborted) return;
      tell(onState, navigator.onLine ? 'reconnecting' : 'offline');
      const backoff = Math.min(1000 * 2 ** failures, LONGEST_PAUSE) * (0.5 + Math.random() / 2);
      failures += 1;
      await pause(Math.max(wait, backoff), signal);
    }
  }

  /**
   * Turns on notifications for this browser. Call it from a click, after
   * Notification.requestPermission() gave "granted". The subscription is
   * pending until the service worker has answered its first push by activate.
   * @param {ServiceWorkerRegistration} registration
   * @param {{label?: string, lang?: string}} [about] the device's name; the language of its notifications (BCP 47)
   * @returns {Promise<Subscription>}
   */
  async subscribe(registration, about = {}) {
    if (!registration.pushManager) throw new RelayError(0, 'push_unsupported', 'This browser has no push.');
    const { public_key: publicKey } = await this.#json('GET', 'push/key');
    const subscription = await subscribeTo(registration, publicKey);
    return this.#json('POST', 'push/subscriptions', { ...subscription.toJSON(), ...about });
  }

  /**
   * Tells the relay that this browser's subscription is still there; null if it
   * has none. To be run at every start: browsers drop subscriptions, and the
   * relay's key may have changed.
   * @param {ServiceWorkerRegistration} registration
   * @param {{label?: string, lang?: string}} [about]
   * @returns {Promise<Subscription | null>}
   */
  async resume(registration, about = {}) {
    if (!registration.pushManager || Notification.permission !== 'granted') return null;
    return await registration.pushManager.getSubscription() ? this.subscribe(registration, about) : null;
  }

  /**
   * Ends notifications: here, which works without a network, then at the relay.
   * @param {ServiceWorkerRegistration | null | undefined} registration
   * @param {string} [id] of the subscription, where it is known
   */
  async unsubscribe(registration, id) {
    const subscription = await registration?.pushManager?.getSubscription();
    await subscription?.unsubscribe();
    if (id) await this.#json('DELETE', subscriptionPath(id));
  }

  /**
   * Proves that the subscription is ours, by the code that was pushed to it.
   * @param {string} id
   * @param {string} code
   * @returns {Promise<void>}
   */
  activate(id, code) {
    return this.#json('POST', subscriptionPath(id, 'activate'), { code });
  }

  /** @returns {Promise<Subscription[]>} all of the user's devices */
  async subscriptions() {
    const { data } = await this.#json('GET', 'push/subscriptions');
    return data;
  }

  /** Sends a test notification. @param {string} id @returns {Promise<void>} */
  async test(id) {
    await this.#json('POST', subscriptionPath(id, 'test'), {});
  }

  /** @returns {Promise<Passkey[]>} fails with "not_configured" where no approval needs one */
  async passkeys() {
    const { data } = await this.#json('GET', 'passkeys');
    return data;
  }

  /**
   * Makes a passkey on this device. Call it from a click. Like removePasskey it
   * fails with "recent_login_required" where the user has signed in more than five
   * minutes ago: sign in again, with max_age=300 (OpenID Connect).
   * @param {string} [label] by which its owner can tell it from others
   * @returns {Promise<Passkey>}
   */
  async addPasskey(label) {
    needPasskeys();
    const { publicKey } = await this.#json('POST', 'passkeys/options');
    const passkey = await given(() => navigator.credentials.create({ publicKey: creationOptions(publicKey) }));
    return this.#json('POST', 'passkeys', { label, passkey });
  }

  /** @param {string} id @returns {Promise<void>} */
  removePasskey(id) {
    return this.#json('DELETE', `passkeys/${encodeURIComponent(id)}`);
  }

  /** @param {string} method @param {string} path @param {object} [body] @returns {Promise<any>} */
  async #json(method, path, body) {
    const response = await this.#send(method, path, body, AbortSignal.timeout(TIMEOUT));
    if (response.status === 204) return undefined;
    try {
      return await response.json();
    } catch (cause) {
      throw new RelayError(0, 'unreachable', 'The answer broke off.', { cause });
    }
  }

  /** @param {string} method @param {string} path @param {object | undefined} body @param {AbortSignal} signal */
  async #send(method, path, body, signal) {
    const token = typeof this.#token === 'function' ? await this.#token() : this.#token;
    /** @type {Record<string, string>} */
    const headers = { Authorization: `Bearer ${token}` };
    if (body) headers['Content-Type'] = 'application/json';
    const sent = Date.now();
    let response;
    try {
      response = await fetch(new URL(path, this.#base), {
        method, headers, body: body && JSON.stringify(body), signal, cache: 'no-store', credentials: 'omit', redirect: 'error',
      });
    } catch (cause) {
      throw new RelayError(0, 'unreachable', 'There was no answer.', { cause });
    }
    this.#clock.observe(response.headers.get('Date'), sent, Date.now());
    if (!response.ok) throw await problem(response);
    return response;
  }
}

const challengePath = (/** @type {string[]} */ ...parts) => ['challenges', ...parts.map(encodeURIComponent)].join('/');
const subscriptionPath = (/** @type {string[]} */ ...parts) => ['push/subscriptions', ...parts.map(encodeURIComponent)].join('/');

/** @param {Response} response */
async function problem(response) {
  const { code = 'unknown', detail = '', field } = await response.json().catch(() => ({}));
  return new RelayError(response.status, code, detail, {
    field,
    retryAfter: Number(response.headers.get('Retry-After')) || 0,
    requestId: response.headers.get('X-Request-Id') ?? '',
  });
}

/**
 * A mistake in a page's callback must be seen, and must not cut the line.
 * @template T
 * @param {((value: T) => void) | undefined} callback
 * @param {T} value
 */
function tell(callback, value) {
  try {
    callback?.(value);
  } catch (error) {
    reportError(error);
  }
}

// The server's clock as seen from here. Each answer bounds the offset: its Date
// header (whole seconds) was written at some moment between sending and
// receiving. The bounds of many answers are intersected, which soon gives well
// under a second.
class Clock {
  #low = -Infinity;
  #high = Infinity;

  /** @param {string | null} date @param {number} sent @param {number} received */
  observe(date, sent, received) {
    const written = Date.parse(date ?? '');
    if (Number.isNaN(written)) return;
    const from = written - received;
    const to = written + 1000 - sent;
    const clockWasSet = from > this.#high || to < this.#low;
    this.#low = clockWasSet ? from : Math.max(this.#low, from);
    this.#high = clockWasSet ? to : Math.min(this.#high, to);
  }

  now() {
    return Date.now() + (Number.isFinite(this.#low) ? (this.#low + this.#high) / 2 : 0);
  }
}

/**
 * Reads one connection to its end, which the server announces with bye.
 * EventSource cannot send an Authorization header, hence fetch.
 * @param {(quiet: AbortSignal) => Promise<Response>} connect
 * @param {(name: string, data: any) => void} onEvent
 * @param {AbortSignal} signal
 */
async function listen(connect, onEvent, signal) {
  const line = new AbortController();
  const giveUp = () => line.abort();
  let heard = Date.now();
  const options = { signal: line.signal };
  signal.addEventListener('abort', giveUp, options);
  addEventListener('offline', giveUp, options);
  // Timers stand still while a phone sleeps, the calendar does not.
  onLook(() => Date.now() - heard > STALE && giveUp(), options);
  let watchdog = setTimeout(giveUp, QUIET);
  try {
    const response = await connect(line.signal);
    if (!response.body) return;
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let ended = false;
    const feed = parser((name, data) => {
      if (name === 'bye') ended = true;
      else onEvent(name, data);
    });
    while (!ended) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(watchdog);
      watchdog = setTimeout(giveUp, QUIET);
      heard = Date.now();
      feed(value);
    }
  } finally {
    clearTimeout(watchdog);
    giveUp();
  }
}

/**
 * Returns a function that takes a stream of server-sent events (WHATWG HTML,
 * section 9.2) in pieces of any size and calls onEvent for each, its data read
 * as JSON.
 * @param {(name: string, data: any) => void} onEvent
 */
function parser(onEvent) {
  let rest = '';
  let name = '';
  /** @type {string[]} */
  let data = [];
  const take = (/** @type {string} */ line) => {
    if (line === '') {
      if (data.length > 0) onEvent(name || 'message', JSON.parse(data.join('\n')));
      name = '';
      data = [];
      return;
    }
    const [, field, value = ''] = /^([^:]*)(?:: ?(.*))?$/s.exec(line) ?? [];
    if (field === 'event') name = value;
    if (field === 'data') data.push(value);
  };
  return (/** @type {string} */ piece) => {
    const lines = (rest + piece).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop() ?? '';
    lines.forEach(take);
  };
}

/**
 * Ends early when the network returns or somebody looks at the page.
 * @param {number} milliseconds
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const ended = new AbortController();
    const end = () => {
      clearTimeout(timer);
      ended.abort();
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    const options = { signal: ended.signal };
    addEventListener('online', end, options);
    onLook(end, options);
    signal.addEventListener('abort', end, options);
  });
}

/** @param {() => void} act @param {AddEventListenerOptions} options */
function onLook(act, options) {
  document.addEventListener('visibilitychange', () => document.hidden || act(), options);
}

/** @param {ServiceWorkerRegistration} registration @param {string} publicKey base64url */
async function subscribeTo(registration, publicKey) {
  const key = bytes(publicKey);
  const late = new RelayError(0, 'push_timeout', 'The push service of the browser did not answer.');
  try {
    return await within(PUSH_TIMEOUT, late, async () => {
      await active(registration);
      const { pushManager } = registration;
      const old = await pushManager.getSubscription();
      // Subscribing with another key than before would be refused.
      if (old && !same(old.options.applicationServerKey, key)) await old.unsubscribe();
      return pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: key });
    });
  } catch (cause) {
    if (cause === late) throw late;
    throw new RelayError(0, 'push_failed', 'The browser could not subscribe.', { cause });
  }
}

/** @param {ArrayBuffer | null} buffer @param {Uint8Array} key */
function same(buffer, key) {
  const other = new Uint8Array(buffer ?? []);
  return other.length === key.length && other.every((byte, at) => byte === key[at]);
}

/**
 * Browsers refuse to subscribe by a worker that is still being installed.
 * @param {ServiceWorkerRegistration} registration
 * @returns {Promise<void>}
 */
async function active(registration) {
  const worker = registration.active ?? registration.waiting ?? registration.installing;
  while (worker && worker.state !== 'activated') {
    if (worker.state === 'redundant') throw new Error('the service worker could not be installed');
    await new Promise((resolve) => worker.addEventListener('statechange', resolve, { once: true }));
  }
}

/**
 * @template T
 * @param {number} milliseconds
 * @param {Error} late
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
function within(milliseconds, late, work) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const timeout = new Promise((_, reject) => {
    timer = setTimeout(reject, milliseconds, late);
  });
  return Promise.race([work(), timeout]).finally(() => clearTimeout(timer));
}

function needPasskeys() {
  if (!globalThis.PublicKeyCredential) throw new RelayError(0, 'passkey_unsupported', 'This browser has no passkeys.');
}

/**
 * What the browser gave, as JSON.
 * @param {() => Promise<Credential | null>} ask
 * @returns {Promise<object>}
 */
async function given(ask) {
  try {
    const credential = /** @type {any} */ (await ask());
    return credential.toJSON ? credential.toJSON() : toJSON(credential);
  } catch (cause) {
    const { name } = /** @type {Error} */ (cause);
    throw new RelayError(0, PASSKEY_FAILURES[name] ?? 'passkey_failed', 'The browser gave no passkey.', { cause });
  }
}

/** @type {Record<string, string>} names of DOMException */
const PASSKEY_FAILURES = { NotAllowedError: 'passkey_cancelled', AbortError: 'passkey_cancelled', InvalidStateError: 'passkey_exists' };

// WebAuthn's JSON (Level 3) for browsers from before it: every ArrayBuffer is a
// base64url text there.

/** @param {any} json @returns {PublicKeyCredentialRequestOptions} */
function requestOptions(json) {
  if (PublicKeyCredential.parseRequestOptionsFromJSON) return PublicKeyCredential.parseRequestOptionsFromJSON(json);
  return { ...json, challenge: bytes(json.challenge), allowCredentials: descriptors(json.allowCredentials) };
}

/** @param {any} json @returns {PublicKeyCredentialCreationOptions} */
function creationOptions(json) {
  if (PublicKeyCredential.parseCreationOptionsFromJSON) return PublicKeyCredential.parseCreationOptionsFromJSON(json);
  return {
    ...json,
    challenge: bytes(json.challenge),
    user: { ...json.user, id: bytes(json.user.id) },
    excludeCredentials: descriptors(json.excludeCredentials),
  };
}

const descriptors = (/** @type {any[]} */ list = []) => list.map((one) => ({ ...one, id: bytes(one.id) }));

/** @param {any} credential a PublicKeyCredential without a toJSON */
function toJSON(credential) {
  const { id, type, authenticatorAttachment, response } = credential;
  return {
    id,
    rawId: id,
    type,
    authenticatorAttachment: authenticatorAttachment ?? undefined,
    clientExtensionResults: credential.getClientExtensionResults(),
    response: {
      attestationObject: base64url(response.attestationObject),
      authenticatorData: base64url(response.authenticatorData),
      clientDataJSON: base64url(response.clientDataJSON),
      signature: base64url(response.signature),
      transports: response.getTransports?.(),
      userHandle: base64url(response.userHandle),
    },
  };
}

/** @param {string} text base64url */
function bytes(text) {
  return Uint8Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0));
}

/** @param {ArrayBuffer | null | undefined} buffer */
function base64url(buffer) {
  return buffer ? btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '') : undefined;
}
