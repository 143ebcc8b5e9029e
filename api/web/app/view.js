// Shows one challenge as an article. All text from outside goes in as text,
// never as markup.

import { announce, at, say } from './element.js';
import { formatAgo, formatAmount, formatCountry, formatLeft, formatTime } from './format.js';
import { t, translate } from './lang.js';
import { askOf, outcome, outcomeOf, summaryOf, titleOf } from './messages.js';
import { Secret } from './secret.js';

const HURRY = 30_000;
const SPOKEN = [[60_000, 'challenge.minute_left'], [10_000, 'challenge.seconds_left']];
const SLOW = 5_000; // after this long, the bank is said to be slow

// isLive tells whether the challenge still asks for something or is on its way.
export const isLive = ({ status }) => status === 'pending' || status === 'confirming';

// ChallengeView is the article of one challenge. onAct(action, view) is called
// for the buttons: approve, reject, not_me, show_code, open_link, done,
// add_passkey. now() is the server's time in milliseconds.
export class ChallengeView {
  #parts = {};
  #buttons;
  #secret;
  #now;
  #busy = false;
  #offline = false;
  #sentAt = 0; // when a decision was pressed here; 0 while none is on its way
  #asking = false; // for the passkey
  #error = '';
  #lacksPasskey = false;
  #revealed = false;
  #left = Infinity;
  #elsewhere = false;

