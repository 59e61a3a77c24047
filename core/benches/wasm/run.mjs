// Times the readers on wasm32 in Node, whose V8 is Envoy's engine: node run.mjs NEW.wasm [OLD.wasm]
// Ways and modules take turns; each figure is the best of 25 turns, and only ratios mean something.
import { readFileSync } from "node:fs";

const ways = ["reader", "memchr", "serde_typed", "serde_tree"];
const modules = [];
for (const file of process.argv.slice(2)) {
  modules.push((await WebAssembly.instantiate(readFileSync(file), {})).instance.exports);
}
const [first] = modules;
// The old module is only asked for its reader.
const runs = modules.flatMap((module, at) => ways.map((_, way) => ({ module, way })).filter(({ way }) => at === 0 || way === 0));

for (let number = 0; number < first.cases(); number++) {
  for (const run of runs) {
    run.best = Infinity;
    run.times = 1;
    while (time(run, number) < 8) run.times *= 2;
  }
  for (let turn = 0; turn < 25; turn++) {
    for (const run of runs) run.best = Math.min(run.best, time(run, number) / run.times);
  }
  const name = new TextDecoder().decode(new Uint8Array(first.memory.buffer, first.name(number), first.name_bytes(number)));
  const [reader, memchr, typed, tree, old] = runs.map((run) => run.best);
  const columns = [
    name.padEnd(18),
    `${(first.bytes(number) / reader / 1e6).toFixed(2)} GB/s`,
    `${((reader * 1e6) / first.pieces(number)).toFixed(0)} ns a piece`,
    `time of memchr x${(reader / memchr).toFixed(2)}`,
    `serde_json takes x${(typed / reader).toFixed(1)}, its tree x${(tree / reader).toFixed(1)}`,
  ];
  if (old) columns.push(`of the old reader x${(reader / old).toFixed(2)}`);
  console.log(columns.join("  "));
}

function time({ module, way, times }, number) {
  const start = performance.now();
  module.run(number, way, times);
  return performance.now() - start;
}
