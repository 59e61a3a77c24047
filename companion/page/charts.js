// The charts: one figure each, drawn by uPlot, with a legend of text that says the same in words.
// In: the history's points. Out: figures in the document. Colours come from the style sheet.

/* global uPlot */
import { clock, percent, plain, seconds } from "./format.js";

const NO_POOL = "no pool is configured";
/** Charts in order: title, unit as text, lines as [label, value of a point], and why there may be none. */
const CHARTS = [
  { title: "Requests a second", say: plain, lines: [["requests", (p) => p.requests], ["errors", (p) => p.errors]] },
  { title: "Tokens a second", say: plain, lines: [["input", (p) => p.input], ["output", (p) => p.output]] },
  { title: "Time to first token", say: seconds, lines: [["half below", (p) => p.ttft50], ["95 % below", (p) => p.ttft95]] },
  { title: "Request duration", say: seconds, lines: [["half below", (p) => p.duration50], ["95 % below", (p) => p.duration95]] },
  { title: "Running requests", say: plain, lines: [["through Envoy", (p) => p.running], ["mean of an endpoint", (p) => p.poolRunning]] },
  { title: "Queue of an endpoint", say: plain, none: NO_POOL, lines: [["mean", (p) => p.queue], ["longest", (p) => p.longest]] },
  { title: "KV cache use", say: percent, top: 1, none: NO_POOL, lines: [["mean", (p) => p.cache], ["fullest", (p) => p.fullest]] },
  { title: "Held by flow control, by priority", say: plain, none: "flow control is off, or has held nothing", lines: null },
];
const HEIGHT = 150;

/** All figures; built once, drawn with every reading. */
export class Charts {
  constructor(place) {
    this.charts = CHARTS.map((chart, index) => build(place, chart, index));
    new ResizeObserver(() => this.charts.forEach(resize)).observe(place);
  }

  /** Draws the history. */
  draw(history) {
    for (const chart of this.charts) {
      const lines = chart.lines ?? history.priorities().map((key) => [`priority ${key}`, (p) => p.held?.get(key)]);
      const value = (point, read) => read(point) ?? null;
      const times = history.points.map((point) => point.time / 1000);
      const data = [times, ...lines.map(([, read]) => history.points.map((point) => value(point, read)))];
      const named = lines.map(([label]) => label);
      chart.empty.hidden = data.slice(1).some((line) => line.some((one) => one !== null));
      if (String(named) !== String(chart.named) || !chart.plot) remake(chart, named, data);
      else chart.plot.setData(data);
      say(chart, null);
    }
  }

  /** Makes every plot anew, with the colours of the other theme. */
  recolour(history) {
    for (const chart of this.charts) chart.named = null;
    this.draw(history);
  }
}

function build(place, chart, index) {
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  caption.id = `chart-${index}`;
  caption.textContent = chart.title;
  const canvas = document.createElement("div");
  canvas.className = "plot";
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-labelledby", `chart-${index} legend-${index}`);
  const empty = document.createElement("p");
  empty.className = "empty";
  empty.textContent = chart.none ?? "no data yet";
  const legend = document.createElement("ul");
  legend.className = "legend";
  legend.id = `legend-${index}`;
  figure.append(caption, canvas, empty, legend);
  place.append(figure);
  const made = { ...chart, figure, canvas, empty, legend, named: null, plot: null };
  canvas.addEventListener("keydown", (event) => step(made, event));
  canvas.addEventListener("blur", () => say(made, null));
  return made;
}

function remake(chart, named, data) {
  chart.plot?.destroy();
  chart.named = named;
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--grid"), width: 1 }, ticks: { show: false } };
  const text = `11px ${getComputedStyle(document.body).fontFamily}`;
  chart.legend.replaceChildren(...named.map((label, turn) => legendItem(label, turn)));
  chart.plot = new uPlot({
    width: chart.canvas.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
    scales: { y: { range: (_, low, high) => [0, chart.top ?? Math.max(high * 1.1, low, 1e-3)] } },
    axes: [
      { ...axis, font: text, size: 30, space: 80, values: (_, ticks) => ticks.map((tick) => clock(tick * 1000)) },
      { ...axis, font: text, size: 56, space: 28, values: (_, ticks) => ticks.map((tick) => chart.say(tick)) },
    ],
    series: [{}, ...named.map((label, turn) => ({
      label,
      stroke: colour(`--line-${turn % 6}`),
      width: 2,
      // A second sign beside the colour.
      dash: turn % 2 === 1 ? [6, 3] : undefined,
      points: { show: (plot) => plot.data[0].length < 3 },
      spanGaps: false,
    }))],
    hooks: { setCursor: [(plot) => say(chart, plot.cursor.idx ?? null)] },
  }, data, chart.canvas);
}

function legendItem(label, turn) {
  const item = document.createElement("li");
  const swatch = document.createElement("span");
  swatch.className = `swatch line-${turn % 6}${turn % 2 === 1 ? " dashed" : ""}`;
  const value = document.createElement("b");
  item.append(swatch, `${label} `, value);
  return item;
}

/** Writes the values at a point, or the last ones, into the legend. */
function say(chart, index) {
  if (!chart.plot || !chart.named) return;
  const times = chart.plot.data[0];
  const at = index ?? times.length - 1;
  [...chart.legend.children].forEach((item, turn) => {
    const value = chart.plot.data[turn + 1]?.[at] ?? null;
    item.lastChild.textContent = chart.say(value);
  });
  chart.legend.dataset.at = index === null || times[at] === undefined ? "" : clock(times[at] * 1000);
}

function step(chart, event) {
  const times = chart.plot?.data[0] ?? [];
  const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -15, PageDown: 15, Home: -Infinity, End: Infinity }[event.key];
  if (by === undefined || times.length === 0) return;
  event.preventDefault();
  const from = chart.plot.cursor.idx ?? times.length - 1;
  const to = Math.min(times.length - 1, Math.max(0, from + by));
  chart.plot.setCursor({ left: chart.plot.valToPos(times[to], "x"), top: 0 });
}

function resize(chart) {
  const width = chart.canvas.clientWidth;
  if (chart.plot && width > 0 && width !== chart.plot.width) chart.plot.setSize({ width, height: HEIGHT });
}
