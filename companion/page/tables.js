// The numbers and tables beside the charts.
// In: the history. Out: text in the document. Values of labels are set as text, never as HTML.

import { exact, percent, plain, seconds } from "./format.js";

const NUMBERS = [
  ["Requests / s", (p) => plain(p.requests)],
  ["Output tokens / s", (p) => plain(p.output)],
  ["First token, 95 % below", (p) => seconds(p.ttft95)],
  ["Duration, 95 % below", (p) => seconds(p.duration95)],
  ["Running", (p) => plain(p.running)],
  ["Queue, mean", (p) => plain(p.queue)],
  ["KV cache, mean", (p) => percent(p.cache)],
  ["Ready endpoints", (p) => plain(p.ready)],
];

const MODELS = [
  ["Model", (row) => row.model],
  ["Requests", (row) => exact(row.requests)],
  ["/ s", (row) => plain(row.rate)],
  ["Errors", (row) => exact(row.errors ?? 0)],
  ["Failed", (row) => (row.ended ? percent((row.errors ?? 0) / row.ended) : "–")],
  ["Running", (row) => exact(row.running)],
  ["Input tokens", (row) => exact(row.input)],
  ["Output tokens", (row) => exact(row.output)],
  ["Out / s", (row) => plain(row.outputRate)],
  ["First token, 95 %", (row) => seconds(row.ttft95)],
  ["Duration, 95 %", (row) => seconds(row.duration95)],
];

const ENDPOINTS = [
  ["Endpoint", (row) => row.name],
  ["Waiting", (row) => exact(row.queue)],
  ["Age of the sample", (row) => seconds(row.age)],
];

const ADAPTERS = [
  ["Adapter", (row) => row.name],
  ["Endpoints that have it", (row) => exact(row.pods)],
  ["As configured", (row) => (row.loaded === null ? "–" : row.loaded === 1 ? "yes" : "no")],
];

/** Writes everything that is not a chart. */
export function write(history) {
  const last = history.last;
  const point = history.points[history.points.length - 1] ?? {};
  const now = last ? { ...point, running: last.all.running, queue: last.pool.queue, cache: last.pool.cache, ready: last.pool.ready } : {};
  const items = NUMBERS.map(([label, read]) => {
    const group = document.createElement("div");
    group.append(element("dt", label), element("dd", read(now)));
    return group;
  });
  document.getElementById("numbers").replaceChildren(...items);
  table("models", MODELS, history.topModels(), "No model has been asked for yet: send a request through Envoy.");
  table("endpoints", ENDPOINTS, last?.endpoints ?? [], "No pool is configured, or it has no endpoints (pools in tallyd's configuration).");
  table("adapters", ADAPTERS, last?.adapters ?? [], "No endpoint reports a LoRA adapter.");
}

function table(id, columns, rows, empty) {
  const place = document.getElementById(id);
  if (place.tHead.rows.length === 0) {
    const head = place.tHead.insertRow();
    for (const [label] of columns) {
      const cell = element("th", label);
      cell.scope = "col";
      head.append(cell);
    }
  }
  const body = rows.map((row) => {
    const line = document.createElement("tr");
    columns.forEach(([, read], turn) => {
      const cell = element(turn === 0 ? "th" : "td", read(row));
      if (turn === 0) cell.scope = "row";
      line.append(cell);
    });
    return line;
  });
  if (body.length === 0) {
    const line = document.createElement("tr");
    const cell = element("td", empty);
    cell.colSpan = columns.length;
    cell.className = "empty";
    line.append(cell);
    body.push(line);
  }
  place.tBodies[0].replaceChildren(...body);
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}
