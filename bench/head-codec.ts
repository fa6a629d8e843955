/**
 * What does it cost to read a request head and to write the one that goes on?
 *
 * Side by side in one run: `src/proxy/http1`, and what one writes first, a parser that splits strings. Rounds alternate, medians of CPU time per
 * head. `--rounds N` (default 9), `--heads N` a round (default 100 000).
 */
import { parseArgs } from 'node:util';
import { requestFraming } from '#proxy/http1/body-framing.ts';
import { isPersistent } from '#proxy/http1/connection.ts';
import { parseHead } from '#proxy/http1/head.ts';
import { createHeadView } from '#proxy/http1/head-view.ts';
import { EDGE_LIMITS } from '#proxy/edge-limits.ts';
import { createHeadWriter, createRequestEdits, writeRequestHead } from '#proxy/http1/rewrite.ts';
import { hostKey, pathKey } from '#proxy/http1/target.ts';
import { machine, quantile } from './machine.ts';

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '9' }, heads: { type: 'string', default: '100000' } },
});
const rounds = Number(values.rounds);
const heads = Number(values.heads);

const SMALL = [
  'GET /index.html HTTP/1.1',
  'Host: app.example.test',
  'User-Agent: curl/8.5.0',
  'Accept: */*',
  'Connection: keep-alive',
];
const BROWSER = [
  'GET /p/1234?page=2 HTTP/1.1',
  'Host: app.example.test',
  'Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8',
  'Accept-Language: en-US,en;q=0.5',
  'Accept-Encoding: gzip, deflate, br, zstd',
  'User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0',
  'Connection: keep-alive',
  'Upgrade-Insecure-Requests: 1',
  'Sec-Fetch-Dest: document',
  'Sec-Fetch-Mode: navigate',
  'Sec-Fetch-Site: same-origin',
  'Sec-Fetch-User: ?1',
  'Priority: u=0, i',
  'DNT: 1',
  'Referer: http://app.example.test/some/page?id=12345',
  'Cookie: session=0123456789abcdef0123456789abcdef0123456789abcdef; theme=dark; _ga=GA1.2.1234567890.1234567890',
];

const HOP_BY_HOP = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'te',
  'transfer-encoding',
  'upgrade',
  'x-forwarded-for',
]);
const OUT_BYTES = 64 * 1024;
const REQUEST_ID = '0192d3c4-7a51-7e7e-8000-0123456789ab';

const view = createHeadView('request', EDGE_LIMITS);
const edits = createRequestEdits({ clientAddress: '203.0.113.7', proto: 'https', hostName: 'node-a', trusted: false });
edits.requestId = Buffer.from(REQUEST_ID);
const writer = createHeadWriter(Buffer.allocUnsafe(OUT_BYTES));

function parseOnly(bytes: Buffer, length: number): number {
  return parseHead(bytes, 0, length, view);
}

/** All that is decided and written for a request, with the route key. */
function parseAndWrite(bytes: Buffer, length: number): number {
  const end = parseHead(bytes, 0, length, view);
  const framing = requestFraming(bytes, view);
  const key = hostKey(bytes, view).length + pathKey(bytes, view).length;
  writer.at = 0;
  return end + framing + key + (isPersistent(view) ? 1 : 0) + writeRequestHead(bytes, view, edits, writer);
}

/** The peer: the same decisions by strings, arrays and a map. It checks less. */
function splitStrings(bytes: Buffer, length: number): number {
  const [line = '', ...lines] = bytes.toString('latin1', 0, length - 4).split('\r\n');
  const [method = '', target = '', version = ''] = line.split(' ');
  const fields = new Map<string, string>();
  let out = `${method} ${target} ${version}\r\n`;
  for (const text of lines) {
    const colon = text.indexOf(':');
    const name = text.slice(0, colon).toLowerCase();
    fields.set(name, text.slice(colon + 1).trim());
    if (!HOP_BY_HOP.has(name)) out += `${text}\r\n`;
  }
  const host = fields.get('host') ?? '';
  out += `X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\nX-Ecluse-Host: node-a\r\nX-Forwarded-Host: ${host}\r\n`;
  out += `Forwarded: for=203.0.113.7;proto=https;host="${host}"\r\nX-Request-Id: ${REQUEST_ID}\r\n\r\n`;
  return writer.out.write(out, 'latin1');
}

function nanosecondsAHead(work: (bytes: Buffer, length: number) => number, bytes: Buffer, length: number): number {
  const before = process.cpuUsage();
  for (let count = 0; count < heads; count += 1) work(bytes, length);
  const { user, system } = process.cpuUsage(before);
  return ((user + system) * 1000) / heads;
}

const results: Record<string, number> = {};
for (const [name, lines] of Object.entries({ small: SMALL, browser: BROWSER })) {
  const head = Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1');
  const bytes = Buffer.alloc(OUT_BYTES);
  head.copy(bytes);
  if (parseAndWrite(bytes, head.length) <= 0) throw new Error(`${name}: refused`);
  const samples: [string, (bytes: Buffer, length: number) => number, number[]][] = [
    ['parse', parseOnly, []],
    ['parseAndRewrite', parseAndWrite, []],
    ['splitStrings', splitStrings, []],
  ];
  for (let round = -1; round < rounds; round += 1) {
    for (const [, work, times] of samples) {
      const time = nanosecondsAHead(work, bytes, head.length);
      if (round >= 0) times.push(time);
    }
  }
  for (const [what, , times] of samples) results[`${name}.${what}.ns`] = Math.round(quantile(times, 0.5));
  results[`${name}.bytes`] = head.length;
}
console.log(JSON.stringify({ bench: 'head-codec', ...machine(), rounds, heads, results }));
