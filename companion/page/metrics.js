// A metrics page as numbers.
// In: Prometheus' text format. Out: samples, sums, buckets, quantiles. Never: the network, the document.

const ESCAPES = { n: "\n", "\\": "\\", '"': '"' };

/** Reads a page: a Map from metric name to its samples, each { labels: Map, value }. Lines that it cannot read are left out. */
export function parse(text) {
  const page = new Map();
  for (const line of text.split("\n")) {
    if (line === "" || line.startsWith("#")) continue;
    const sample = readLine(line);
    if (!sample) continue;
    const known = page.get(sample.name);
    if (known) known.push(sample);
    else page.set(sample.name, [sample]);
  }
  return page;
}

function readLine(line) {
  const brace = line.indexOf("{");
  const space = line.indexOf(" ");
  const labels = new Map();
  let name;
  let rest;
  if (brace >= 0 && (space < 0 || brace < space)) {
    name = line.slice(0, brace);
    const end = readLabels(line, brace + 1, labels);
    if (end < 0) return null;
    rest = line.slice(end);
  } else {
    if (space < 0) return null;
    name = line.slice(0, space);
    rest = line.slice(space);
  }
  const value = number(rest.trim().split(/\s+/)[0]);
  return value === null ? null : { name, labels, value };
}

/** Reads `key="value",…}` from `at`; gives the place after the brace, or -1. */
function readLabels(line, at, labels) {
  while (at < line.length) {
    if (line[at] === "}") return at + 1;
    if (line[at] === ",") {
      at += 1;
      continue;
    }
    const equals = line.indexOf('="', at);
    if (equals < 0) return -1;
    const key = line.slice(at, equals).trim();
    let value = "";
    at = equals + 2;
    while (at < line.length && line[at] !== '"') {
      if (line[at] === "\\") {
        at += 1;
        value += ESCAPES[line[at]] ?? line[at] ?? "";
      } else {
        value += line[at];
      }
      at += 1;
    }
    if (at >= line.length) return -1;
    labels.set(key, value);
    at += 1;
  }
  return -1;
}

function number(text) {
  if (text === "+Inf") return Infinity;
  if (text === "-Inf") return -Infinity;
  const value = Number(text);
  return text === undefined || text === "" || Number.isNaN(value) ? null : value;
}

/** Sum over all samples that `want` lets through; null if there is none. */
export function sum(page, name, want = () => true) {
  let total = null;
  for (const { labels, value } of page.get(name) ?? []) {
    if (want(labels)) total = (total ?? 0) + value;
  }
  return total;
}

/** Sums by the value of one label: a Map. */
export function sumBy(page, name, key) {
  const found = new Map();
  for (const { labels, value } of page.get(name) ?? []) {
    const group = labels.get(key) ?? "";
    found.set(group, (found.get(group) ?? 0) + value);
  }
  return found;
}

/** Greatest value over all samples; null if there is none. */
export function max(page, name) {
  const values = (page.get(name) ?? []).map((sample) => sample.value);
  return values.length > 0 ? Math.max(...values) : null;
}

/** Mean over all samples; null if there is none. */
export function mean(page, name) {
  const samples = page.get(name) ?? [];
  return samples.length > 0 ? samples.reduce((total, sample) => total + sample.value, 0) / samples.length : null;
}

/** Cumulative buckets of a histogram, summed over the samples that `want` lets through: a Map from bound to count. */
export function buckets(page, family, want = () => true) {
  const found = new Map();
  for (const { labels, value } of page.get(`${family}_bucket`) ?? []) {
    const bound = number(labels.get("le"));
    if (bound !== null && want(labels)) found.set(bound, (found.get(bound) ?? 0) + value);
  }
  return found;
}

/** Quantile by Prometheus' rule: linear inside its bucket, the last finite bound beyond it; null without observations. */
export function quantile(cumulative, q) {
  const sorted = [...cumulative].sort((a, b) => a[0] - b[0]);
  const total = sorted.length > 0 ? sorted[sorted.length - 1][1] : 0;
  if (!(total > 0)) return null;
  const rank = q * total;
  let below = 0;
  let before = 0;
  for (const [bound, count] of sorted) {
    if (count >= rank) {
      if (bound === Infinity) return below;
      return count > before ? below + ((bound - below) * (rank - before)) / (count - before) : bound;
    }
    below = bound;
    before = count;
  }
  return below;
}
