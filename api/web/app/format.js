// Turns the API's values into text. All of it is English for now.

const LANGUAGE = 'en';
const regions = new Intl.DisplayNames([LANGUAGE], { type: 'region' });
const relative = new Intl.RelativeTimeFormat(LANGUAGE, { numeric: 'auto' });

// formatAmount returns a decimal string with grouping and the decimals its
// currency usually has; more, where the value has more: nothing of what will
// be approved may be rounded away. The string never becomes a float.
export function formatAmount({ value, currency }) {
  const given = (value.split('.')[1] ?? '').length;
  let usual = given;
  try {
    usual = new Intl.NumberFormat(LANGUAGE, { style: 'currency', currency }).resolvedOptions().maximumFractionDigits;
  } catch {
    // Not a currency code: the value is shown with the decimals it came with.
  }
  const digits = Math.max(given, usual);
  const format = new Intl.NumberFormat(LANGUAGE, { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const text = format.format(value);
  return text === 'NaN' ? value : text;
}

// formatCountry names an ISO 3166-1 code; anything else stays as it is.
export function formatCountry(code) {
  try {
    return regions.of(code);
  } catch {
    return code;
  }
}

// formatAgo says how long before now (milliseconds) an RFC 3339 time was.
export function formatAgo(time, now) {
  const seconds = Math.max(0, Math.round((now - Date.parse(time)) / 1000));
  if (seconds < 45) return 'just now';
  if (seconds < 45 * 60) return relative.format(-Math.max(1, Math.round(seconds / 60)), 'minute');
  if (seconds < 22 * 3600) return relative.format(-Math.max(1, Math.round(seconds / 3600)), 'hour');
  return relative.format(-Math.max(1, Math.round(seconds / 86400)), 'day');
}

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
