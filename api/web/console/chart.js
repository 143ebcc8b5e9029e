// The small charts of the overview, drawn by uPlot. Each says in words what it
// shows, for those who cannot see it.

import { element } from './element.js';
import { duration } from './format.js';
import uPlot from './uplot/uPlot.esm.js';

const HEIGHT = 132; // pixels
const STEP = 10; // seconds that a point of the series stands for

const rate = (n) => `${n.toFixed(n < 1 ? 2 : n < 10 ? 1 : 0)}/s`;

// A count becomes a rate, and is zero where the series has a gap; a latency is
// unknown there.
const CHARTS = [
  { title: 'Webhooks', unit: rate, counts: true, lines: [['accepted', 'events', '--accent-ink'], ['refused', 'refused', '--bad']] },
  { title: 'Ends of challenges', unit: rate, counts: true, lines: [['approved', 'approved', '--good'], ['rejected', 'rejected', '--bad'], ['expired', 'expired', '--warn']] },
  { title: 'Webhook to push', unit: duration, lines: [['p50', 'push_p50_ms', '--accent-ink'], ['p99', 'push_p99_ms', '--warn']] },
  { title: 'Decision to issuer', unit: duration, lines: [['p50', 'confirm_p50_ms', '--accent-ink'], ['p99', 'confirm_p99_ms', '--warn']] },
];

// Lines differ by more than their colour.
const DASHES = [[], [6, 3], [2, 3]];

const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// made are the charts, once they have been shown: { figure, place, plot }.
const made = [];

// drawCharts shows the series of the overview in a place that may be new.
export function drawCharts(place, stats) {
  if (!made.length) CHARTS.forEach(make);
  if (!place.firstChild) place.append(...made.map(({ figure }) => figure));
  const window = stats.window_seconds;
  const now = Date.parse(stats.at) / 1000;
  const from = Math.ceil((now - window) / STEP) * STEP;
  const times = Array.from({ length: Math.floor((now - from) / STEP) + 1 }, (_, i) => from + i * STEP);
  const points = new Map(stats.series.map((point) => [Math.floor(Date.parse(point.at) / 1000 / STEP) * STEP, point]));
  CHARTS.forEach(({ title, unit, counts, lines }, i) => {
    const values = lines.map(([, name]) => times.map((time) => {
      const value = points.get(time)?.[name] ?? null;
      return counts ? (value ?? 0) / STEP : value;
    }));
    const { plot, place: image } = made[i];
    plot.setData([times, ...values]);
    const words = lines.map(([name], n) => {
      const known = values[n].filter((value) => value !== null);
      return known.length ? `${name} ${unit(known.at(-1))}, at most ${unit(Math.max(...known))}` : `${name} unknown`;
    });
    image.setAttribute('aria-label', `${title} within ${duration(window * 1000)}: ${words.join('; ')}`);
  });
}

function make(chart) {
  const image = element('div', { class: 'plot', role: 'img' });
  const key = chart.lines.map(([name, , colour], n) => element('span', { class: `key line-${n} colour${colour}` }, name));
  const figure = element('figure', {}, element('figcaption', {}, element('h2', {}, chart.title), ...key), image);
  const plot = new uPlot(options(chart), [[], ...chart.lines.map(() => [])], image);
  made.push({ figure, place: image, plot });
  new ResizeObserver(([{ contentRect: { width } }]) => width && plot.setSize({ width: Math.floor(width), height: HEIGHT })).observe(image);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => plot.redraw(false));
}

const options = ({ unit, lines }) => {
  const axis = { stroke: () => token('--soft'), font: '11px system-ui, sans-serif', ticks: { show: false } };
  return {
    width: 300, height: HEIGHT, padding: [8, 8, 0, 0],
    legend: { show: false }, cursor: { show: false },
    scales: { y: { range: (plot, least, most) => [0, most > 0 ? most * 1.1 : 1] } },
    axes: [
      { ...axis, grid: { show: false }, space: 70, size: 28, values: (plot, times) => times.map((time) => new Date(time * 1000).toTimeString().slice(0, 5)) },
      { ...axis, grid: { stroke: () => token('--line'), width: 1 }, size: 60, space: 32, values: (plot, values) => values.map((value) => (value === 0 ? '0' : unit(value))) },
    ],
    series: [{}, ...lines.map(([, , colour], n) => ({ stroke: () => token(colour), width: 1.5, dash: DASHES[n], spanGaps: true, points: { size: 4 } }))],
  };
};
