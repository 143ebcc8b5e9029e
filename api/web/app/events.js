// Follows GET /v1/events. EventSource cannot send an Authorization header, so
// the stream is read with fetch and parsed here.

const QUIET = 40_000; // the server comments every 15 s; this much silence is a dead line
const LONGEST_PAUSE = 30_000;

// follow reads events until signal aborts, reconnecting with growing, jittered
// pauses. onEvent gets (name, data); onState gets "live", "reconnecting" or
// "offline"; live means that the line stands and its first event has arrived.
// It rejects only when the token is refused (an ApiError with status 401).
export async function follow(api, { onEvent, onState, signal }) {
  let failures = 0;
  while (!signal.aborted) {
    let wait = 0;
    try {
      await listen(api, signal, (name, data) => {
        if (signal.aborted) return;
        failures = 0;
        onState('live');
        onEvent(name, data);
      });
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 401) throw error;
      wait = (error.retryAfter ?? 0) * 1000;
    }
    if (signal.aborted) return;
    onState(navigator.onLine ? 'reconnecting' : 'offline');
    const backoff = Math.min(1000 * 2 ** failures, LONGEST_PAUSE) * (0.5 + Math.random() / 2);
    failures += 1;
    await pause(Math.max(wait, backoff), signal);
  }
}

// listen reads one connection to its end, which the server announces with bye.
async function listen(api, signal, onEvent) {
  const quiet = new AbortController();
  const giveUp = () => quiet.abort();
  signal.addEventListener('abort', giveUp);
  addEventListener('offline', giveUp);
  let watch = setTimeout(giveUp, QUIET);
  try {
    const response = await api.events(quiet.signal);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const feed = parser((name, data) => name !== 'bye' && onEvent(name, data));
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(watch);
      watch = setTimeout(giveUp, QUIET);
      feed(value);
    }
  } finally {
    clearTimeout(watch);
    removeEventListener('offline', giveUp);
    signal.removeEventListener('abort', giveUp);
    quiet.abort();
  }
}

// parser returns a function that takes the stream in pieces of any size and
// calls onEvent(name, data) for each event, its data read as JSON.
export function parser(onEvent) {
  let rest = '';
  let name = '';
  let data = [];
  const line = (text) => {
    if (text === '') {
      if (data.length > 0) onEvent(name || 'message', JSON.parse(data.join('\n')));
      name = '';
      data = [];
      return;
    }
    const [, field, value] = /^([^:]*)(?:: ?(.*))?$/s.exec(text);
    if (field === 'event') name = value ?? '';
    if (field === 'data') data.push(value ?? '');
  };
  return (piece) => {
    const lines = (rest + piece).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    lines.forEach(line);
  };
}

// pause ends early when the network returns or somebody looks at the page.
function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const ended = new AbortController();
    const end = () => {
      clearTimeout(timer);
      ended.abort();
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    const options = { signal: ended.signal };
    addEventListener('online', end, options);
    document.addEventListener('visibilitychange', () => document.hidden || end(), options);
    signal.addEventListener('abort', end, options);
  });
}
