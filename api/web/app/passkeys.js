// The cardholder's passkeys: lists, adds and removes them, where the relay asks
// for one to approve with.

import { at, say } from './element.js';
import { item } from './devices.js';
import { formatDay } from './format.js';
import { t } from './lang.js';
import { explain } from './messages.js';
import { about } from './panel.js';
import { leaveToSignIn } from './signin.js';

const MAX_AGE = 300; // seconds since the sign-in, as the relay wants it to change passkeys

class Passkeys {
  #relay = null;
  #busy = false;

  constructor() {
    at('passkeys-add').addEventListener('click', () => this.#change(() => this.#add()));
  }

  // start shows them, or nothing where the relay asks for none.
  async start(relay) {
    this.#relay = relay;
    at('passkeys').hidden = true;
    at('passkeys-add').hidden = !window.PublicKeyCredential;
    await this.#load('').catch(() => {}); // not configured, or not reachable now
  }

  // point leads to where the first one is added.
  async point(relay) {
    if (at('passkeys').hidden) await this.start(relay);
    const add = at('passkeys-add');
    (add.hidden ? at('passkeys-title') : add).focus();
  }

  // #load shows what there is now, and says text, or else what they are for.
  async #load(text) {
    const relay = this.#relay;
    const all = await relay.passkeys();
    if (relay !== this.#relay) return;
    at('passkeys-list').replaceChildren(...all.map((passkey) => this.#item(passkey)));
    const [other] = [!window.PublicKeyCredential && 'error.passkey_unsupported', all.length === 0 && 'passkey.none', 'passkey.some'].filter(Boolean);
    this.#say(text || t(other));
    at('passkeys').hidden = false;
  }

  #item({ id, label, created_at: created, last_used_at: used }) {
    const facts = [t('passkey.added_at', { when: formatDay(created) }), used && t('passkey.used', { when: formatDay(used) })];
    return item(label, facts, (name) => this.#change(() => this.#remove(id, name)));
  }

  async #add() {
    this.#say(t('passkey.asking'));
    const { label } = await this.#relay.addPasskey(about().label);
    await this.#load(t('passkey.added', { name: label || t('push.unnamed') }));
  }

  async #remove(id, name) {
    await this.#relay.removePasskey(id);
    await this.#load(t('passkey.removed', { name }));
    at('passkeys-title').focus();
  }

  // #change does one thing at a time, and says why it could not be done.
  async #change(work) {
    if (this.#busy) return;
    this.#busy = true;
    at('passkeys-add').setAttribute('aria-disabled', 'true');
    const relay = this.#relay;
    try {
      await work();
    } catch (error) {
      if (relay === this.#relay) await this.#failed(error);
    } finally {
      this.#busy = false;
      at('passkeys-add').removeAttribute('aria-disabled');
    }
  }

  async #failed(error) {
    if (error.code === 'recent_login_required' && leaveToSignIn(MAX_AGE)) return;
    if (error.code === 'passkey_cancelled') await this.#load('').catch(() => {});
    else this.#say(explain(error), 'failed');
  }

  #say(text, state = '') {
    say(at('passkeys-text'), text);
    at('passkeys-text').dataset.state = state;
  }
}

export const passkeys = new Passkeys();
