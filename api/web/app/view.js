// Shows one challenge as an article. All text from outside goes in as text,
// never as markup.

import { now } from './clock.js';
import { formatAgo, formatAmount, formatCountry, formatLeft, groupCode } from './format.js';
import { askOf, COPIED, NOT_COPIED, outcomeOf, SENDING, TIME_IS_UP, titleOf } from './messages.js';

const SECRET_SHOWN = 30_000;
const HURRY = 10_000; // an answer in the last seconds may not reach the issuer in time

// isLive tells whether the challenge still asks for something or is on its way.
export const isLive = ({ status }) => status === 'pending' || status === 'confirming';

// ChallengeView is the article of one challenge. onAct(action, view) is called
// for the buttons: approve, reject, not_me, show_code, open_link, done.
export class ChallengeView {
  #parts;
  #busy = false;
  #revealed = false;
  #secretTimer = 0;

  constructor(challenge, onAct) {
    this.#parts = build(challenge.id, (action) => this.#busy || onAct(action, this));
    this.article = this.#parts.article;
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
    return { amount: amount?.value, currency: amount?.currency, payee: payee?.name };
  }

  // busy blocks the buttons while a call is under way.
  set busy(busy) {
    this.#busy = busy;
    this.#refresh();
  }

  // sending says that a decision is on its way; it claims no more than that.
  sending() {
    this.error = '';
    this.#busy = true;
    this.#refresh();
    say(this.#parts.outcome, SENDING);
  }

  set error(text) {
    say(this.#parts.error, text);
    this.#parts.error.hidden = text === '';
  }

  // showCode shows a one-time code for half a minute, or until the tab is left.
  showCode(code) {
    const copied = element('span', { class: 'copied', 'aria-live': 'polite' });
    const copy = element('button', { type: 'button', class: 'button' }, 'Copy code');
    copy.addEventListener('click', async () => {
      try {
        await navigator.clipboard.writeText(code);
        say(copied, COPIED);
      } catch {
        say(copied, NOT_COPIED);
      }
    });
    const groups = groupCode(code).map((group) => element('span', {}, group));
    const label = `One-time code ${[...code].join(' ')}`;
    this.#showSecret(
      element('p', { class: 'code', role: 'group', 'aria-label': label, tabindex: '-1' }, ...groups),
      element('div', { class: 'copy' }, copy, copied),
    );
  }

  // showLink offers the bank's page as a link too, for browsers that refuse to
  // open a tab after a network call.
  showLink(url) {
    const attributes = { href: url.href, target: '_blank', rel: 'noopener noreferrer', class: 'link' };
    this.#showSecret(element('a', attributes, `Continue at ${url.host}`));
  }

  hideSecret() {
    const { article, secret } = this.#parts;
    clearTimeout(this.#secretTimer);
    if (secret.contains(document.activeElement)) article.focus({ preventScroll: true });
    secret.replaceChildren();
    secret.hidden = true;
  }

  // tick brings everything that depends on the time up to date.
  tick() {
    const { timer, fill, since, article, outcome } = this.#parts;
    const { status, created_at: created, expires_at: expires } = this.challenge;
    const left = Date.parse(expires) - now();
    say(since, formatAgo(this.challenge.occurred_at ?? created, now()));
    const counting = isLive(this.challenge) && left > 0;
    timer.hidden = !counting;
    article.classList.toggle('hurry', counting && left <= HURRY);
    if (counting) say(timer, `${formatLeft(left)} left`);
    const share = Math.min(1, Math.max(0, left / (Date.parse(expires) - Date.parse(created))));
    fill.style.transform = `scaleX(${isLive(this.challenge) ? share : 0})`;
    if (status === 'pending' && left <= 0 && !this.#busy) {
      say(outcome, TIME_IS_UP);
      this.#offer();
    }
  }

  #fill() {
    const { ask, payee, place, amount, last4, reference } = this.#parts;
    const challenge = this.challenge;
    say(ask, askOf(challenge));
    say(payee, titleOf(challenge));
    say(place, challenge.payee?.country ? formatCountry(challenge.payee.country) : '');
    amount.hidden = !challenge.amount;
    if (challenge.amount) {
      amount.replaceChildren(
        formatAmount(challenge.amount),
        ' ',
        element('span', { class: 'currency' }, challenge.amount.currency),
      );
    }
    fact(last4, challenge.card?.last4 ? `•••• ${challenge.card.last4}` : '');
    fact(reference, challenge.reference ?? '');
  }

  #refresh() {
    const { article, outcome } = this.#parts;
    article.dataset.status = this.challenge.status;
    if (this.challenge.status !== 'pending') this.hideSecret();
    this.tick();
    if (this.challenge.status !== 'pending' || Date.parse(this.challenge.expires_at) > now()) {
      say(outcome, outcomeOf(this.challenge));
    }
    this.#offer();
  }

