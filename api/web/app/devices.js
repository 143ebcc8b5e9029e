// The list of all devices of the cardholder that get notifications, fetched
// when it is opened.

import { at, element, say } from './element.js';
import { formatDay } from './format.js';
import { t } from './lang.js';
import { explain } from './messages.js';

export class DeviceList {
  #relay = null;
  #own = '';
  #removeOwn;

  // removeOwn() turns notifications off on this device.
  constructor(removeOwn) {
    this.#removeOwn = removeOwn;
    at('devices').addEventListener('toggle', () => at('devices').open && this.#load());
  }

  // start tells for whom the list is, and which of them is this device.
  start(relay, own) {
    this.#relay = relay;
    this.#own = own;
    at('devices').open = false;
    at('devices-list').replaceChildren();
  }

  async #load() {
    const relay = this.#relay;
    say(at('devices-text'), '');
    try {
      const devices = await relay.subscriptions();
      if (relay === this.#relay) at('devices-list').replaceChildren(...devices.map((device) => this.#item(device)));
    } catch (error) {
      say(at('devices-text'), explain(error));
    }
  }

  #item({ id, label, status, last_used_at: used }) {
    const facts = [id === this.#own && t('push.this_device'), status === 'pending' && t('push.unconfirmed'),
      t('push.used', { when: formatDay(used) })];
    return item(label, facts, (name) => this.#remove(id, name));
  }

  async #remove(id, name) {
    try {
      if (id === this.#own) await this.#removeOwn();
      else await this.#relay.unsubscribe(null, id);
      await this.#load();
      say(at('devices-text'), t('push.removed', { name }));
      (at('devices').hidden ? at('push-on') : at('devices').querySelector('summary')).focus();
    } catch (error) {
      say(at('devices-text'), explain(error));
    }
  }
}

// item shows something of the cardholder's that can be removed; onRemove(name) is
// called for its button.
export function item(label, facts, onRemove) {
  const name = label || t('push.unnamed');
  const remove = element('button', { type: 'button', class: 'button quiet', 'aria-label': t('push.remove_device', { name }) }, t('push.remove'));
  remove.addEventListener('click', () => onRemove(name));
  return element('li', {},
    element('div', {}, element('bdi', {}, name), element('p', {}, facts.filter(Boolean).join(' · '))), remove);
}
