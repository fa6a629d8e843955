/** Load generators, all on the load's core: wrk, h2load at a constant rate, and WebSockets of our own. */
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { quantile } from '../machine.ts';
import { BENCH_HOST } from './configs.ts';
import type { LoadedCase, WrkCase } from './cases.ts';
import type { Origin } from './origin.ts';
import type { Peer } from './peers.ts';
import { LOAD_CORE } from './stage.ts';
import type { Child, Stage } from './stage.ts';

export interface Settings {
  readonly connections: number;
  readonly seconds: number;
  /** Requests a second of the latency case, the same for every peer. */
  readonly rate: number;
}

export interface Load {
  readonly rampMs: number;
  /** Requests or messages so far. */
  readonly operations: () => Promise<number>;
  readonly finish: () => Promise<LoadResult>;
}

export interface LoadResult {
  readonly errors: readonly string[];
  /** Operations of the whole run as the generator counts them. */
  readonly requests: number;
  readonly perSecond: number;
  readonly p50Us: number;
  readonly p99Us: number;
  /** As measured, without correction for requests that were sent late. */
  readonly rawP99Us?: number;
}

export interface LoadDeps {
  readonly stage: Stage;
  readonly origin: Origin;
  readonly peer: Peer;
}

const RAMP_MS = 600;
const RAMP_MS_PER_CONNECTION = 0.25;
const SLACK_SECONDS = 0.3;
/** Full handshakes a second: well under what any of the peers can do, so that each has the same number to do. */
const HANDSHAKES_PER_SECOND = 1000;
const HANDSHAKE_PERIOD_MS = 10;
/** Of the constant rate: more of them burden the load's core, fewer send in bursts. */
const GENERATORS = 8;

export function startLoad(deps: LoadDeps, what: LoadedCase, settings: Settings): Load {
  switch (what.kind) {
    case 'wrk':
      return startWrk(deps, what, settings);
    case 'handshakes':
      return startHandshakes(deps, settings);
    case 'latency':
      return startConstantRate(deps, settings);
    case 'websocket':
      return startWebsockets(deps, settings);
  }
}

function startWrk({ stage, origin, peer }: LoadDeps, what: WrkCase, { connections, seconds }: Settings): Load {
  const rampMs = RAMP_MS + RAMP_MS_PER_CONNECTION * connections;
  const wrkSeconds = Math.ceil(seconds + rampMs / 1000 + SLACK_SECONDS);
  const url = what.tls
    ? `https://${BENCH_HOST}:${String(peer.httpsPort)}${what.path}`
    : `http://127.0.0.1:${String(peer.httpPort)}${what.path}`;
  const how = ['-t1', `-c${String(connections)}`, `-d${String(wrkSeconds)}s`, '--timeout', '8s', '-H', `Host: ${BENCH_HOST}`];
  const argv = ['wrk', ...how, '-s', join(import.meta.dirname, 'wrk.lua'), url];
  const child = stage.start({ core: LOAD_CORE, argv, env: what.env });
  return {
    rampMs,
    operations: origin.requests,
    finish: async () => {
      await child.exit;
      return wrkResult(child);
    },
  };
}

const WRK_SUMMARY = z.object({
  requests: z.int(),
  durationUs: z.int(),
  connect: z.int(),
  read: z.int(),
  write: z.int(),
  status: z.int(),
  timeout: z.int(),
  p50Us: z.number(),
  p99Us: z.number(),
});
const WEBSOCKET_COUNTS = z.object({ messages: z.int(), errors: z.array(z.string()) });

function wrkResult(child: Child): LoadResult {
  const line = /^BENCH (.*)$/m.exec(child.out())?.[1];
  if (line === undefined) return failed(`wrk said nothing: ${child.err()}${child.out()}`.slice(0, 500));
  const { requests, durationUs, p50Us, p99Us, status, connect, read, write, timeout } = WRK_SUMMARY.parse(JSON.parse(line));
  const faults = { 'non-2xx': status, connect, read, write, timeout };
  const errors = Object.entries(faults).filter(([, count]) => count > 0);
  return {
    errors: errors.map(([what, count]) => `${String(count)} × ${what}`),
    requests,
    perSecond: requests / (durationUs / 1e6),
    p50Us,
    p99Us,
  };
}

function failed(reason: string): LoadResult {
  return { errors: [reason], requests: 0, perSecond: Number.NaN, p50Us: Number.NaN, p99Us: Number.NaN };
}

/** One connection with a full TLS 1.3 handshake per request. wrk would resume every second session; h2load never does. */
function startHandshakes({ stage, origin, peer }: LoadDeps, { seconds }: Settings): Load {
  const count = String(Math.ceil((seconds + RAMP_MS / 1000 + SLACK_SECONDS) * HANDSHAKES_PER_SECOND));
  const perPeriod = String((HANDSHAKES_PER_SECOND * HANDSHAKE_PERIOD_MS) / 1000);
  const how = ['-n', count, '-c', count, '-r', perPeriod, `--rate-period=${String(HANDSHAKE_PERIOD_MS)}ms`];
  const to = [`--connect-to=127.0.0.1:${String(peer.httpsPort)}`, '-H', 'connection: close', `https://${BENCH_HOST}/`];
  const child = stage.start({ core: LOAD_CORE, argv: ['h2load', '--h1', '-t1', ...how, ...to] });
  return {
    rampMs: RAMP_MS,
    operations: origin.requests,
    finish: async () => {
      await child.exit;
      return h2loadResult(child);
    },
  };
}

