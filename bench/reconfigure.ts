/**
 * What does a change of routes cost, and what do clients notice of it?
 *
 *   growth   an edge of 2 workers with its store, driven as the admin API drives it, with `--sizes` routes over a fifth as many hosts: the cold start; memory
 *            for each route and worker, over an edge with 5 routes; and `--changes` changes one after the other (an endpoint that moves, a route and its
 *            service that come, a route that goes, in turn), each timed until all workers serve it, with the longest stall of any worker's event loop
 *   live     1 000 changes in 60 s, each of which leads all traffic to another endpoint, under 100 WebSockets, 100 event streams and 200 requests a second; heap after it
 *   peers    the same change and traffic with nginx (SIGHUP), HAProxy (SIGUSR2 to its master) and Caddy (`POST /load`), `--peer-changes` of them in turn, at
 *            `--hosts` hosts: from the moment at which the change is ordered to the first answer of the new endpoint
 *
 * No certificates: the hosts are plain HTTP. `--parts A,B` (default all), `--sizes` (1000,10000,100000), `--changes` (300), `--live-changes` (1000), `--live-seconds` (60),
 * `--peer-changes` (30), `--hosts` (1000), `--names` of peers.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import type { Operation } from '#routing/operator/schema.ts';
import { machine, quantile, versions } from './machine.ts';
import { documentOfSize, MeasuredEdge } from './reconfigure/edge.ts';
import { Traffic } from './reconfigure/load.ts';
import { isInstalled, letterAt, PEERS, urlOf } from './reconfigure/peers.ts';
import type { PeerName, Reconfigured } from './reconfigure/peers.ts';

const WORKERS = 2;
const { values } = parseArgs({
  options: {
    parts: { type: 'string', default: 'growth,live,peers' },
    sizes: { type: 'string', default: '1000,10000,100000' },
    changes: { type: 'string', default: '300' },
    'live-changes': { type: 'string', default: '1000' },
    'live-seconds': { type: 'string', default: '60' },
    'peer-changes': { type: 'string', default: '30' },
    hosts: { type: 'string', default: '1000' },
    names: { type: 'string', default: 'ecluse,nginx,haproxy,caddy' },
  },
});
const parts = new Set(values.parts.split(','));
/** A change that is not served by then is not served at all. */
const SERVED_LIMIT_MS = 10_000;
const STREAMS = { webSockets: 100, eventStreams: 100, ratePerSecond: 200 };
process.execArgv.push('--expose-gc');

function operationsOf(round: number, routes: number): readonly Operation[] {
  const turn = Math.floor(round / 3);
  const number = (turn * 7919) % Math.max(1, Math.floor(routes / 5));
  const endpoints = [`http://127.0.0.1:${String(2000 + (round % 60_000))}`];
  const match = { host: `h${String(number)}.example.com`, path: `/new-${String(turn)}` };
  switch (round % 3) {
    case 0:
      return [{ op: 'put-service', name: `s${String(number)}`, service: { endpoints } }];
    case 1:
      return [
        { op: 'put-service', name: `new-${String(turn)}`, service: { endpoints } },
        { op: 'put-route', route: { match, service: `new-${String(turn)}` } },
      ];
    default:
      return [{ op: 'remove-route', match }];
  }
}

const round1 = (value: number): number => Math.round(value * 10) / 10;

async function heapOfEmpty(): Promise<{ readonly heap: number; readonly rss: number }> {
  await using edge = await MeasuredEdge.open(documentOfSize(5, 'http://127.0.0.1:1'), WORKERS);
  const measured = await edge.measure();
  return { heap: Math.min(...measured.map(({ heapUsed }) => heapUsed)), rss: Math.min(...measured.map(({ rss }) => rss)) };
}

async function growth(sizes: readonly number[], changes: number): Promise<readonly object[]> {
  const empty = await heapOfEmpty();
  const results: object[] = [];
  for (const routes of sizes) {
    await using edge = await MeasuredEdge.open(documentOfSize(routes, 'http://127.0.0.1:1'), WORKERS);
    const booted = await edge.measure();
    const heap = Math.max(...booted.map(({ heapUsed }) => heapUsed));
    const times: number[] = [];
    for (let round = 0; round < changes; round += 1) times.push(await edge.change(operationsOf(round, routes)));
    const after = await edge.measure();
    results.push({
      routes,
      hosts: routes / 5,
      coldStartMs: Math.round(edge.coldStartMs),
      heapBytesPerRoute: Math.round((heap - empty.heap) / routes),
      rssBytesPerRoute: Math.round((Math.max(...booted.map(({ rss }) => rss)) - empty.rss) / routes),
      ackMs: spread(times),
      stallMs: {
        worst: round1(Math.max(...after.map(({ stallMs }) => stallMs))),
        p99: round1(Math.max(...after.map(({ stallP99Ms }) => stallP99Ms))),
        longestWork: round1(Math.max(...after.map(({ longestWorkMs }) => longestWorkMs))),
      },
      heapGrowthBytes: Math.max(...after.map(({ heapUsed }) => heapUsed)) - heap,
    });
  }
  return results;
}

