/* oxlint-disable -- plain JavaScript: most rules here ask for types */
/**
 * The app that the migration benchmark moves, puts to sleep and clones. It knows what it has been asked, and how often.
 *
 *   GET /count     counts, and says which start of the program this is    POST /upload   the length and SHA-256 of the body
 *   GET /events    server-sent events, continued from Last-Event-ID       GET /ws        WebSocket echo
 *   GET /audit     which request numbers came how often                   GET /healthz   answers without counting
 *
 * LIVE_MIB is the memory it holds beside Node's own, DIRTY_MIB_PER_S how much of it changes, WARMUP_MS the work before it listens.
 * `x-request-number` is what clients number their requests with.
 */
import { createHash, randomFillSync, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { echoWebSocket } from './web-socket-echo.js';

const MIB = 1024 * 1024;
const PAGE_BYTES = 4096;
const DIRTY_PERIOD_MS = 20;
const EVENT_PERIOD_MS = 50;
/** Events that are kept for clients that come back: 50 s of them. */
const EVENTS_KEPT = 1000;
const REQUEST_NUMBERS = MIB;
const DUPLICATES_SHOWN = 20;

const boot = randomUUID();
let count = 0;

warmUp(Number(process.env.WARMUP_MS ?? 0));
// Global, so that it is never garbage; random, so that no page is like another and none can be packed.
const live = (globalThis.live = Array.from({ length: Number(process.env.LIVE_MIB ?? 0) }, () =>
  randomFillSync(Buffer.alloc(MIB)),
));
dirty(Number(process.env.DIRTY_MIB_PER_S ?? 0));

/** Work as an app's start has it: compiling, connecting, filling caches. */
function warmUp(ms) {
  const endMs = performance.now() + ms;
  while (performance.now() < endMs)
    createHash('sha256')
      .update(randomFillSync(Buffer.alloc(16_384)))
      .digest();
}

/** Changes pages in turn, a word each. Time in which it stood still is not made up for. */
function dirty(mibPerSecond) {
  const pages = live.length * (MIB / PAGE_BYTES);
  if (mibPerSecond === 0 || pages === 0) return;
  let at = 0;
  let owed = 0;
  let lastMs = performance.now();
  setInterval(() => {
    const nowMs = performance.now();
    owed += (Math.min(nowMs - lastMs, 5 * DIRTY_PERIOD_MS) / 1000) * mibPerSecond * (MIB / PAGE_BYTES);
    lastMs = nowMs;
    for (; owed >= 1; owed -= 1) {
      const byte = at * PAGE_BYTES;
      live[Math.floor(byte / MIB)].writeDoubleLE(nowMs + at, byte % MIB);
      at = (at + 1) % pages;
    }
  }, DIRTY_PERIOD_MS);
}

const timesSeen = new Uint8Array(REQUEST_NUMBERS);

/** Remembers a request that was carried out whole. */
function remember(request) {
  count += 1;
  const number = Number(request.headers['x-request-number'] ?? -1);
  if (number >= 0 && number < REQUEST_NUMBERS) timesSeen[number] += 1;
  return { boot, count, number };
}

function audit() {
  const duplicated = [];
  let numbers = 0;
  timesSeen.forEach((times, number) => {
    if (times > 0) numbers += 1;
    if (times > 1) duplicated.push(number);
  });
  return { boot, count, numbers, duplicated: duplicated.length, examples: duplicated.slice(0, DUPLICATES_SHOWN) };
}

let lastEvent = 0;
const streams = new Set();
setInterval(() => {
  lastEvent += 1;
  for (const stream of streams) stream.write(eventText(lastEvent));
}, EVENT_PERIOD_MS);
const eventText = (id) => `id: ${id}\ndata: ${JSON.stringify({ boot })}\n\n`;

function stream(request, response) {
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  response.write('retry: 100\n\n');
  const from = Number(request.headers['last-event-id'] ?? lastEvent) + 1;
  for (let id = Math.max(from, lastEvent - EVENTS_KEPT); id <= lastEvent; id += 1) response.write(eventText(id));
  streams.add(response);
  response.on('close', () => streams.delete(response));
}

function upload(request, response) {
  const hash = createHash('sha256');
  let bytes = 0;
  request.on('data', (piece) => {
    bytes += piece.length;
    hash.update(piece);
  });
  request.on('end', () => answer(response, { ...remember(request), bytes, sha256: hash.digest('hex') }));
}

const answer = (response, body) => response.setHeader('content-type', 'application/json').end(JSON.stringify(body));

const routes = {
  'GET /count': (request, response) => answer(response, remember(request)),
  'GET /healthz': (_request, response) => answer(response, { boot }),
  'GET /audit': (_request, response) => answer(response, audit()),
  'GET /events': stream,
  'POST /upload': upload,
};

const server = createServer((request, response) => {
  const route = routes[`${request.method} ${request.url}`];
  if (route !== undefined) return route(request, response);
  response.statusCode = 404;
  answer(response, { error: 'not found' });
});
server.keepAliveTimeout = 600_000;
server.on('upgrade', echoWebSocket);
server.listen(Number(process.env.PORT ?? 8080), () => console.log('listening'));
for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => process.exit());
