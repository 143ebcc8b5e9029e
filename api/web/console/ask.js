// The question before every action: what will happen, and under which name it
// is logged.

import { at } from './element.js';
import { session } from './ops.js';

const dialog = at('ask');

// ask resolves to whether it is wanted. danger marks what cannot be taken back.
export function ask({ title, text, yes, danger = false }) {
  at('ask-title').textContent = title;
  at('ask-text').textContent = text;
  at('ask-yes').textContent = yes;
  at('ask-yes').className = danger ? 'button danger' : 'button primary';
  at('ask-name').value = session.name;
  dialog.returnValue = '';
  dialog.showModal();
  at(session.name ? 'ask-no' : 'ask-name').focus();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      const wanted = dialog.returnValue === 'yes';
      if (wanted) session.name = at('ask-name').value.trim();
      resolve(wanted);
    }, { once: true });
  });
}

at('ask-no').addEventListener('click', () => dialog.close(''));
