// A page in headless Chromium, driven from outside: each line of JSON on standard input says what to do, and one line of JSON
// is the answer. With the input's end, it ends.
//
//   node page.mjs <url>
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

const [, , url] = process.argv;
// Chromium's sandbox refuses root, which is who runs tests in a container; the page is ours.
const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] });
const page = await browser.newPage();
const requests = [];
const errors = [];
page.on('request', (request) => requests.push(request.url()));
page.on('pageerror', (error) => errors.push(String(error)));
page.on('console', (line) => line.type() === 'error' && errors.push(line.text()));
await page.goto(url);

const does = {
  evaluate: (expression) => page.evaluate(expression),
  press: (key) => page.keyboard.press(key),
  click: (selector) => page.click(selector),
  fill: ([selector, text]) => page.fill(selector, text),
  media: (colorScheme) => page.emulateMedia({ colorScheme }),
  screenshot: (path) => page.screenshot({ path }).then(() => null),
  told: () => ({ requests, errors }),
};
for await (const line of createInterface({ input: process.stdin })) {
  const [[what, how]] = Object.entries(JSON.parse(line));
  console.log(JSON.stringify((await does[what](how)) ?? null));
}
await browser.close();
process.exit(0);
