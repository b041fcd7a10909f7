// Pushes to the manager as to a Pushgateway, with prom-client's own class.
//
//   node push.mjs <manager's HTTP url>
//
// PUSH_TOKEN is sent as the password, if it is set; NODE_EXTRA_CA_CERTS names who signed the manager's certificate.
// Prints a JSON line after each step: the grouping key's labels, the texts that are in force now, and the manager's page.
import { Counter, Gauge, Histogram, Pushgateway, Registry, Summary } from 'prom-client';

const [, , url] = process.argv;

function registryOfABot() {
  const register = new Registry();
  const registers = [register];
  const commands = new Counter({
    name: 'commands_total',
    help: 'Commands, "quoted", back\\slash,\nsecond line 🦀',
    labelNames: ['name', 'job'],
    registers,
  });
  const seconds = new Histogram({ name: 'seconds', help: 'Time to answer.', buckets: [0.1, 1], registers });
  new Gauge({ name: 'guilds', help: 'Guilds.', registers }).set(-1.5);
  new Summary({ name: 'sizes', help: 'Sizes.', percentiles: [0.5, 0.9], registers }).observe(3.25);
  const work = () => {
    commands.inc({ name: 'ping"\n', job: 'own' });
    seconds.observe(0.5);
    seconds.observe(7);
  };
  work();
  return { register, work };
}

function smallRegistry(name, value) {
  const register = new Registry();
  new Gauge({ name, help: 'Added.', registers: [register] }).set(value);
  new Counter({ name: `${name}_events_total`, help: 'Added.', registers: [register] }).inc(value);
  return register;
}

async function say(step, labels, ...registers) {
  const said = await Promise.all(registers.map((register) => register.metrics()));
  const page = await (await fetch(`${url}/metrics`)).text();
  process.stdout.write(JSON.stringify({ step, labels, said, page }) + '\n');
}

const groupings = { shard_id: 3, instance: 'a/b c' };
const to = { jobName: 'bot/ü', groupings };
const labels = { exported_job: 'bot/ü', exported_instance: 'a/b c' };
const token = process.env.PUSH_TOKEN;
const gateway = (register, coding) => {
  const headers = coding ? { 'Content-Encoding': coding } : {};
  return new Pushgateway(url, { headers, ...(token && { auth: `any:${token}` }) }, register);
};

const { register, work } = registryOfABot();
await gateway(register).push(to);
await say('push', labels, register);
work();
await gateway(register, 'gzip').push(to);
await say('push, gzip', labels, register);
const added = smallRegistry('added', 4);
await gateway(added, 'gzip').pushAdd(to);
await say('add', labels, register, added);
const other = smallRegistry('other', 5);
await gateway(other).push(to);
await say('push something else', labels, other);
await gateway(other, 'gzip').delete(to);
await say('delete', labels);

// What the manager does not take, prom-client says.
const refused = await gateway(other).push({ jobName: 'bot' }).catch((error) => error.message);
process.stdout.write(JSON.stringify({ refused }) + '\n');
