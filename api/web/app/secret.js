// The box for a one-time code or a link: shown for half a minute or until the
// tab is left. A code that is hidden is gone from the document, but its room
// stays, so that nothing moves under a finger.

import { element, say } from './element.js';
import { groupCode } from './format.js';
import { t } from './lang.js';

const SHOWN = 30_000;

export class Secret {
  #box;
  #timer = 0;
  #onHide;

  // onHide is called when the box hides itself while it has the focus.
  constructor(box, onHide) {
    this.#box = box;
    this.#onHide = onHide;
  }

  showCode(code) {
    const copied = element('span', { class: 'copied', 'aria-live': 'polite' });
    const copy = element('button', { type: 'button', class: 'button' }, t('challenge.copy'));
    copy.addEventListener('click', async () => {
      const done = await navigator.clipboard.writeText(code).then(() => true, () => false);
      say(copied, t(done ? 'challenge.copied' : 'challenge.not_copied'));
    });
    const groups = groupCode(code).map((group) => element('span', {}, group));
    const label = t('challenge.code_label', { code: [...code].join(' ') });
    this.#show(
      element('p', { class: 'code', role: 'group', 'aria-label': label, tabindex: '-1' }, ...groups),
      element('div', { class: 'copy' }, copy, copied),
      element('p', { class: 'hint' }, t('challenge.code_warning')),
    );
  }

  // showLink offers the bank's page as a link too, for browsers that refuse to
  // open a tab after a network call.
  showLink(url) {
    const attributes = { href: url.href, target: '_blank', rel: 'noopener noreferrer', class: 'link' };
    this.#show(element('a', attributes, t('challenge.continue_at', { host: url.host })));
  }

  hide() {
    clearTimeout(this.#timer);
    if (this.#box.hidden) return;
    const focused = this.#box.contains(document.activeElement);
    this.#box.style.minHeight = `${this.#box.offsetHeight}px`;
    this.#box.replaceChildren(element('p', { class: 'hint' }, t('challenge.hidden')));
    if (focused) this.#onHide();
  }

  #show(...nodes) {
    clearTimeout(this.#timer);
    this.#box.replaceChildren(...nodes);
    this.#box.hidden = false;
    nodes[0].focus({ preventScroll: true });
    this.#timer = setTimeout(() => this.hide(), SHOWN);
  }
}
