/**
 * What does a line of the access log cost a request?
 *
 * Side by side in one run: `writeLine` alone, `AccessLogFile` with it, and what one writes first: `JSON.stringify` of an object, and a template
 * string, each into pino's asynchronous destination, as the log was before. All files are /dev/null. Rounds alternate, medians of CPU time per
 * line, the threads that write included. `--rounds N` (default 9), `--lines N` a round (default 50 000).
 */
import { setImmediate as turn } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { pino } from 'pino';
import { AccessLogFile } from '#proxy/access-log-file.ts';
import { LINE_BYTES_MAX, writeLine } from '#proxy/access-log-line.ts';
import { createLog } from '#log';
import { createRecord } from '#proxy/record.ts';
import type { ExchangeRecord } from '#proxy/record.ts';
import { machine, quantile } from './machine.ts';

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '9' }, lines: { type: 'string', default: '50000' } },
});
const rounds = Number(values.rounds);
const lines = Number(values.lines);

const RECORDS = 256;
const ROUTES = 16;
/** As many as come between two turns of the event loop. */
const BURST = 64;
const NO_TLS = { version: undefined, sni: undefined, alpn: undefined };
const HEAD = 'GET /assets/app-';

/** Records of many connections, routes and endpoints, so that nothing is always the last one. */
function records(): readonly ExchangeRecord[] {
  const endpoints = Array.from({ length: ROUTES * 2 }, (_, index) => ({
    id: `c0ffee${String(index).padStart(6, '0')}`,
    address: '10.0.0.2',
    port: 8080,
    hostName: 'node-a',
    generation: 1,
  }));
  const routes = Array.from({ length: ROUTES }, (_, index) => {
    return {
      pattern: { kind: 'prefix', prefix: '' },
      conditions: undefined,
      route: { host: `app${String(index)}.example.test`, path: '/', serviceId: `shop-${String(index)}` },
      tenant: `tenant-${String(index % 5)}`,
    };
  });
  return Array.from({ length: RECORDS }, (_, index) => {
    const route = routes[index % ROUTES];
    const tls = { version: 'TLSv1.3', sni: route?.route.host, alpn: undefined };
    const record = createRecord(`203.0.113.${String(index)}`, index % 2 === 0 ? tls : undefined);
    const head = Buffer.from(`${HEAD}${String(1000 + index)}.js?v=3 HTTP/1.1\r\n`, 'latin1');
    return Object.assign(record, {
      head,
      methodEnd: 3,
      pathStart: 4,
      pathEnd: head.indexOf('?'),
      // Each request has its own string.
      host: Buffer.from(route?.route.host ?? '').toString('latin1'),
      requestId: Buffer.from(`0192d3c47a51${String(index).padStart(12, '0')}`),
      configVersion: 4711,
      route,
      endpoint: endpoints[2 * (index % ROUTES) + ((index >> 4) & 1)],
      status: index % 10 === 0 ? 304 : 200,
      downstreamInBytes: 400 + index,
      downstreamOutBytes: 12_000 + 37 * index,
      upstreamInBytes: 11_900 + 37 * index,
      upstreamOutBytes: 600 + index,
      startWallMs: Date.UTC(2026, 10, 20) + index * 13,
      // Three of four find an idle connection.
      connectMs: index % 4 === 0 ? 0.412 : 0,
      firstByteMs: 1.2345 + index / 7,
    });
  });
}

function lineObject(record: ExchangeRecord, totalMs: number): object {
  const { head, route, tls = NO_TLS } = record;
  return {
    time: new Date(record.startWallMs).toISOString(),
    requestId: record.requestId.toString('latin1'),
    traceId: null,
    configVersion: record.configVersion,
    route: route === undefined ? null : `${route.route.host}${route.route.path}`,
    service: route?.route.serviceId ?? null,
    endpoint: record.endpoint?.id ?? null,
    tenant: route?.tenant ?? null,
    client: record.client,
    method: head.toString('latin1', 0, record.methodEnd),
    host: record.host,
    path: head.toString('latin1', record.pathStart, record.pathEnd),
    status: record.status,
    downstreamInBytes: record.downstreamInBytes,
    downstreamOutBytes: record.downstreamOutBytes,
    upstreamInBytes: record.upstreamInBytes,
    upstreamOutBytes: record.upstreamOutBytes,
    totalMs: rounded(totalMs),
    holdMs: rounded(record.holdMs),
    connectMs: record.connectMs < 0 ? null : rounded(record.connectMs),
    firstByteMs: rounded(record.firstByteMs),
    tlsVersion: tls.version ?? null,
    sni: tls.sni ?? null,
    alpn: tls.alpn ?? null,
    errorCode: record.error ?? null,
  };
}

