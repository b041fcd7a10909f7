// gzip as Node's zlib reads it: `node gunzip.mjs <coded >plain`.
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';

process.stdout.write(gunzipSync(readFileSync(0)));
