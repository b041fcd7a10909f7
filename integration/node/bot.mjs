// A bot in another language, as far as the manager sees: prom-client with default metrics and some of its own, posted as
// {"shardId", "metrics"} every 200 ms. On a line on standard input, or SIGTERM, it stops counting, posts once more, and
// prints the text it posted, which is what prom-client says of itself.
//
// With a third argument it bears with a manager that does not answer (the next post says it all), and writes what it
// posts to <truth>.sent and what was taken to <truth>.taken: files that survive its own kill -9, and are always whole.
//
//   node bot.mjs <manager's HTTP url> <shard id> [<truth>]
import { once } from 'node:events';
import { renameSync, writeFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { collectDefaultMetrics, Counter, Gauge, Histogram, register } from 'prom-client';

const [, , url, shardId, truth] = process.argv;
const strange = ['plain', 'with "quotes"', 'back\\slash', 'line\nfeed', 'emoji 🦀 ü', '{brace="}', 'trailing\\'];

collectDefaultMetrics();
const commands = new Counter({
  name: 'commands_executed_total',
  help: 'Commands, "quoted", back\\slash,\nsecond line 🦀',
  labelNames: ['command_name', 'guild_id'],
});
const duration = new Histogram({
  name: 'command_execution_duration_seconds',
  help: 'Time to answer a command.',
  labelNames: ['command_name'],
  buckets: [0.005, 0.1, 1, 2.5, 10],
});
const guilds = new Gauge({ name: 'guild_count', help: 'Guilds.' });

let n = 0;
function count() {
  n += 1;
  commands.inc({ command_name: strange[n % strange.length], guild_id: n % 3 ? `${n % 3}` : 'dm' });
  duration.observe({ command_name: 'ping' }, (n % 40) / 7);
  guilds.set(n / 3);
}

function note(what, metrics) {
  if (truth) {
    writeFileSync(`${truth}.new`, metrics);
    renameSync(`${truth}.new`, `${truth}.${what}`);
  }
}

async function post() {
  const metrics = await register.metrics();
  note('sent', metrics);
  const answer = await fetch(`${url}/shard-metrics`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ shardId: Number(shardId), metrics }),
  });
  const said = await answer.json();
  if (!answer.ok || said.rejected.length > 0) {
    throw new Error(`${answer.status} ${JSON.stringify(said)}`);
  }
  note('taken', metrics);
  return metrics;
}

// What `fetch` throws when no answer came.
function bear(error) {
  if (!truth || !(error instanceof TypeError)) {
    throw error;
  }
}

const counting = setInterval(count, 5);
let posting = Promise.resolve();
const reporting = setInterval(() => {
  posting = posting.then(post).catch(bear);
}, 200);

await Promise.race([once(process.stdin, 'data'), once(process, 'SIGTERM')]);
clearInterval(counting);
clearInterval(reporting);
await posting;
let metrics;
while ((metrics = await post().catch(bear)) === undefined) {
  await setTimeout(100);
}
process.stdout.write(JSON.stringify({ counted: n, metrics }) + '\n');
process.stdin.destroy();
