// The few things that every part of the page does with the document.

export const at = (id) => document.getElementById(id);

// element makes one. Children that are strings go in as text, never as markup.
export function element(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// say leaves an unchanged text alone: a live region would be read out again.
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// announce has a text read out by a screen reader, once, without moving the focus.
export function announce(text) {
  at('announce').textContent = text;
}
