// The panel that turns notifications on and says how they stand.

import { explain } from './messages.js';
import { pushState, PushError, resume, turnOff, turnOn } from './push.js';

const FIRST_PUSH = 30_000;

const TEXTS = {
  off: 'Be told at once when your card is asked for, also when this page is closed.',
  working: 'Turning on…',
  waiting: 'Almost there. Waiting for the first notification to arrive…',
  slow: 'The first notification has not arrived yet. It can take a few minutes.',
  on: 'Notifications are on for this device.',
  refused: 'Notifications could not be confirmed. Please turn them on again.',
  blocked: 'Notifications are blocked. You can allow them in the settings of your browser.',
  unsupported: 'This browser cannot show notifications for this page. '
    + 'On an iPhone or iPad, add the page to your Home Screen and open it there.',
};

const OFFERED = ['off', 'refused', 'slow'];

export class PushPanel {
  #api = null;
  #id = '';
  #timer = 0;
  #confirmed = false; // the first push may arrive before the answer to subscribing
  #text = document.getElementById('push-text');
  #button = document.getElementById('push-on');

  constructor() {
    this.#button.addEventListener('click', () => this.#turnOn());
  }

  // start shows the state for a new session.
  async start(api) {
    this.#api = api;
    this.#id = '';
    this.#confirmed = false;
    this.#show(pushState() === 'possible' ? 'off' : pushState());
    try {
      this.#take(await resume(api), api);
    } catch {
      // Not reachable now: the button is there, and the next start asks again.
    }
  }

  // stop ends notifications on this device.
  stop() {
    return turnOff(this.#api, this.#id);
  }

  // activated is told by the worker when the first push has arrived.
  activated(on) {
    this.#confirmed = on;
    this.#show(on ? 'on' : 'refused');
  }

  async #turnOn() {
    const api = this.#api;
    this.#confirmed = false;
    this.#show('working');
    try {
      this.#take(await turnOn(api), api);
    } catch (error) {
      if (api !== this.#api) return;
      this.#show(pushState() === 'blocked' ? 'blocked' : 'off');
      this.#text.textContent = error instanceof PushError ? error.message : explain(error);
    }
  }

  #take(subscription, api) {
    if (!subscription || api !== this.#api) return;
    this.#id = subscription.id;
    const on = subscription.status === 'active' || this.#confirmed;
    this.#show(on ? 'on' : 'waiting');
    if (!on) this.#timer = setTimeout(() => this.#show('slow'), FIRST_PUSH);
  }

  #show(state) {
    clearTimeout(this.#timer);
    this.#text.textContent = TEXTS[state];
    this.#text.dataset.state = state;
    this.#button.hidden = !OFFERED.includes(state);
  }
}
