// The two lists of challenges on the page: what waits, and what has ended.

import { announce, at } from './element.js';
import { t } from './lang.js';
import { summaryOf } from './messages.js';
import { ChallengeView, isLive } from './view.js';

const OVERDUE = 3000; // how long after its end the server may take to say that a challenge expired
const ORDER = { pending: 0, confirming: 1 };

const order = ({ status }) => ORDER[status] ?? 2;

export class Queue {
  #views = new Map(); // challenge id -> ChallengeView
  #asked = new Map(); // challenge id -> when its overdue end was asked for
  #mine = new Set(); // ids of what was answered here
  #now = Date.now;
  #offline = false;
  #on;

  // on.act(action, view) carries out a button, on.overdue(id) fetches the end
  // of a challenge, on.ended(id) hears of it, on.change(waiting) is called
  // after every change with the number of those that wait.
  constructor(on) {
    this.#on = on;
  }

  // clear begins a new session; now() is the server's time.
  clear(now) {
    for (const view of this.#views.values()) view.hideSecret();
    this.#views.clear();
    this.#asked.clear();
    this.#mine.clear();
    this.#now = now;
    at('queue').replaceChildren();
    at('recent').replaceChildren();
    this.#changed();
  }

  set offline(offline) {
    this.#offline = offline;
    for (const view of this.#views.values()) view.offline = offline;
  }

  get(id) {
    return this.#views.get(id);
  }

  // claim remembers that the answer comes from here, for as long as it holds.
  claim(id, holds = true) {
    if (holds) this.#mine.add(id);
    else this.#mine.delete(id);
  }

  // take shows a challenge, new or changed. Answers may overtake each other,
  // and a challenge never goes back, so an earlier status is old.
  take(challenge, isNews) {
    const view = this.#views.get(challenge.id);
    if (!view) this.#add(challenge, isNews);
    else if (order(challenge) >= order(view.challenge)) this.#update(view, challenge);
    this.#changed();
  }

  // takePending takes in all that is pending now, and asks for the end of what
  // is shown as pending but is not in it.
  takePending(pending, isNews) {
    const ids = new Set(pending.map(({ id }) => id));
    for (const [id, view] of this.#views) {
      if (isLive(view.challenge) && !ids.has(id)) this.#on.overdue(id);
    }
    // Newest first in the answer; the one with the least time left on top here.
    for (const challenge of [...pending].reverse()) this.take(challenge, isNews);
  }

  forget(id) {
    const view = this.#views.get(id);
    if (!view) return;
    this.#moving(view);
    view.article.remove();
    this.#views.delete(id);
    this.#on.ended(id);
    this.#changed();
  }

  tick() {
    const now = this.#now();
    for (const view of this.#views.values()) {
      view.tick();
      const { id, status, expires_at: expires } = view.challenge;
      if (status === 'pending' && now > Math.max(Date.parse(expires), this.#asked.get(id) ?? 0) + OVERDUE) {
        this.#asked.set(id, now);
        this.#on.overdue(id);
      }
    }
  }

  // leave is called when nobody looks any more.
  leave() {
    for (const view of this.#views.values()) view.hideSecret();
    this.#putAway();
    this.#changed();
  }

  point(id) {
    const { article } = this.#views.get(id);
    article.scrollIntoView({ block: 'center' });
    article.focus({ preventScroll: true });
  }

  #add(challenge, isNews) {
    const view = new ChallengeView(challenge, { onAct: this.#on.act, now: () => this.#now() });
    view.offline = this.#offline;
    if (isLive(challenge)) {
      if ([...this.#views.values()].every((other) => !isLive(other.challenge))) this.#putAway();
      // At the end: nothing may move under a finger that is about to approve.
      at('queue').append(view.article);
      if (isNews) announce(t('challenge.new', { what: summaryOf(challenge) }));
    }
    this.#views.set(challenge.id, view);
    if (!isLive(challenge)) this.#putInRecent(view);
  }

  #update(view, challenge) {
    const { id, decision } = challenge;
    const answered = view.challenge.status === 'pending' && challenge.status !== 'pending' && decision;
    view.update(challenge);
    if (answered && !this.#mine.has(id)) view.answeredElsewhere();
    if (challenge.status !== 'pending') this.#on.ended(id);
  }

  // #putAway moves what has ended to the recent ones. It runs only when nothing
  // else can be pressed or nobody looks, because the page moves by it.
  #putAway() {
    for (const view of this.#views.values()) {
      if (isLive(view.challenge) || view.article.parentElement !== at('queue')) continue;
      this.#moving(view);
      this.#putInRecent(view);
    }
  }

  // #moving keeps the focus where it can be found when its article goes.
  #moving({ article }) {
    if (article.contains(document.activeElement)) at('waiting-title').focus({ preventScroll: true });
  }

  #putInRecent(view) {
    const created = Date.parse(view.challenge.created_at);
    const isOlder = ({ id }) => Date.parse(this.#views.get(id).challenge.created_at) < created;
    at('recent').insertBefore(view.article, [...at('recent').children].find(isOlder) ?? null);
  }

  #changed() {
    const waiting = [...this.#views.values()].filter(({ challenge }) => challenge.status === 'pending').length;
    at('recent-section').hidden = at('recent').childElementCount === 0;
    this.#on.change(waiting);
  }
}