  // #offer shows the buttons that make sense now. If the focused one goes, the
  // focus moves to the article, so that a keyboard does not start over.
  #offer() {
    const { article, buttons, actions } = this.#parts;
    const { method, status, expires_at: expires, revealed_at: revealedAt } = this.challenge;
    const open = status === 'pending' && Date.parse(expires) > now();
    const revealed = this.#revealed || Boolean(revealedAt);
    const offered = {
      approve: method === 'approve',
      reject: method === 'approve',
      show_code: method === 'otp',
      open_link: method === 'url',
      done: method !== 'approve' && revealed,
      not_me: true,
    };
    const focused = document.activeElement;
    actions.hidden = !open;
    for (const [action, button] of Object.entries(buttons)) {
      button.hidden = !open || !offered[action];
      button.setAttribute('aria-disabled', String(this.#busy));
    }
    if (Object.values(buttons).includes(focused) && (focused.hidden || actions.hidden)) article.focus({ preventScroll: true });
  }

  #showSecret(...nodes) {
    const { secret } = this.#parts;
    this.hideSecret();
    this.#revealed = true;
    this.#offer();
    secret.replaceChildren(...nodes);
    secret.hidden = false;
    nodes[0].focus({ preventScroll: true });
    this.#secretTimer = setTimeout(() => this.hideSecret(), SECRET_SHOWN);
  }
}

function build(id, onAct) {
  const button = (name, action, style) => {
    const node = element('button', { type: 'button', class: `button ${style}` }, name);
    node.addEventListener('click', () => onAct(action));
    return node;
  };
  const parts = {
    fill: element('div', { class: 'bar-fill' }),
    ask: element('p', { class: 'ask' }),
    timer: element('p', { class: 'timer', role: 'timer', hidden: '' }),
    payee: element('bdi', {}),
    place: element('p', { class: 'place' }),
    amount: element('p', { class: 'amount', id: `${id}-amount` }),
    last4: element('dd', {}),
    reference: element('dd', {}),
    since: element('dd', {}),
    secret: element('div', { class: 'secret', hidden: '' }),
    error: element('p', { class: 'error', role: 'alert', hidden: '' }),
    outcome: element('p', { class: 'outcome', role: 'status' }),
    buttons: {
      reject: button('Reject', 'reject', 'plain'),
      approve: button('Approve', 'approve', 'primary'),
      show_code: button('Show code', 'show_code', 'primary'),
      open_link: button('Open link', 'open_link', 'primary'),
      done: button('Done', 'done', 'plain'),
      not_me: button('This wasn\'t me', 'not_me', 'quiet'),
    },
  };
  parts.actions = element('div', { class: 'actions' }, ...Object.values(parts.buttons));
  parts.article = element('article',
    { class: 'challenge', tabindex: '-1', id, 'aria-labelledby': `${id}-payee ${id}-amount` },
    element('div', { class: 'bar', 'aria-hidden': 'true' }, parts.fill),
    element('div', { class: 'head' }, parts.ask, parts.timer),
    element('h3', { class: 'payee', id: `${id}-payee` }, parts.payee),
    parts.place,
    parts.amount,
    element('dl', { class: 'facts' },
      element('div', {}, element('dt', {}, 'Card'), parts.last4),
      element('div', {}, element('dt', {}, 'Reference'), parts.reference),
      element('div', {}, element('dt', {}, 'Asked'), parts.since)),
    parts.secret, parts.outcome, parts.error, parts.actions);
  return parts;
}

function fact(node, text) {
  say(node, text);
  node.parentElement.hidden = text === '';
}

// say leaves an unchanged text alone: a live region would be read out again.
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function element(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}