function spread(times: readonly number[]): object {
  return { p50: round1(quantile(times, 0.5)), p99: round1(quantile(times, 0.99)), worst: round1(Math.max(...times)) };
}

async function live(changes: number, seconds: number): Promise<object> {
  await using traffic = await Traffic.open();
  const base = documentOfSize(10_000, urlOf(traffic.ports.a));
  await using edge = await MeasuredEdge.open(
    {
      services: { ...base.services, traffic: { endpoints: [urlOf(traffic.ports.a)] } },
      routes: [...base.routes, { match: { host: 'localhost' }, service: 'traffic' }],
    },
    WORKERS,
  );
  await traffic.start({ port: edge.pool.listening.http?.port ?? 0, ...STREAMS });
  await sleep(3000);
  const before = await edge.measure();
  const startMs = performance.now();
  const times: number[] = [];
  // What a worker learns with its first changes (compiled code, shapes) stays; what each change leaves would grow in the second half as in the first.
  let half = before;
  for (let round = 0; round < changes; round += 1) {
    if (round === Math.floor(changes / 2)) half = await edge.measure();
    const port = round % 2 === 0 ? traffic.ports.b : traffic.ports.a;
    times.push(await edge.change([{ op: 'put-service', name: 'traffic', service: { endpoints: [urlOf(port)] } }]));
    const dueMs = startMs + ((round + 1) * seconds * 1000) / changes;
    await sleep(Math.max(0, dueMs - performance.now()));
  }
  const tookMs = performance.now() - startMs;
  await sleep(2000);
  const after = await edge.measure();
  const outcome = await traffic.stop();
  await sleep(1000);
  const ended = await edge.measure();
  const heap = (measured: typeof before): number => Math.max(...measured.map(({ heapUsed }) => heapUsed));
  return {
    changes,
    tookMs: Math.round(tookMs),
    ...STREAMS,
    ...outcome,
    ackMs: spread(times),
    stallMs: round1(Math.max(...after.map(({ stallMs }) => stallMs))),
    heapBeforeBytes: heap(before),
    heapAtHalfBytes: heap(half),
    heapAfterBytes: heap(after),
    heapWithoutStreamsBytes: heap(ended),
  };
}

/** How long after the order the first answer of the new endpoint comes, with a look each 2 ms; undefined: it does not come. */
async function servedMs(peer: Reconfigured, endpointPort: number, letter: string): Promise<number | undefined> {
  const startMs = performance.now();
  const told = peer.lead(endpointPort);
  while ((await letterAt(peer.port)) !== letter) {
    if (performance.now() - startMs > SERVED_LIMIT_MS) return undefined;
    await sleep(2);
  }
  await told;
  return performance.now() - startMs;
}

async function peers(names: readonly PeerName[], changes: number, hosts: number): Promise<readonly object[]> {
  const results: object[] = [];
  for (const name of names) {
    if (!isInstalled(name)) {
      results.push({ name, leftOut: 'it is not installed' });
      continue;
    }
    await using traffic = await Traffic.open();
    await using peer = await PEERS[name]({ hosts, endpointPort: traffic.ports.a, workers: WORKERS });
    await traffic.start({ port: peer.port, ...STREAMS });
    await sleep(1000);
    const times: number[] = [];
    let neverServed = 0;
    for (let round = 0; round < changes && peer.ended() === undefined; round += 1) {
      const [port, letter] = round % 2 === 0 ? [traffic.ports.b, 'B'] : [traffic.ports.a, 'A'];
      const ms = await servedMs(peer, port, letter);
      if (ms === undefined) neverServed += 1;
      else times.push(ms);
      await sleep(500);
    }
    await sleep(1000);
    const result = { name, hosts, changes, servedMs: spread(times), neverServed, ended: peer.ended(), ...(await traffic.stop()) };
    process.stderr.write(`${JSON.stringify(result)}\n`);
    results.push(result);
  }
  return results;
}

const isPeer = (name: string): name is PeerName => Object.hasOwn(PEERS, name);
const results = {
  growth: parts.has('growth') ? await growth(values.sizes.split(',').map(Number), Number(values.changes)) : undefined,
  live: parts.has('live') ? await live(Number(values['live-changes']), Number(values['live-seconds'])) : undefined,
  peers: parts.has('peers')
    ? await peers(values.names.split(',').filter(isPeer), Number(values['peer-changes']), Number(values.hosts))
    : undefined,
};
process.stdout.write(`${JSON.stringify({ machine: machine(), versions: versions(), workers: WORKERS, ...results }, null, 2)}
`);