/** Escapes nothing. */
function lineTemplate(record: ExchangeRecord, totalMs: number): string {
  const { head, route, tls } = record;
  const path = head.toString('latin1', record.pathStart, record.pathEnd);
  const names = `"route":"${route?.route.host ?? ''}${route?.route.path ?? ''}","service":"${route?.route.serviceId ?? ''}"`;
  const who = `"endpoint":"${record.endpoint?.id ?? ''}","tenant":"${route?.tenant ?? ''}","client":"${record.client}"`;
  const what = `"method":"${head.toString('latin1', 0, record.methodEnd)}","host":"${record.host}","path":"${path}","status":${String(record.status)}`;
  const down = `"downstreamInBytes":${String(record.downstreamInBytes)},"downstreamOutBytes":${String(record.downstreamOutBytes)}`;
  const up = `"upstreamInBytes":${String(record.upstreamInBytes)},"upstreamOutBytes":${String(record.upstreamOutBytes)}`;
  const times = `"totalMs":${String(rounded(totalMs))},"holdMs":${String(rounded(record.holdMs))}`;
  const upTimes = `"connectMs":${String(rounded(record.connectMs))},"firstByteMs":${String(rounded(record.firstByteMs))}`;
  const end =
    tls === undefined
      ? '"tlsVersion":null,"sni":null,"alpn":null'
      : `"tlsVersion":"${tls.version ?? ''}","sni":"${tls.sni ?? ''}","alpn":null`;
  const start = `"time":"${new Date(record.startWallMs).toISOString()}","requestId":"${record.requestId.toString('latin1')}","traceId":null`;
  return `{${start},"configVersion":${String(record.configVersion)},${names},${who},${what},${down},${up},${times},${upTimes},${end},"errorCode":null}\n`;
}

function rounded(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}

async function nanosecondsALine(
  all: readonly ExchangeRecord[],
  write: (record: ExchangeRecord, totalMs: number) => void,
): Promise<number> {
  const before = process.cpuUsage();
  for (let count = 0; count < lines; count += BURST) {
    for (let index = 0; index < BURST; index += 1) {
      const record = all[(count + index) % RECORDS];
      if (record !== undefined) write(record, 1.5 + index / 9);
    }
    await turn();
  }
  const { user, system } = process.cpuUsage(before);
  return ((user + system) * 1000) / lines;
}

const all = records();
const buffer = Buffer.alloc(64 * 1024 + LINE_BYTES_MAX);
let at = 0;
const destination = pino.destination({ dest: '/dev/null', append: true, sync: false, periodicFlush: 1000 });
const accessLog = new AccessLogFile(createLog('error'), '/dev/null');
const samples: readonly [string, (record: ExchangeRecord, totalMs: number) => void, number[]][] = [
  [
    'eventLoop',
    () => {
      at += 1;
    },
    [],
  ],
  [
    'writeLine',
    (record, totalMs) => {
      at = writeLine(buffer, at > 64 * 1024 ? 0 : at, record, totalMs);
    },
    [],
  ],
  [
    'accessLogFile',
    (record, totalMs) => {
      accessLog.write(record, totalMs);
    },
    [],
  ],
  [
    'template',
    (record, totalMs) => {
      destination.write(lineTemplate(record, totalMs));
    },
    [],
  ],
  [
    'jsonStringify',
    (record, totalMs) => {
      destination.write(`${JSON.stringify(lineObject(record, totalMs))}\n`);
    },
    [],
  ],
];
for (let round = -1; round < rounds; round += 1) {
  for (const [, write, times] of samples) {
    const time = await nanosecondsALine(all, write);
    if (round >= 0) times.push(time);
  }
}
await accessLog[Symbol.asyncDispose]();
const results = Object.fromEntries(samples.map(([what, , times]) => [`${what}.ns`, Math.round(quantile(times, 0.5))]));
console.log(JSON.stringify({ bench: 'access-log', ...machine(), rounds, lines, results }));
