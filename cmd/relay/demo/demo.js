// The demo panel: asks for the state once a second and shows what is new.

const POLL = 1000; // milliseconds
const at = (id) => document.getElementById(id);

// build makes an element; children are elements or text, never markup.
function build(name, className, ...children) {
  const element = document.createElement(name);
  element.className = className;
  element.append(...children);
  return element;
}

const clock = new Intl.DateTimeFormat('en', { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
const duration = (ms) => `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
const id = (text) => build('p', 'id', text);
const pill = (kind, text) => build('span', `pill ${kind}`, text);
const outcome = (status, text) => pill(status === 200 ? 'good' : 'bad', `${status} ${text}`.trim());
const fault = (text) => (text ? [build('p', 'fault', text)] : []);

// breakable lets a name of many parts wrap between them only.
const breakable = (text) => text.split(/(?<=[._/])/).flatMap((part) => [part, build('wbr', '')]);

function item(time, title, ...rest) {
  const when = build('time', '', clock.format(new Date(time)));
  when.dateTime = time;
  return build('li', '', build('div', 'head', build('h3', '', ...breakable(title)), when), ...rest);
}

function json(summary, value) {
  const text = build('pre', '', JSON.stringify(value, null, 2));
  return summary ? build('details', '', build('summary', '', summary), text) : text;
}

const draw = {
  sent: (s) => item(s.at, s.label,
    build('p', 'line', outcome(s.status, s.answer), ` in ${duration(s.took_ms)}`),
    id(s.type), json('Before sealing', s.payload)),

  phone: (p) => item(p.at, p.title,
    build('p', '', p.body),
    build('p', 'line', ...pushLine(p)),
    ...(p.challenge ? [id(p.challenge)] : []), ...fault(p.fault)),

  issuer: (c) => item(c.at, c.path,
    build('p', 'line', 'answered ', outcome(c.status, '')),
    json('', c.body), id(`Idempotency-Key: ${c.idempotency_key}`), ...fault(c.fault)),

  downstream: (d) => item(d.at, d.type,
    build('p', 'line', pill(d.verified ? 'good' : 'bad', d.verified ? 'signature verified' : 'not verified'), ...(d.attempt > 1 ? [` attempt ${d.attempt}`] : [])),
    id(d.id), ...fault(d.fault)),
};

function pushLine(p) {
  if (p.after_ms) return [pill('good', duration(p.after_ms)), ' from webhook to phone'];
  if (p.silent) return [pill('soft', 'silent'), ' replaces the first one'];
  return [];
}

// show brings a list up to date, newest first. What is there already stays as
// it is, so that nothing that is open closes and no focus is lost.
function show(list, records, drawOne) {
  const keys = records.map((record) => JSON.stringify(record));
  for (const shown of [...list.children]) {
    if (!keys.includes(shown.dataset.key)) shown.remove();
  }
  const known = new Set([...list.children].map((shown) => shown.dataset.key));
  const first = list.dataset.filled === undefined;
  list.dataset.filled = '';
  records.forEach((record, n) => {
    if (known.has(keys[n])) return;
    const element = drawOne(record);
    element.dataset.key = keys[n];
    if (!first) element.className = 'new';
    list.prepend(element);
  });
}

async function refresh() {
  try {
    const response = await fetch('state');
    if (!response.ok) throw new Error(`status ${response.status}`);
    const state = await response.json();
    at('gone').hidden = true;
    at('app').href = state.app;
    at('timer').checked = state.timer;
    for (const name of Object.keys(draw)) show(at(name), state[name], draw[name]);
  } catch {
    at('gone').hidden = false;
  }
}

async function send(button) {
  const response = await fetch(`send/${button.dataset.send}`, { method: 'POST' }).catch(() => null);
  if (response?.ok) {
    const { label, status, answer, took_ms: took } = await response.json();
    at('answer').textContent = `${label}: the relay answered ${status} ${answer} in ${duration(took)}.`;
  } else {
    at('answer').textContent = 'The relay did not answer.';
  }
  refresh();
}

for (const button of document.querySelectorAll('[data-send]')) {
  button.addEventListener('click', () => send(button));
}
at('timer').addEventListener('change', ({ target }) => {
  fetch(`timer/${target.checked ? 'on' : 'off'}`, { method: 'POST' }).then(refresh, refresh);
});
setInterval(() => { if (!document.hidden) refresh(); }, POLL);
document.addEventListener('visibilitychange', () => { if (!document.hidden) refresh(); });
refresh();