  constructor(challenge, { onAct, now }) {
    this.#now = now;
    this.article = at('card').content.firstElementChild.cloneNode(true);
    translate(this.article);
    for (const node of this.article.querySelectorAll('[data-part]')) this.#parts[node.dataset.part] = node;
    this.#buttons = [...this.article.querySelectorAll('[data-act]')];
    for (const button of this.#buttons) {
      button.addEventListener('click', () => this.#busy || onAct(button.dataset.act, this));
    }
    this.#secret = new Secret(this.#parts.secret, () => this.#focus());
    this.#name(challenge.id);
    this.update(challenge);
  }

  // update takes in a newer state of the same challenge.
  update(challenge) {
    this.challenge = challenge;
    this.#fill();
    this.#refresh();
  }

  // shown is what stands on the screen, for approve to echo: the approval is
  // bound to exactly this amount and payee (PSD2 RTS, article 5).
  get shown() {
    const { amount, payee } = this.challenge;
    return { amount: amount?.value, currency: amount?.currency ?? undefined, payee: payee?.name ?? undefined };
  }

  // answeredElsewhere says that it was not this page that answered.
  answeredElsewhere() {
    this.#elsewhere = true;
    this.#refresh();
  }

  // asking says that the passkey is waited for: nothing has been sent yet.
  asking() {
    this.#asking = true;
    this.busy = true;
  }

  // sending says that a decision is on its way; it claims no more than that.
  sending() {
    this.#asking = false;
    this.#sentAt = this.#now();
    this.busy = true;
  }

  // blocked tells whether too many passkeys were refused: only a rejection is left.
  get blocked() {
    const { status, step_up: stepUp } = this.challenge;
    return status === 'pending' && Boolean(stepUp?.blocked);
  }

  // busy blocks the buttons while a call is under way.
  set busy(busy) {
    this.#busy = busy;
    if (!busy) this.#sentAt = 0;
    if (!busy) this.#asking = false;
    this.#refresh();
  }

  get busy() {
    return this.#busy;
  }

  // offline dims the buttons: without a connection nothing can be decided.
  set offline(offline) {
    this.#offline = offline;
    this.#offer();
  }

  set error(text) {
    this.#error = text;
    this.#lacksPasskey = false;
    this.#refresh();
    this.#parts.error.scrollIntoView({ block: 'nearest' });
  }

  // offerPasskey adds to the error a way to a first passkey.
  offerPasskey() {
    this.#lacksPasskey = true;
    this.#offer();
  }

  showCode(code) {
    this.#reveal();
    this.#secret.showCode(code);
  }

  showLink(url) {
    this.#reveal();
    this.#secret.showLink(url);
  }

  hideSecret() {
    this.#secret.hide();
  }

  // tick brings everything that depends on the time up to date.
  tick() {
    const { timer, left: text, ring, since } = this.#parts;
    const { created_at: created, occurred_at: occurred, expires_at: expires } = this.challenge;
    const left = Date.parse(expires) - this.#now();
    const counting = isLive(this.challenge) && left > 0;
    say(since, formatAgo(occurred ?? created, this.#now()));
    timer.classList.toggle('gone', !counting);
    timer.classList.toggle('hurry', left <= HURRY);
    if (counting) say(text, formatLeft(left));
    const share = Math.min(1, Math.max(0, left / (Date.parse(expires) - Date.parse(created))));
    ring.style.strokeDashoffset = 100 - 100 * share;
    this.#speak(left);
    this.#standing(left);
    if (left <= 0 && this.#left > 0) this.#offer();
    this.#left = left;
  }

  // #speak has the countdown read out at two moments, not every second.
  #speak(left) {
    if (this.challenge.status !== 'pending' || this.#busy) return;
    const due = SPOKEN.find(([moment]) => this.#left > moment && left <= moment);
    if (due && this.#left !== Infinity) announce(t(due[1], { what: summaryOf(this.challenge) }));
  }

  // #standing says how the challenge stands, by its status and the time.
  #standing(left) {
    const { status, decision, expires_at: expires } = this.challenge;
    const sentAt = status === 'confirming' ? Date.parse(decision?.decided_at) : this.#sentAt;
    let stands = outcomeOf(this.challenge);
    if (status === 'pending' && sentAt) stands = outcome('sending');
    else if (status === 'pending' && left <= 0) stands = outcome('time_up');
    if (sentAt && isLive(this.challenge) && this.#now() - sentAt > SLOW) {
      stands = outcome('slow', { time: formatTime(expires) });
    }
    say(this.#parts.result, stands.result);
    say(this.#parts.detail, [this.#elsewhere ? t('outcome.elsewhere') : '', stands.detail].filter(Boolean).join(' '));
  }

  #name(id) {
    const { payee, amount } = this.#parts;
    this.article.id = id;
    payee.id = `${id}-payee`;
    amount.id = `${id}-amount`;
    this.article.setAttribute('aria-labelledby', `${payee.id} ${amount.id}`);
  }

  #fill() {
    const { ask, payee, country, since, amount, value, currency, last4, reference, stepUp } = this.#parts;
    const { challenge } = this;
    say(ask, askOf(challenge));
    say(payee, titleOf(challenge));
    say(country, challenge.payee?.country ? formatCountry(challenge.payee.country) : '');
    since.dateTime = challenge.occurred_at ?? challenge.created_at;
    amount.hidden = !challenge.amount;
    if (challenge.amount) {
      const text = formatAmount(challenge.amount);
      say(value, text);
      // Smaller rather than broken in the middle: it must not be misread.
      amount.classList.toggle('long', text.length > 10);
      amount.classList.toggle('longer', text.length > 16);
      say(currency, challenge.amount.currency ?? '');
    }
    fact(last4, challenge.card?.last4 ? `•••• ${challenge.card.last4}` : '');
    fact(reference, challenge.reference ?? '');
    stepUp.hidden = !challenge.step_up;
  }

  #refresh() {
    this.article.dataset.status = this.challenge.status;
    if (this.challenge.status !== 'pending') this.hideSecret();
    this.tick();
    this.#warn();
    this.#offer();
  }

  // #warn says what went wrong, and what stands in the way of an approval.
  #warn() {
    const { error, stepUp } = this.#parts;
    const text = this.#error || (this.blocked ? t('error.step_up_blocked') : '');
    say(error, text);
    error.hidden = text === '';
    say(stepUp, t(this.#asking ? 'passkey.asking' : 'passkey.needed'));
  }

  #reveal() {
    this.#revealed = true;
    this.#offer();
  }

  // #offer shows the buttons that make sense now. They keep their room when
  // they go. If the focused one goes, the focus moves to the article, so that
  // a keyboard does not start over.
  #offer() {
    const { method, status, expires_at: expires, revealed_at: revealedAt } = this.challenge;
    const open = status === 'pending' && !this.#sentAt && Date.parse(expires) > this.#now();
    const offered = {
      approve: method === 'approve',
      reject: method === 'approve',
      show_code: method === 'otp',
      open_link: method === 'url',
      done: method !== 'approve' && (this.#revealed || Boolean(revealedAt)),
      not_me: true,
      add_passkey: this.#lacksPasskey,
    };
    const focused = this.#buttons.includes(document.activeElement) && document.activeElement;
    this.article.classList.toggle('open', open);
    this.article.classList.toggle('blocked', this.blocked);
    for (const button of this.#buttons) {
      button.hidden = !offered[button.dataset.act];
      const refused = button.dataset.act === 'approve' && this.blocked;
      button.setAttribute('aria-disabled', String(this.#busy || this.#offline || refused));
    }
    if (focused && (!open || focused.hidden)) this.#focus();
  }

  #focus() {
    this.article.focus({ preventScroll: true });
  }
}

function fact(node, text) {
  say(node, text);
  node.parentElement.hidden = text === '';
}
