// prom-client's registry for OpenMetrics with exemplars: posted once, and then printed as JSON.
//
//   node exemplars.mjs <manager's HTTP url> <shard id>
import { collectDefaultMetrics, Counter, Histogram, Registry } from 'prom-client';

const [, , url, shardId] = process.argv;
const register = new Registry();
register.setContentType(Registry.OPENMETRICS_CONTENT_TYPE);
const registers = [register];
collectDefaultMetrics({ register });
const commands = new Counter({
  name: 'commands_executed_total',
  help: 'Commands, "quoted", back\\slash,\nsecond line 🦀',
  labelNames: ['command_name'],
  registers,
  enableExemplars: true,
});
const duration = new Histogram({
  name: 'command_execution_duration_seconds',
  help: 'Time to answer a command.',
  labelNames: ['command_name'],
  buckets: [0.1, 1],
  registers,
  enableExemplars: true,
});
commands.inc({ labels: { command_name: 'plain' }, value: 1 });
// No escapes: Prometheus 2.42 leaves them in exemplars of OpenMetrics as they are.
commands.inc({ labels: { command_name: 'ping' }, value: 2, exemplarLabels: { trace_id: 'a=b, {c} 🦀' } });
for (const [value, trace_id] of [[0.05, 'fast'], [0.5, 'slow'], [7, 'slowest']]) {
  duration.observe({ labels: { command_name: 'ping' }, value, exemplarLabels: { trace_id, shard_id: 'kept' } });
}

const metrics = await register.metrics();
const answer = await fetch(`${url}/shard-metrics`, {
  method: 'POST',
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify({ shardId: Number(shardId), metrics }),
});
process.stdout.write(JSON.stringify({ metrics, answer: await answer.json() }) + '\n');
