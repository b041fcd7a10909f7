// A page as Node's fetch reads it, which undoes the coding it asks for: `node fetch.mjs <url> <accept> <coding>`.
const [, , url, accept, coding] = process.argv;
const answer = await fetch(url, { headers: { accept, 'accept-encoding': coding } });
if (!answer.ok || answer.headers.get('content-encoding') !== coding) {
  throw new Error(`${answer.status} ${answer.headers.get('content-encoding')}`);
}
process.stdout.write(Buffer.from(await answer.arrayBuffer()));
