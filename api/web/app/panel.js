// The panel that asks softly, before the browser does, turns notifications on
// for this device, and says how they stand.

import { DeviceList } from './devices.js';
import { at } from './element.js';
import { language, t } from './lang.js';
import { explain } from './messages.js';
import { load, save } from './store/session.js';

const FIRST_PUSH = 30_000;
const AGAIN = 30 * 86_400_000; // "Not now" holds for so long

// What each state offers.
const OFFERS = {
  off: ['push-on', 'push-later'],
  later: ['push-on'],
  failed: ['push-on'],
  slow: ['push-on'],
  on: ['push-test', 'devices'],
  install: ['push-install'],
};
const OFFERED = ['push-on', 'push-later', 'push-test', 'devices', 'push-install'];

class PushPanel {
  #relay = null;
  #registered = null; // a promise: the button may be pressed before it is there
  #id = '';
  #timer = 0;
  #confirmed = false; // the first push may arrive before the answer to subscribing
  #devices = new DeviceList(() => this.#removeOwn());

  constructor() {
    at('push-on').addEventListener('click', () => this.#turnOn());
    at('push-later').addEventListener('click', () => this.#later());
    at('push-test').addEventListener('click', () => this.#test());
  }

  // prepare shows what is known without asking anybody, before the page is shown.
  async prepare() {
    const kept = await load('push').catch(() => undefined);
    const state = possible();
    if (state !== 'possible') this.#show(state);
    else if (kept?.on && Notification.permission === 'granted') this.#show('on');
    else this.#show(Date.now() - (kept?.later ?? 0) < AGAIN ? 'later' : 'off');
  }

  // start installs the worker, which the page also needs to open without a
  // network, and checks the subscription: a browser may have dropped it.
  async start(relay) {
    this.#relay = relay;
    this.#id = '';
    this.#confirmed = false;
    this.#devices.start(relay, '');
    this.#registered = register();
    let registration;
    try {
      registration = await this.#registered;
    } catch {
      if (relay === this.#relay) this.#show('unsupported');
      return;
    }
    if (possible() !== 'possible') return;
    try {
      const subscription = await relay.resume(registration, about());
      if (subscription) this.#take(subscription, relay);
      else if (relay === this.#relay && at('push-text').dataset.state === 'on') this.#show('off');
    } catch {
      // Not reachable now: what is shown stays, and the next start asks again.
    }
  }

  // stop ends notifications on this device.
  async stop() {
    await this.#relay?.unsubscribe(await navigator.serviceWorker?.getRegistration(), this.#id);
  }

  // activated is told by the worker when the first push has arrived.
  activated(on) {
    this.#confirmed = on;
    if (on) this.#on();
    else this.#show('failed', t('push.refused'));
  }

  async #turnOn() {
    const relay = this.#relay;
    this.#confirmed = false;
    this.#show('working');
    try {
      if (await Notification.requestPermission() !== 'granted') {
        this.#show(possible() === 'blocked' ? 'blocked' : 'off', t(`push.${possible() === 'blocked' ? 'blocked' : 'dismissed'}`));
        return;
      }
      this.#take(await relay.subscribe(await this.#registered, about()), relay);
    } catch (error) {
      if (relay === this.#relay) this.#show('failed', explain(error));
    }
  }

  #later() {
    save('push', { later: Date.now() }).catch(() => {});
    this.#show('later');
    at('push-on').focus({ preventScroll: true });
  }

  async #test() {
    const text = at('push-text');
    if (!this.#id) await this.start(this.#relay); // it could not be reached then
    try {
      await this.#relay.test(this.#id);
      text.textContent = t('push.test_sent');
    } catch (error) {
      text.textContent = explain(error);
    }
  }

  #take(subscription, relay) {
    if (relay !== this.#relay) return;
    this.#id = subscription.id;
    if (subscription.status === 'active' || this.#confirmed) return void this.#on();
    this.#show('waiting');
    this.#timer = setTimeout(() => this.#show('slow'), FIRST_PUSH);
  }

  #on() {
    save('push', { on: true }).catch(() => {});
    this.#show('on');
    this.#devices.start(this.#relay, this.#id);
  }

  async #removeOwn() {
    await this.stop();
    save('push', { later: Date.now() }).catch(() => {});
    this.#show('later');
  }

  #show(state, text = t(`push.${state}`)) {
    clearTimeout(this.#timer);
    at('push-text').textContent = text;
    at('push-text').dataset.state = state;
    for (const id of OFFERED) at(id).hidden = !OFFERS[state]?.includes(id);
  }
}

export const panel = new PushPanel();

const register = async () => navigator.serviceWorker.register(new URL('sw.js', import.meta.url), { updateViaCache: 'none' });

// possible tells what can be said without asking anybody: "unsupported",
// "install" (an iPhone's browser has push for installed apps only), "blocked"
// by the browser's settings, or "possible".
function possible() {
  if (!('serviceWorker' in navigator && 'PushManager' in window && 'Notification' in window)) {
    return isAppleTouch() && !navigator.standalone ? 'install' : 'unsupported';
  }
  return Notification.permission === 'denied' ? 'blocked' : 'possible';
}

// An iPad calls itself a Mac, but no Mac has a touch screen.
const isAppleTouch = () => /iPhone|iPad|iPod/.test(navigator.userAgent)
  || (navigator.platform === 'MacIntel' && navigator.maxTouchPoints > 1);

// about is what the relay keeps of this device: a name by which its owner can
// tell it from others, and the language of its notifications.
export function about() {
  const agent = navigator.userAgent;
  const browser = [['Edge', /Edg/], ['Opera', /OPR/], ['Samsung Internet', /SamsungBrowser/], ['Firefox', /Firefox|FxiOS/],
    ['Chrome', /Chrom|CriOS/], ['Safari', /Safari/]].find(([, pattern]) => pattern.test(agent))?.[0];
  const system = [['iPhone', /iPhone/], ['iPad', /iPad/], ['Android', /Android/], ['Windows', /Windows/],
    ['Mac', /Mac/], ['Linux', /Linux|CrOS/]].find(([, pattern]) => pattern.test(agent))?.[0];
  return { label: [browser, system].filter(Boolean).join(' · ') || undefined, lang: language };
}
