// The server's clock as seen from here. A phone's clock may be minutes off,
// and what counts is when the server says that time is up.
//
// Each answer bounds the offset: its Date header (whole seconds) was written
// at some moment between sending and receiving. The bounds of many answers
// are intersected, which soon gives well under a second.

let low = -Infinity;
let high = Infinity;

// observe takes in one answer: its Date header and the local times, in
// milliseconds, of sending the request and receiving the headers.
export function observe(dateHeader, sent, received) {
  const written = Date.parse(dateHeader ?? '');
  if (Number.isNaN(written)) return;
  const from = written - received;
  const to = written + 1000 - sent;
  const clockWasSet = from > high || to < low;
  low = clockWasSet ? from : Math.max(low, from);
  high = clockWasSet ? to : Math.min(high, to);
}

// now returns the server's time in milliseconds since the epoch.
export function now() {
  return Date.now() + (Number.isFinite(low) ? (low + high) / 2 : 0);
}
