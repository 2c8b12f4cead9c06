// Opens pages in Chromium for test_web_page.py: node page.mjs NODE_MODULES CHROMIUM PROFILE URL..., what they show on stdout.
import { createRequire } from "node:module";
import { join } from "node:path";

const [modules, executablePath, profile, ...urls] = process.argv.slice(2);
const { chromium } = createRequire(join(modules, "x.js"))("playwright-core");
const context = await chromium.launchPersistentContext(profile, {
  executablePath,
  headless: true,
  args: [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
  ],
});
const shown = [];
for (const url of urls) {
  const page = await context.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  await page.goto(url);
  await page.waitForFunction(() => document.documentElement.dataset.verdict !== "running", null, { timeout: 60000 });
  let heard = null;
  if (await page.isVisible("#listen")) {
    await page.click("#listen");
    await page.waitForFunction(() => document.getElementById("legend").textContent !== "", null, { timeout: 20000 });
    heard = await page.evaluate(() => `${document.getElementById("heard").textContent} | ${document.getElementById("legend").textContent}`);
    await page.click("#listen");
  }
  const found = await page.evaluate(() => ({
    verdict: document.documentElement.dataset.verdict,
    title: document.title,
    text: document.body.innerText,
    rows: [...document.querySelectorAll("tbody tr")].map((row) => row.className),
    width: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  }));
  shown.push({ ...found, heard, errors });
  await page.close();
}
await context.close();
console.log(JSON.stringify(shown));
