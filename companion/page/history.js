// What was read over time, and what it means: rates, quantiles of the last half minute, series to draw.
// In: pages with their times. Out: numbers. Never: the network, the document. All memory is bounded by the caps below.

import { buckets, max, mean, quantile, sum, sumBy } from "./metrics.js";

/** Points that a chart shows: ten minutes at a reading every two seconds. */
export const POINTS = 300;
/** Readings over which rates and quantiles go: half a minute. */
export const WINDOW = 15;
/** Models, priorities and rows that are shown by name. */
export const SHOWN = 10;

const OBJECTIVE = "inference_objective_";
const FLOW = "inference_extension_flow_control_";
const POOL = "inference_pool_";

/** Growth of a counter. Not there before: unknown, so none. A smaller value: it began anew from zero. */
export function growth(before, now) {
  if (now === null || now === undefined) return null;
  if (before === null || before === undefined) return 0;
  return now >= before ? now - before : now;
}

function grownBuckets(before, now) {
  if (!before || before.size === 0) return new Map();
  // One look at the total decides for all bounds: after a restart every bucket counts from zero.
  const anew = (now.get(Infinity) ?? 0) < (before.get(Infinity) ?? 0);
  return new Map([...now].map(([bound, count]) => [bound, anew ? count : count - (before.get(bound) ?? 0)]));
}

/** The numbers of one page that later readings are compared with. */
export function reading(page, time) {
  const models = new Map();
  for (const [model, requests] of sumBy(page, `${OBJECTIVE}request_total`, "model_name")) {
    models.set(model, { requests, ...ofModel(page, (labels) => labels.get("model_name") === model) });
  }
  return {
    time,
    all: { requests: sum(page, `${OBJECTIVE}request_total`), ...ofModel(page, () => true) },
    models,
    pool: {
      running: mean(page, `${POOL}average_running_requests`),
      queue: mean(page, `${POOL}average_queue_size`),
      longest: max(page, `${POOL}max_queue_size`),
      cache: mean(page, `${POOL}average_kv_cache_utilization`),
      fullest: max(page, `${POOL}max_kv_cache_utilization`),
      ready: sum(page, `${POOL}ready_pods`),
      saturation: max(page, `${FLOW}pool_saturation`),
    },
    held: sumBy(page, `${FLOW}queue_size`, "priority"),
    endpoints: endpoints(page),
    adapters: adapters(page),
    version: [...sumBy(page, "tally_filter_info", "version").keys()].join(", "),
  };
}

function ofModel(page, want) {
  return {
    errors: sum(page, `${OBJECTIVE}request_error_total`, want),
    ended: sum(page, `${OBJECTIVE}request_outcome_total`, want),
    input: sum(page, `${OBJECTIVE}input_tokens_sum`, want),
    output: sum(page, `${OBJECTIVE}output_tokens_sum`, want),
    running: sum(page, `${OBJECTIVE}running_requests`, want),
    duration: buckets(page, `${OBJECTIVE}request_duration_seconds`, want),
    ttft: buckets(page, `${OBJECTIVE}request_ttft_seconds`, want),
  };
}

function endpoints(page) {
  const ages = sumBy(page, `${POOL}sample_age_seconds`, "model_server_pod");
  const queues = sumBy(page, `${POOL}per_pod_queue_size`, "model_server_pod");
  const names = [...new Set([...ages.keys(), ...queues.keys()])].sort();
  return names.map((name) => ({ name, queue: queues.get(name) ?? null, age: ages.get(name) ?? null }));
}

function adapters(page) {
  const pods = sumBy(page, `${POOL}lora_adapter_pods`, "adapter_name");
  const status = new Map();
  for (const { labels, value } of page.get("lora_syncer_adapter_status") ?? []) {
    const name = labels.get("adapter_name") ?? "";
    status.set(name, Math.min(status.get(name) ?? 1, value));
  }
  const names = [...new Set([...pods.keys(), ...status.keys()])].sort();
  return names.map((name) => ({ name, pods: pods.get(name) ?? null, loaded: status.get(name) ?? null }));
}

