// What many bots do today, in its fastest form: keep the text of each shard as it came, join on a scrape. The senders put
// shard_id into every line themselves (prom-client's default labels), so that nothing is parsed here.
'use strict';
const http = require('node:http');
const zlib = require('node:zlib');

const texts = new Map();

function take(request, response) {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    const { shardId, metrics } = JSON.parse(Buffer.concat(chunks));
    texts.set(shardId, metrics);
    response.end('{}');
  });
}

function scrape(request, response) {
  const page = [...texts.values()].join('');
  response.setHeader('content-type', 'text/plain; version=0.0.4');
  if (!/\bgzip\b/.test(request.headers['accept-encoding'] ?? '')) {
    response.end(page);
    return;
  }
  response.setHeader('content-encoding', 'gzip');
  // The manager's level; zlib's default takes several times as long.
  zlib.gzip(page, { level: 1 }, (_, compressed) => response.end(compressed));
}

const server = http.createServer((request, response) => {
  if (request.method === 'POST' && request.url === '/shard-metrics') take(request, response);
  else if (request.method === 'GET' && request.url === '/metrics') scrape(request, response);
  else response.writeHead(404).end();
});
// Connections rest between two rounds.
server.keepAliveTimeout = 600_000;
server.listen(0, '127.0.0.1', () => console.error(`http_addr=127.0.0.1:${server.address().port}`));
