// Brings a part of the document up to date and touches only what differs, so
// that a page that redraws itself loses neither the focus nor a selection.

// morph makes old equal to next. Listeners are no part of it: they are set on
// what holds the page.
export function morph(old, next) {
  if (old.isEqualNode(next)) return;
  if (old.nodeName !== next.nodeName) {
    old.replaceWith(next);
    return;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    old.data = next.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!next.hasAttribute(name) && name !== 'open') old.removeAttribute(name); // a reader has opened it
  }
  for (const { name, value } of next.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  if (old.hasAttribute('data-drawn')) return; // a script draws what is in it
  const [before, after] = [[...old.childNodes], [...next.childNodes]];
  after.forEach((child, i) => (before[i] ? morph(before[i], child) : old.append(child)));
  for (const child of before.slice(after.length)) child.remove();
}
