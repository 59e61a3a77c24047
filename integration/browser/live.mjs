// Looks at the real tallyd's page while real traffic runs, compares, and watches a restart of tallyd.
// usage: node live.mjs CHROMIUM PACKAGES BASE FOLDER      says a word when a part is done, reads a line to go on.
import { createInterface } from "node:readline";
import { axe, begin, check, shown } from "./driver.mjs";

const [, , chromium, packages, base, folder] = process.argv;
const { browser, page, complaints } = await begin(chromium, packages);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const said = async (word) => check((await lines.next()).value === word, `the test says ${word}`);
const becomes = (name) => page.waitForFunction((wanted) => document.getElementById("state").dataset.state === wanted, name);
const text = async () => (await page.request.get(`${base}/metrics`)).text();

await page.goto(base);
await becomes("live");
await page.waitForTimeout(24000);
const [requests, errors] = await page.locator("#charts .legend").first().locator("b").allTextContents();
check(Number(requests) > 1, `requests a second: ${requests}, errors ${errors}`);
const rows = await page.locator("#models tbody tr").count();
check(rows > 1, `${rows} models`);
await page.screenshot({ path: `${folder}/light.png`, fullPage: true });
await axe(page, packages, "light, real traffic");
const theme = page.getByRole("button", { name: /Theme/ });
await theme.click();
await theme.click();
await page.screenshot({ path: `${folder}/dark.png`, fullPage: true });
await page.setViewportSize({ width: 375, height: 1600 });
await page.waitForTimeout(500);
await page.screenshot({ path: `${folder}/narrow.png`, fullPage: false });
console.log("drawn");

await said("quiet");
await page.waitForTimeout(6000);
await shown(page, await text());
console.log("compared");

await said("down");
await becomes("unreachable");
check((await page.locator("#models tbody tr").count()) === rows, "the last totals stay");
console.log("gone");

await said("up");
await becomes("live");
await page.waitForTimeout(8000);
await shown(page, await text());
const [after] = await page.locator("#charts .legend").first().locator("b").allTextContents();
check(after === "0", `a restart makes no spike, the rate is ${after}`);
check(complaints.length === 0, `the console complains: ${complaints.join(" | ")}`);
await browser.close();
console.log("all checks passed");
process.exit(0);
