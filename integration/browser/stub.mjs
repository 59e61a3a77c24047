// Drives the live page in headless Chromium through every state, over a server whose /metrics can be told what to say.
// usage: node stub.mjs CHROMIUM PACKAGES BASE FOLDER      pictures go to FOLDER; a failure ends with status 1.
import { axe, begin, check, choose, shown, state } from "./driver.mjs";

const [, , chromium, packages, base, folder] = process.argv;
const { browser, page, complaints } = await begin(chromium, packages);

await page.request.get(`${base}/control/slow`);
await page.goto(base, { waitUntil: "domcontentloaded" });
check((await state(page)) === "loading", "before the first answer the page says that it is reading");

await choose(page, base, "growing", "live");
await page.waitForFunction(() => document.querySelectorAll("#charts canvas").length === 8);
// Four readings: enough for rates.
await page.waitForFunction(() => /\d/.test(document.querySelector("#charts .legend b")?.textContent ?? ""));
await page.waitForTimeout(9000);
const flat = await page.evaluate(() => [...document.querySelectorAll("#charts canvas")].filter((canvas) => {
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const colours = new Set();
  for (let at = 0; at < pixels.length; at += 4) if (pixels[at + 3] === 255) colours.add((pixels[at] << 16) | (pixels[at + 1] << 8) | pixels[at + 2]);
  return colours.size < 3;
}).length);
check(flat === 0, `${flat} charts have nothing drawn on them`);
await page.screenshot({ path: `${folder}/light.png`, fullPage: true });
await axe(page, packages, "light");

// Keyboard: the first stop skips to the numbers; arrows move through a chart.
await page.evaluate(() => document.activeElement?.blur());
await page.keyboard.press("Tab");
check((await page.evaluate(() => document.activeElement.className)) === "skip", "the first stop is the skip link");
await page.locator("#charts .plot").first().focus();
await page.keyboard.press("ArrowLeft");
const moved = await page.locator("#charts .legend").first().getAttribute("data-at");
check(/^\d\d:\d\d:\d\d$/.test(moved ?? ""), `an arrow key shows an earlier time, not "${moved}"`);

await page.getByRole("button", { name: /Theme/ }).click();
await page.getByRole("button", { name: /Theme: light/ }).click();
await page.getByRole("button", { name: /Theme: dark/ }).waitFor();
await page.screenshot({ path: `${folder}/dark.png`, fullPage: true });
await axe(page, packages, "dark");

await page.setViewportSize({ width: 375, height: 800 });
await page.waitForTimeout(300);
const [wide, inner] = await page.evaluate(() => [document.scrollingElement.scrollWidth, innerWidth]);
check(wide <= inner, `at 375 the page is ${wide} wide`);
await page.screenshot({ path: `${folder}/narrow.png`, fullPage: false });
await axe(page, packages, "narrow");

// The numbers are those of the page, which stands still now.
await choose(page, base, "frozen", "live");
await page.waitForTimeout(2500);
const text = await (await page.request.get(`${base}/metrics`)).text();
await shown(page, text);

// States without numbers.
const notice = () => page.locator("#notice-title").textContent();
await choose(page, base, "restarted", "live");
await choose(page, base, "empty", "empty");
check((await notice()).startsWith("No request"), "an empty page says so");
await choose(page, base, "failed", "failed");
check((await notice()).includes("500"), "a failure says its status");
await choose(page, base, "forbidden", "forbidden");
check((await notice()).includes("403"), "a forbidden page says so");
await choose(page, base, "token", "unauthorized");
await page.screenshot({ path: `${folder}/token.png`, fullPage: false });
await axe(page, packages, "token");
await page.getByLabel("Bearer token").fill("good");
await page.keyboard.press("Enter");
await page.waitForFunction(() => document.getElementById("state").dataset.state === "live");
check(await page.locator("#notice").isHidden(), "with the token the notice is gone");
await page.context().setOffline(true);
await page.waitForFunction(() => document.getElementById("state").dataset.state === "unreachable");
check((await notice()).includes("does not answer"), "no answer says so");
check((await page.locator("#models tbody tr").count()) === 3, "the last totals stay");
await page.context().setOffline(false);
await page.waitForFunction(() => document.getElementById("state").dataset.state === "live");

await page.getByRole("button", { name: "Pause" }).click();
check((await state(page)) === "paused", "paused");
await page.getByRole("button", { name: "Go on" }).click();
await page.waitForFunction(() => document.getElementById("state").dataset.state === "live");

check(complaints.length === 0, `the console complains: ${complaints.join(" | ")}`);
await browser.close();
console.log("all checks passed");
