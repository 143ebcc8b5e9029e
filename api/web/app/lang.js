// The page's language: the first of the browser's that there is a file for.
// One file is loaded, not all.

const FILES = {
  en: new URL('lang/en.json', import.meta.url),
  de: new URL('lang/de.json', import.meta.url),
  fr: new URL('lang/fr.json', import.meta.url),
  es: new URL('lang/es.json', import.meta.url),
  zh: new URL('lang/zh.json', import.meta.url),
};

const base = (tag) => tag.toLowerCase().split('-')[0];

// locale is for Intl: with the region, which decides on separators and the clock.
export const locale = navigator.languages.find((tag) => Object.hasOwn(FILES, base(tag))) ?? 'en';
export const language = base(locale);

const texts = await fetch(FILES[language]).then((answer) => answer.json()).catch((error) => {
  document.getElementById('broken').hidden = false;
  throw error;
});
document.documentElement.lang = language;

// t returns the text of a key, its {placeholders} filled in.
export function t(key, values = {}) {
  return texts[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

// translate fills in what the markup leaves to the language: data-t is the key
// of an element's text, data-t-label that of its accessible name.
export function translate(root) {
  for (const node of root.querySelectorAll('[data-t]')) node.textContent = t(node.dataset.t);
  for (const node of root.querySelectorAll('[data-t-label]')) node.setAttribute('aria-label', t(node.dataset.tLabel));
}
