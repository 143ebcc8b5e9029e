// Turns the API's values into text, by Intl, in the page's language.

import { locale, t } from './lang.js';

// once makes what is expensive to make (tens of milliseconds on a phone) when it
// is needed first, and keeps it.
function once(make) {
  let made;
  return () => (made ??= make());
}

const regions = once(() => new Intl.DisplayNames([locale], { type: 'region' }));
const relative = once(() => new Intl.RelativeTimeFormat(locale, { numeric: 'auto' }));
const clock = once(() => new Intl.DateTimeFormat(locale, { timeStyle: 'short' }));
const day = once(() => new Intl.DateTimeFormat(locale, { day: 'numeric', month: 'short', hour: 'numeric', minute: '2-digit' }));
const whole = once(() => new Intl.NumberFormat(locale));
const decimalSign = once(() => whole().formatToParts(1.5).find(({ type }) => type === 'decimal').value);

// formatAmount returns a decimal string with grouping and the decimals its
// currency usually has; more, where the value has more: nothing of what will
// be approved may be rounded away. The string never becomes a float.
export function formatAmount({ value, currency }) {
  const [, sign, integer, given = ''] = /^(-?)(\d+)(?:\.(\d+))?$/.exec(value) ?? [];
  if (integer === undefined) return value;
  const decimals = given.padEnd(usualDecimals(currency) ?? given.length, '0');
  return sign + whole().format(BigInt(integer)) + (decimals && decimalSign() + decimals);
}

function usualDecimals(currency) {
  try {
    return new Intl.NumberFormat(locale, { style: 'currency', currency }).resolvedOptions().maximumFractionDigits;
  } catch {
    return undefined; // not a currency code: the value keeps the decimals it came with
  }
}

// formatCountry names an ISO 3166-1 code; anything else stays as it is.
export function formatCountry(code) {
  try {
    return regions().of(code);
  } catch {
    return code;
  }
}

// formatAgo says how long before now (milliseconds) an RFC 3339 time was.
export function formatAgo(time, now) {
  const seconds = Math.max(0, Math.round((now - Date.parse(time)) / 1000));
  if (seconds < 45) return t('challenge.just_now');
  if (seconds < 45 * 60) return relative().format(-Math.max(1, Math.round(seconds / 60)), 'minute');
  if (seconds < 22 * 3600) return relative().format(-Math.max(1, Math.round(seconds / 3600)), 'hour');
  return relative().format(-Math.max(1, Math.round(seconds / 86400)), 'day');
}

// formatTime gives the time of day of a date or of milliseconds.
export const formatTime = (time) => clock().format(new Date(time));

// formatDay gives day and time of a date.
export const formatDay = (time) => day().format(new Date(time));

// formatLeft turns milliseconds into m:ss, rounded up so that 0:00 is the end.
export function formatLeft(milliseconds) {
  const seconds = Math.max(0, Math.ceil(milliseconds / 1000));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
}

// groupCode splits a code into even groups of at most four, longer ones first.
export function groupCode(code) {
  const groups = [];
  for (let at = 0, left = Math.ceil(code.length / 4); left > 0; left -= 1) {
    const size = Math.ceil((code.length - at) / left);
    groups.push(code.slice(at, at + size));
    at += size;
  }
  return groups;
}
