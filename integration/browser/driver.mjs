// Words for the scripts that drive the live page: begin, check, choose a state, compare with a metrics page, judge by axe.
import { createRequire } from "node:module";
import { join } from "node:path";
import { readFileSync } from "node:fs";

const PATIENCE = 30000;

/** Ends the run with a sentence unless it holds. */
export function check(holds, sentence) {
  if (holds) return;
  console.error(`FAILED: ${sentence}`);
  process.exit(1);
}

/** A browser with a page, and what its console complains about. Refused requests are expected, scripts that fail are not. */
export async function begin(executablePath, packages) {
  const { chromium } = createRequire(join(packages, "x.js"))("playwright-core");
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, colorScheme: "light" });
  page.setDefaultTimeout(PATIENCE);
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => {
    const refused = message.text().startsWith("Failed to load resource");
    if (["error", "warning"].includes(message.type()) && !refused) complaints.push(message.text());
  });
  page.on("request", (request) => {
    if (!request.url().startsWith("http://127.0.0.1:")) complaints.push(`asks ${request.url()}`);
  });
  return { browser, page, complaints };
}

/** The state that the page is in. */
export const state = (page) => page.locator("#state").getAttribute("data-state");

/** Tells the server what to say and waits until the page has taken it in. */
export async function choose(page, base, mode, expected) {
  await page.request.get(`${base}/control/${mode}`);
  await page.waitForFunction((name) => document.getElementById("state").dataset.state === name, expected);
}

/** Every model's row has the totals of the metrics page; they are added up here in another way than on the page. */
export async function shown(page, text) {
  const total = (name, model) => {
    const lines = text.split("\n").filter((line) => line.startsWith(`${name}{`) && line.includes(`{model_name="${model}"`));
    return lines.reduce((all, line) => all + Number(line.slice(line.lastIndexOf(" ") + 1)), 0);
  };
  const rows = await page.locator("#models tbody tr").evaluateAll((lines) => lines.map((line) => [...line.cells].map((cell) => cell.textContent)));
  check(rows.length > 0 && rows[0].length === 11, `the table of models has rows: ${JSON.stringify(rows)}`);
  const columns = { 1: "request_total", 3: "request_error_total", 6: "input_tokens_sum", 7: "output_tokens_sum" };
  for (const row of rows) {
    for (const [column, name] of Object.entries(columns)) {
      const expected = total(`inference_objective_${name}`, row[0]);
      const found = row[column] === "–" ? 0 : Number(row[column].replaceAll(",", ""));
      check(found === expected, `${row[0]}: the page shows ${found} for ${name}, /metrics has ${expected}`);
    }
  }
  return rows;
}

/** No serious fault by axe's rules (WCAG A and AA). */
export async function axe(page, packages, where) {
  await page.evaluate(readFileSync(join(packages, "axe-core/axe.min.js"), "utf8"));
  const found = await page.evaluate(() => window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"] }));
  const faults = found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.target).join(", ")}`);
  check(faults.length === 0, `${where}: axe finds ${faults.join(" | ")}`);
}
