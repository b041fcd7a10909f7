// A browser's own EventSource: headless Chromium listens to live events and prints each, and whenever its connection
// opened or broke, as a line of JSON. At the end of standard input, it ends.
//
//   node browser.mjs <api's HTTP url> [<query>]
import { once } from 'node:events';
import { chromium } from 'playwright-core';

const [, , url, query = ''] = process.argv;
// Chromium's sandbox refuses root, which is who runs tests in a container; the page is ours.
const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] });
const page = await browser.newPage();
await page.exposeFunction('tell', (line) => console.log(line));
// Any page of the api's: so the stream is of the same origin, as a dashboard's would be.
await page.goto(`${url}/healthz`);
await page.evaluate((events) => {
  const source = new EventSource(events);
  const names = ['command_executed', 'guild_joined', 'guild_left', 'guild_settings_updated', 'gap'];
  for (const name of names) {
    source.addEventListener(name, ({ lastEventId, data }) =>
      tell(JSON.stringify({ name, id: lastEventId, data: JSON.parse(data) })));
  }
  source.addEventListener('open', () => tell(JSON.stringify({ name: 'open' })));
  source.addEventListener('error', () => tell(JSON.stringify({ name: 'error', state: source.readyState })));
}, `/api/v1/events${query}`);
await once(process.stdin.resume(), 'end');
await browser.close();
process.exit(0);
