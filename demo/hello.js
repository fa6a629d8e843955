/* oxlint-disable -- plain JavaScript: most rules here ask for types */
/**
 * The first app on Écluse: it counts its requests in memory. Migrate it while its page is open: the host changes, the count goes on.
 *
 *   GET /         a page that shows the count every second         POST /echo    sends the body back as it comes
 *   GET /count    counts, and answers JSON                         GET /stream   one server-sent event a second
 *   GET /healthz  answers without counting                         GET /ws       WebSocket echo
 *
 * PORT is where it listens (8080). BALLAST_MIB is how much memory it holds, to try moving a larger app.
 */
import { randomFillSync } from 'node:crypto';
import { createServer } from 'node:http';
import { hostname } from 'node:os';
import { pipeline } from 'node:stream';
import { echoWebSocket } from './web-socket-echo.js';

const startedAt = new Date();
let count = 0;
// Global, so that it is never garbage; random, so that no page of memory is like another.
const ballastMib = Number(process.env.BALLAST_MIB ?? 0);
globalThis.ballast = Array.from({ length: ballastMib }, () => randomFillSync(Buffer.alloc(1024 * 1024)));

/** Counts a request and says who answers it. Écluse's edge names the host that it sends the request to in `x-ecluse-host`. */
function counted(request) {
  count += 1;
  const host = request.headers['x-ecluse-host'] ?? 'unknown';
  console.log(`request ${count} from ${host}`);
  return { count, host, hostname: hostname(), startedAt: startedAt.toISOString(), uptimeMs: Date.now() - startedAt.getTime() };
}

const escaped = (text) => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);

const page = (facts) => `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Hello from Écluse</title>
<style>
  :root { color-scheme: light dark; font: 1rem/1.6 system-ui, sans-serif }
  body { max-width: 26rem; margin: 12vh auto; padding: 0 1rem }
  output { display: block; font-size: 5rem; line-height: 1.2; font-variant-numeric: tabular-nums }
  dl { display: grid; grid-template-columns: auto 1fr; gap: 0 1.5rem } dt { opacity: .65 } dd { margin: 0 }
</style>
<h1>Hello from Écluse</h1><output id="count">${facts.count}</output>requests, counted in memory
<dl><dt>Écluse host<dd id="host">${escaped(facts.host)}<dt>container<dd id="hostname">${escaped(facts.hostname)}
<dt>up for<dd id="uptime">${Math.round(facts.uptimeMs / 1000)} s<dt>answered in<dd id="took">…<dt>slowest answer<dd id="slowest">…</dl>
<script>
  let slowest = 0;
  const show = (id, text) => { document.getElementById(id).textContent = text; };
  setTimeout(async function reload() {
    const from = performance.now();
    try {
      const facts = await (await fetch('count')).json();
      const took = Math.round(performance.now() - from);
      slowest = Math.max(slowest, took);
      for (const id of ['count', 'host', 'hostname']) show(id, facts[id]);
      show('uptime', Math.round(facts.uptimeMs / 1000) + ' s'); show('took', took + ' ms'); show('slowest', slowest + ' ms');
    } catch { show('took', 'no answer'); }
    setTimeout(reload, 1000);
  }, 1000);
</script>
`;

const answer = (response, type, body) =>
  response.setHeader('content-type', type).setHeader('cache-control', 'no-store').end(body);

const routes = {
  'GET /': (request, response) => answer(response, 'text/html; charset=utf-8', page(counted(request))),
  'GET /count': (request, response) => answer(response, 'application/json', `${JSON.stringify(counted(request))}\n`),
  'GET /healthz': (_request, response) => answer(response, 'text/plain', 'ok\n'),
  'POST /echo': (request, response) => {
    response.setHeader('content-type', 'application/octet-stream');
    pipeline(request, response, () => {}); // Where the client goes away, both streams end: nothing is left to do.
  },
  'GET /stream': (_request, response) => {
    let tick = 0;
    const send = () => response.write(`data: ${JSON.stringify({ tick: ++tick, count })}\n\n`);
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    send();
    const timer = setInterval(send, 1000);
    response.on('close', () => clearInterval(timer));
  },
};

const pathOf = (request) => request.url.split('?')[0];
const asksForWebSocket = (request) => pathOf(request) === '/ws' && request.headers['sec-websocket-key'] !== undefined;

const server = createServer({ shouldUpgradeCallback: asksForWebSocket }, (request, response) => {
  const route = routes[`${request.method} ${pathOf(request)}`];
  if (route !== undefined) return route(request, response);
  response.statusCode = 404;
  answer(response, 'text/plain', `There is ${Object.keys(routes).join(', ')} and the WebSocket /ws.\n`);
});
server.on('upgrade', echoWebSocket);
server.listen(Number(process.env.PORT ?? 8080), () => console.log(`listening on port ${server.address().port}`));

for (const signal of ['SIGTERM', 'SIGINT']) {
  process.once(signal, () => {
    server.close(() => process.exit());
    setTimeout(() => process.exit(), 500); // Streams and WebSockets would go on for ever.
  });
}
