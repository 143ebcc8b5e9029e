// The step between "This wasn't me" and its consequences: says what happens
// next, and does nothing unless that is confirmed.

import { at } from './element.js';
import { summaryOf } from './messages.js';

const dialog = at('report');
let asked = '';

// confirmReport asks, and resolves to whether the report is wanted.
export function confirmReport(challenge) {
  asked = challenge.id;
  at('report-what').textContent = summaryOf(challenge);
  at('report-hint').hidden = challenge.method !== 'approve';
  dialog.returnValue = '';
  dialog.showModal();
  at('report-title').focus();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), { once: true });
  });
}

// dropReport closes the question about a challenge that has ended meanwhile,
// or, without an id, whatever it is about.
export function dropReport(id = asked) {
  if (dialog.open && asked === id) dialog.close('');
}