/** Readings so far and the lines drawn from them. */
export class History {
  constructor() {
    this.readings = [];
    this.points = [];
    this.last = null;
  }

  /** Takes a reading in. */
  add(now) {
    this.last = now;
    this.readings.push(now);
    if (this.readings.length > WINDOW + 1) this.readings.shift();
    if (this.readings.length < 2) return;
    const before = this.readings[this.readings.length - 2];
    const seconds = (now.time - before.time) / 1000;
    const rate = (key) => {
      const grown = growth(before.all[key], now.all[key]);
      return grown === null || seconds <= 0 ? null : grown / seconds;
    };
    this.point(now.time, {
      requests: rate("requests"),
      errors: rate("errors") ?? (now.all.requests === null ? null : 0),
      input: rate("input"),
      output: rate("output"),
      ...this.quantiles(),
      running: now.all.running,
      poolRunning: now.pool.running,
      queue: now.pool.queue,
      longest: now.pool.longest,
      cache: now.pool.cache,
      fullest: now.pool.fullest,
      held: now.held,
    });
  }

  /** Nothing could be read: the lines get a gap, rates begin anew, totals stay those of the last reading. */
  gap(time) {
    if (this.readings.length > 0) this.point(time, {});
    this.readings = [];
  }

  point(time, values) {
    this.points.push({ time, ...values });
    if (this.points.length > POINTS) this.points.shift();
  }

  /** Quantiles of the window over all models. */
  quantiles() {
    const [ttft, duration] = ["ttft", "duration"].map((key) => this.grown((one) => one.all[key]));
    return {
      ttft50: quantile(ttft, 0.5),
      ttft95: quantile(ttft, 0.95),
      duration50: quantile(duration, 0.5),
      duration95: quantile(duration, 0.95),
    };
  }

  /** What grew in the buckets over the window, reading by reading, so that a restart inside it loses nothing. */
  grown(pick) {
    const total = new Map();
    for (let turn = 1; turn < this.readings.length; turn += 1) {
      const now = pick(this.readings[turn]);
      if (!now) continue;
      for (const [bound, count] of grownBuckets(pick(this.readings[turn - 1]), now)) {
        total.set(bound, (total.get(bound) ?? 0) + count);
      }
    }
    return total;
  }

  /** Growth a second over the window of one number of a model. */
  modelRate(model, key) {
    let grown = 0;
    for (let turn = 1; turn < this.readings.length; turn += 1) {
      const [before, now] = [this.readings[turn - 1], this.readings[turn]].map((one) => one.models.get(model)?.[key]);
      grown += growth(before, now) ?? 0;
    }
    const first = this.readings[0];
    const last = this.readings[this.readings.length - 1];
    const seconds = first ? (last.time - first.time) / 1000 : 0;
    return seconds > 0 ? grown / seconds : null;
  }

  /** The busiest models of the last reading, each with totals, and rates and quantiles of the window. */
  topModels() {
    const rows = [...(this.last?.models ?? [])].map(([model, totals]) => ({
      model,
      ...totals,
      rate: this.modelRate(model, "requests"),
      outputRate: this.modelRate(model, "output"),
      ttft95: quantile(this.grown((one) => one.models.get(model)?.ttft), 0.95),
      duration95: quantile(this.grown((one) => one.models.get(model)?.duration), 0.95),
    }));
    rows.sort((a, b) => (b.rate ?? 0) - (a.rate ?? 0) || b.requests - a.requests);
    return rows.slice(0, SHOWN);
  }

  /** Priorities that any point has, greatest first, at most `SHOWN`. */
  priorities() {
    const found = new Set(this.points.flatMap((point) => [...(point.held?.keys() ?? [])]));
    return [...found].sort((a, b) => Number(b) - Number(a)).slice(0, SHOWN);
  }
}
