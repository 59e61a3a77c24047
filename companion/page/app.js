// The page's loop: fetch, read, draw, and say plainly when one of these cannot be done.
// In: /metrics beside this page. Out: the document. A token typed in stays in this tab (session storage).

import { Charts } from "./charts.js";
import { clock } from "./format.js";
import { History, reading } from "./history.js";
import { parse } from "./metrics.js";
import { write } from "./tables.js";

const EVERY = 2000;
const PATIENCE = 10000;
const THEMES = ["system", "light", "dark"];

const byId = (id) => document.getElementById(id);
const history = new History();
const charts = new Charts(byId("charts"));
let paused = false;
let lastGood = null;

/** What to show when there are no numbers; null where there are. */
const NOTICES = {
  unreachable: () => [
    "tallyd does not answer",
    `Trying again every two seconds. ${lastGood === null ? "Nothing has been read yet." : `The numbers below are from ${clock(lastGood)}.`} Is tallyd running, and is this address still forwarded to it?`,
  ],
  unauthorized: () => [
    "tallyd asks who you are (401)",
    "Give a bearer token that may read /metrics, for example from: kubectl create token inference-gateway-sa-metrics-reader. It stays in this tab.",
  ],
  forbidden: () => [
    "This token may not read /metrics (403)",
    "Bind its account to the ClusterRole inference-gateway-metrics-reader, or give another token. `tallyd doctor` says which right is missing.",
  ],
  failed: (status) => [`tallyd cannot make its page (${status})`, "Its log says why. Trying again every two seconds."],
  empty: () => [
    "No request has been counted yet",
    "Send one through Envoy. If you have: is the filter in Envoy's http_filters, and does tallyd read that Envoy (tally_envoy_up on the metrics page)?",
  ],
};

function state(name, text, detail) {
  const line = byId("state");
  // Said again only if it changed: a screen reader reads it out.
  if (line.dataset.state !== name) line.dataset.state = name;
  if (line.textContent !== text) line.textContent = text;
  const notice = byId("notice");
  const words = NOTICES[name]?.(detail);
  notice.hidden = !words;
  byId("token-form").hidden = name !== "unauthorized" && name !== "forbidden";
  if (words) {
    setText("notice-title", words[0]);
    setText("notice-text", words[1]);
  }
}

function setText(id, text) {
  if (byId(id).textContent !== text) byId(id).textContent = text;
}

async function read() {
  const token = sessionStorage.getItem("tally-token");
  const answer = await fetch("metrics", {
    cache: "no-store",
    headers: { accept: "text/plain;version=0.0.4", ...(token ? { authorization: `Bearer ${token}` } : {}) },
    signal: AbortSignal.timeout(PATIENCE),
  });
  return { status: answer.status, text: answer.ok ? await answer.text() : "" };
}

async function turn() {
  let answer;
  try {
    answer = await read();
  } catch {
    history.gap(Date.now());
    state("unreachable", "No answer", null);
    return;
  }
  if (answer.status !== 200) {
    history.gap(Date.now());
    const name = { 401: "unauthorized", 403: "forbidden" }[answer.status] ?? "failed";
    state(name, `Status ${answer.status}`, answer.status);
    return;
  }
  const time = Date.now();
  const now = reading(parse(answer.text), time);
  lastGood = time;
  history.add(now);
  if (now.all.requests === null) state("empty", "No requests yet");
  else state("live", history.readings.length < 2 ? "First page read" : "Live");
  setText("foot", `Read at ${clock(time)}${now.version ? `, filter ${now.version}` : ""}. Rates and quantiles: last half minute. Kept in this tab only.`);
}

function draw() {
  if (document.hidden) return;
  write(history);
  charts.draw(history);
}

async function loop() {
  for (;;) {
    const began = Date.now();
    if (!paused) {
      await turn();
      draw();
    }
    await new Promise((done) => setTimeout(done, Math.max(EVERY / 2, EVERY - (Date.now() - began))));
  }
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  byId("theme").textContent = `Theme: ${name}`;
  localStorage.setItem("tally-theme", name);
  charts.recolour(history);
}

byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  byId("pause").textContent = paused ? "Go on" : "Pause";
  if (paused) state("paused", "Paused");
});
byId("theme").addEventListener("click", () => {
  const at = THEMES.indexOf(document.documentElement.dataset.theme ?? "system");
  theme(THEMES[(at + 1) % THEMES.length]);
});
byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("tally-token", byId("token").value.trim());
  byId("token").value = "";
  state("loading", "Trying the token …");
});
document.addEventListener("visibilitychange", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.recolour(history));

const kept = localStorage.getItem("tally-theme");
theme(THEMES.includes(kept) ? kept : "system");
write(history);
loop();