function h2loadResult(child: Child): LoadResult {
  const text = child.out();
  const counts = /(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout/.exec(text);
  if (counts === null) return failed(`h2load said nothing: ${child.err()}${text}`.slice(0, 500));
  const [, succeeded, ...faults] = counts.map(Number);
  const other = /2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx/.exec(text)?.slice(1).map(Number) ?? [];
  const bad = sum([...faults, ...other]);
  const perSecond = Number(/([\d.]+) req\/s/.exec(text)?.[1]);
  const errors = bad === 0 ? [] : [`${counts[0]}; ${String(other)} answers 3xx, 4xx, 5xx`];
  return { errors, requests: succeeded ?? 0, perSecond, p50Us: Number.NaN, p99Us: Number.NaN };
}

/**
 * A constant rate over keep-alive connections, from several h2loads: within one of them the connections send at the same moments, and one of 64
 * connections measures its own bursts (p50 0.9 ms where eight of 8 see 0.14 ms). Each connection has one request under way at most, so a proxy that
 * stalls delays what would have been sent: the quantiles are corrected for that as HdrHistogram does, by the requests that each late one hid.
 */
function startConstantRate({ stage, origin, peer }: LoadDeps, { connections, seconds, rate }: Settings): Load {
  const clients = Math.max(1, Math.round(connections / GENERATORS));
  const perClient = rate / (clients * GENERATORS);
  const duration = Math.ceil(seconds + RAMP_MS / 1000 + SLACK_SECONDS);
  const how = ['-t1', '-c', String(clients), '-D', String(duration), `--rps=${perClient.toFixed(3)}`];
  const generators = Array.from({ length: GENERATORS }, (_, index) => {
    const logFile = stage.path(`latency-${String(index)}`);
    const to = [`--connect-to=127.0.0.1:${String(peer.httpPort)}`, `--log-file=${logFile}`, `http://${BENCH_HOST}/`];
    return { logFile, child: stage.start({ core: LOAD_CORE, argv: ['h2load', '--h1', ...how, ...to] }) };
  });
  return {
    rampMs: RAMP_MS,
    operations: origin.requests,
    finish: async () => {
      const raw: number[] = [];
      for (const { logFile, child } of generators) {
        await child.exit;
        for (const value of latencies(await readFile(logFile, 'latin1'))) raw.push(value);
        await rm(logFile);
      }
      const results = generators.map(({ child }) => h2loadResult(child));
      const corrected = correctForOmission(raw, 1e6 / perClient);
      return {
        errors: results.flatMap(({ errors }) => errors),
        requests: sum(results.map(({ requests }) => requests)),
        perSecond: sum(results.map(({ perSecond }) => perSecond)),
        p50Us: quantile(corrected, 0.5),
        p99Us: quantile(corrected, 0.99),
        rawP99Us: quantile(raw, 0.99),
      };
    },
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

/** Lines of start, status and elapsed, in µs; what began during the ramp is left out. */
function latencies(log: string): number[] {
  const found: number[] = [];
  let firstUs: number | undefined;
  for (const line of log.split('\n')) {
    const [startUs = Number.NaN, status = -1, elapsedUs = 0] = line.split('\t').map(Number);
    if (status !== 200) continue;
    firstUs ??= startUs;
    if (startUs - firstUs > RAMP_MS * 1000) found.push(elapsedUs);
  }
  return found;
}

function correctForOmission(values: readonly number[], intervalUs: number): number[] {
  const corrected: number[] = [];
  for (const value of values) for (let hidden = value; hidden > 0; hidden -= intervalUs) corrected.push(hidden);
  return corrected;
}

function startWebsockets({ stage, peer }: LoadDeps, { connections }: Settings): Load {
  const program = join(import.meta.dirname, 'programs', 'websocket-client.ts');
  const argv = [process.execPath, program, String(peer.httpPort), BENCH_HOST, String(connections)];
  const child = stage.start({ core: LOAD_CORE, argv });
  const startMs = performance.now();
  const ask = async (): Promise<z.infer<typeof WEBSOCKET_COUNTS>> => {
    const before = child.out().length;
    child.tell('count');
    while (child.out().length === before) {
      if (!child.running()) throw new Error(`the WebSocket client ended: ${child.err()}`);
      await new Promise((resolve) => setImmediate(resolve));
    }
    return WEBSOCKET_COUNTS.parse(JSON.parse(child.out().trim().split('\n').at(-1) ?? ''));
  };
  return {
    rampMs: 2 * RAMP_MS,
    operations: async () => (await ask()).messages,
    finish: async () => {
      const { messages, errors } = await ask();
      await child.stop();
      const perSecond = messages / ((performance.now() - startMs) / 1000);
      return {
        errors: messages === 0 ? [...errors, 'no message came back'] : errors,
        requests: messages,
        perSecond,
        p50Us: Number.NaN,
        p99Us: Number.NaN,
      };
    },
  };
}
