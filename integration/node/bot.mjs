// A bot in another language, as far as the manager sees: prom-client with default metrics and some of its own, posted as
// {"shardId", "metrics"} every 200 ms. On a line on standard input it stops counting, posts once more, and prints the
// text it posted, which is what prom-client says of itself.
//
//   node bot.mjs <manager's HTTP url> <shard id>
import { once } from 'node:events';
import { collectDefaultMetrics, Counter, Gauge, Histogram, register } from 'prom-client';

const [, , url, shardId] = process.argv;
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

async function post() {
  const metrics = await register.metrics();
  const answer = await fetch(`${url}/shard-metrics`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ shardId: Number(shardId), metrics }),
  });
  const said = await answer.json();
  if (!answer.ok || said.rejected.length > 0) {
    throw new Error(`${answer.status} ${JSON.stringify(said)}`);
  }
  return metrics;
}

const counting = setInterval(count, 5);
let posting = Promise.resolve();
const reporting = setInterval(() => {
  posting = posting.then(post);
}, 200);

await once(process.stdin, 'data');
clearInterval(counting);
clearInterval(reporting);
await posting;
process.stdout.write(JSON.stringify({ counted: n, metrics: await post() }) + '\n');
process.stdin.destroy();
