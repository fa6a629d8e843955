/* oxlint-disable -- plain JavaScript: most rules here ask for types */
/**
 * The app that is moved while things break: it counts its requests in memory, and writes numbers into a file of its root and one of its volume.
 *
 *   GET /count   counts, and says which start of the program this is        GET /healthz   answers without counting
 *
 * A number that could not be written is written later: what the files have is 1..n, whatever happens, or something was lost.
 */
import { appendFileSync, readFileSync, statSync, truncateSync } from 'node:fs';
import { createServer } from 'node:http';
import { randomUUID } from 'node:crypto';

const WRITE_PERIOD_MS = 20;
const boot = randomUUID();
let count = 0;

function writer(file) {
  let text = '';
  try {
    text = readFileSync(file, 'utf8');
  } catch {} // The first start.
  let next = Number(text.trim().split('\n').at(-1)) + 1;
  let bytes = Buffer.byteLength(text);
  return () => {
    const line = `${next}\n`;
    try {
      appendFileSync(file, line);
      bytes += line.length;
      next += 1;
    } catch {
      // The disk is full. A part of the line may be there.
      try {
        if (statSync(file).size > bytes) truncateSync(file, bytes);
      } catch {}
    }
  };
}

const writers = ['/app/numbers', '/data/numbers'].map(writer);
setInterval(() => writers.forEach((write) => write()), WRITE_PERIOD_MS);

createServer((request, response) => {
  if (request.url !== '/count') return response.end('ok\n');
  count += 1;
  response.setHeader('content-type', 'application/json').end(JSON.stringify({ boot, count }));
}).listen(8080);
