// Run by `node --test`; expected values are worked out by hand.
import assert from "node:assert/strict";
import test from "node:test";
import { buckets, max, mean, parse, quantile, sum, sumBy } from "../metrics.js";
import { growth, History, reading, POINTS, WINDOW } from "../history.js";
import { exact, percent, plain, seconds } from "../format.js";

test("label values may hold braces, commas, escaped quotes and line ends", () => {
  const page = parse('# HELP x y\na_total{x="{,}\\"\\\\\\n",y="2"} 3\nb 4.5e1 1700000000\nbroken{x="1\nc +Inf\n');
  assert.equal(page.get("a_total")[0].labels.get("x"), '{,}"\\\n');
  assert.equal(sum(page, "b"), 45);
  assert.equal(sum(page, "c"), Infinity);
  assert.equal(page.has("broken"), false);
  assert.equal(sum(page, "nothing"), null);
});

test("sums, means and greatest values go over all samples", () => {
  const page = parse('g{m="a",t="1"} 1\ng{m="a",t="2"} 2\ng{m="b"} 6\n');
  assert.deepEqual([...sumBy(page, "g", "m")], [["a", 3], ["b", 6]]);
  assert.equal(mean(page, "g"), 3);
  assert.equal(max(page, "g"), 6);
});

test("a quantile is linear inside its bucket and the last finite bound beyond it", () => {
  const page = parse('h_bucket{le="1"} 2\nh_bucket{le="3"} 6\nh_bucket{le="+Inf"} 8\n');
  // Rank 4 of 8 lies halfway into the bucket from 1 to 3; rank 7.6 lies beyond 3.
  assert.equal(quantile(buckets(page, "h"), 0.5), 2);
  assert.equal(quantile(buckets(page, "h"), 0.95), 3);
  assert.equal(quantile(new Map(), 0.5), null);
});

test("a counter that fell began anew, and one that is new has not grown", () => {
  assert.equal(growth(5, 9), 4);
  assert.equal(growth(9, 2), 2);
  assert.equal(growth(null, 7), 0);
  assert.equal(growth(7, null), null);
});

const at = (time, requests, below, all) => reading(parse(
  `inference_objective_request_total{model_name="m",target_model_name="t"} ${requests}\n` +
  `inference_objective_request_ttft_seconds_bucket{model_name="m",target_model_name="t",le="1"} ${below}\n` +
  `inference_objective_request_ttft_seconds_bucket{model_name="m",target_model_name="t",le="+Inf"} ${all}\n`,
), time);

test("rates are growth over time, a restart loses nothing, a gap is a gap", () => {
  const history = new History();
  history.add(at(0, 100, 10, 10));
  history.add(at(2000, 110, 14, 14));
  assert.equal(history.points.at(-1).requests, 5);
  // Four observations below 1: the middle of the bucket.
  assert.equal(history.points.at(-1).ttft50, 0.5);
  history.add(at(4000, 6, 2, 2));
  assert.equal(history.points.at(-1).requests, 3);
  assert.deepEqual([...history.grown((one) => one.all.ttft)], [[1, 6], [Infinity, 6]]);
  assert.equal(history.topModels()[0].rate, 4);
  history.gap(6000);
  assert.equal(history.points.at(-1).requests, undefined);
  assert.equal(history.topModels()[0].requests, 6);
  history.add(at(8000, 50, 3, 3));
  assert.equal(history.points.length, 3);
});

test("families that appear after a restart of tallyd make no spike", () => {
  const history = new History();
  history.add(reading(parse("inference_pool_ready_pods{name=\"p\"} 1\n"), 0));
  history.add(at(2000, 100000, 900, 900));
  assert.equal(history.points.at(-1).requests, 0);
  assert.equal(history.points.at(-1).ttft50, null);
});

test("memory is bounded", () => {
  const history = new History();
  for (let turn = 0; turn < POINTS + 50; turn += 1) history.add(at(turn * 2000, turn, turn, turn));
  assert.equal(history.points.length, POINTS);
  assert.equal(history.readings.length, WINDOW + 1);
});

test("numbers are short where they may be and whole where they must be", () => {
  assert.deepEqual([plain(0.1234), plain(12.34), plain(12345), plain(null)], ["0.12", "12.3", "12.3 k", "–"]);
  assert.deepEqual([seconds(0.0123), seconds(1.5), seconds(600)], ["12.3 ms", "1.5 s", "10 min"]);
  assert.deepEqual([percent(0.125), exact(1234567)], ["12.5 %", "1,234,567"]);
});
