/**
 * A steady stream of requests at a fixed rate, whatever the answers take (open loop): GET, 64 KiB POST with a length, and chunked upload.
 *
 * Each has a number and a moment at which it is due; its latency counts from that moment, so that what waits in the client is not spared
 * (coordinated omission). Nothing is asked twice.
 */
import { createHash, randomBytes } from 'node:crypto';
import type { ClientRequest, IncomingMessage } from 'node:http';
import { z } from 'zod';
import { reasonOf } from '#errors';
import { quantile } from '../../machine.ts';
import type { Way } from './origin.ts';
import type { KindSeen, RequestKind, RequestsSeen } from './seen.ts';

interface Sample {
  readonly kind: RequestKind;
  readonly dueMs: number;
  readonly sentMs: number;
  readonly endMs: number;
  readonly fault: string | undefined;
  readonly boot: string;
}

export interface RequestClient {
  readonly begin: () => void;
  /** Waits for the answers of all that was due in the window. */
  readonly end: () => Promise<RequestsSeen>;
  readonly stop: () => void;
}

/** Three of five are GET. */
const MIX: readonly RequestKind[] = ['get', 'get', 'post', 'get', 'chunked'];
const BODY_BYTES = 64 * 1024;
const PIECES = 4;
const PIECE_PERIOD_MS = 4;
const TIMER_MS = 1;
/** Longer than any hold: a request that takes as long has failed. */
const REQUEST_LIMIT_MS = 45_000;
const ANSWER = z.object({
  boot: z.string(),
  number: z.int(),
  bytes: z.int().optional(),
  sha256: z.string().optional(),
});

export function startRequests(way: Way, ratePerSecond: number): RequestClient {
  const startedMs = performance.now();
  const underWay = new Set<Promise<void>>();
  let samples: Sample[] = [];
  let number = 0;

  const keep = async (due: { readonly kind: RequestKind; readonly number: number; readonly dueMs: number }): Promise<void> => {
    const sentMs = performance.now();
    const answer = await ask(way, due.kind, due.number);
    samples.push({ kind: due.kind, dueMs: due.dueMs, sentMs, endMs: performance.now(), ...answer });
  };
  const send = (dueMs: number): void => {
    const kind = MIX[number % MIX.length] ?? 'get';
    const done = keep({ kind, number, dueMs });
    number += 1;
    underWay.add(done);
    void done.finally(() => underWay.delete(done));
  };
  // A timer may come late; what is due is sent then, so that the rate stays what was asked for.
  const timer = setInterval(() => {
    const nowMs = performance.now();
    for (;;) {
      const dueMs = startedMs + (number * 1000) / ratePerSecond;
      if (dueMs > nowMs) return;
      send(dueMs);
    }
  }, TIMER_MS);
  let beginMs = startedMs;
  return {
    begin: () => {
      samples = [];
      beginMs = performance.now();
    },
    end: async () => {
      const endMs = performance.now();
      await Promise.all(underWay);
      return seenIn({ samples, beginMs, endMs });
    },
    stop: () => {
      clearInterval(timer);
    },
  };
}

/** Makes one request and says what was wrong with it. */
async function ask(
  way: Way,
  kind: RequestKind,
  number: number,
): Promise<{ readonly fault: string | undefined; readonly boot: string }> {
  const body = kind === 'get' ? Buffer.alloc(0) : bodyOf(number);
  return await new Promise((resolve) => {
    // The agent's own limit begins only when a request gets a connection.
    const limit = setTimeout(() => outgoing.destroy(new Error('no answer in time')), REQUEST_LIMIT_MS);
    const settle = (fault: string | undefined, boot = ''): void => {
      clearTimeout(limit);
      resolve({ fault, boot });
    };
    const headers: Record<string, string> = { 'x-request-number': String(number) };
    if (kind === 'post') headers['content-length'] = String(BODY_BYTES);
    const outgoing = way.request(
      {
        connection: 'kept',
        method: kind === 'get' ? 'GET' : 'POST',
        path: kind === 'get' ? '/count' : '/upload',
        headers,
      },
      (response) => {
        readAnswer(response, { number, body }, settle);
      },
    );
    outgoing.once('error', (error: NodeJS.ErrnoException) => {
      settle(`${kind}: ${error.code ?? error.message}`);
    });
    if (kind === 'chunked') writeInPieces(outgoing, body);
    else outgoing.end(body);
  });
}

const RANDOM = randomBytes(BODY_BYTES);

/** No body is like another. */
function bodyOf(number: number): Buffer {
  const body = Buffer.from(RANDOM);
  body.writeUInt32LE(number, 0);
  return body;
}

/** As a slow client: uploads of every age are under way when the container is frozen. */
function writeInPieces(outgoing: ClientRequest, body: Buffer): void {
  const bytes = BODY_BYTES / PIECES;
  let at = 0;
  const next = (): void => {
    if (outgoing.destroyed) return;
    outgoing.write(body.subarray(at, at + bytes));
    at += bytes;
    if (at === BODY_BYTES) outgoing.end();
    else setTimeout(next, PIECE_PERIOD_MS);
  };
  next();
}

function readAnswer(
  response: IncomingMessage,
  asked: { readonly number: number; readonly body: Buffer },
  settle: (fault: string | undefined, boot?: string) => void,
): void {
  let text = '';
  response.setEncoding('utf8').on('data', (piece: string) => {
    text += piece;
  });
  response.once('error', (error) => {
    settle(`cut: ${error.message}`);
  });
  response.once('end', () => {
    if (response.statusCode !== 200) {
      settle(`status ${String(response.statusCode)}: ${text.slice(0, 100)}`);
      return;
    }
    try {
      const { boot, number, bytes, sha256 } = ANSWER.parse(JSON.parse(text));
      const isMine =
        number === asked.number && (asked.body.length === 0 || (bytes === BODY_BYTES && sha256 === hashOf(asked.body)));
      settle(isMine ? undefined : 'an answer to something else', boot);
    } catch (error) {
      settle(`no answer of the app: ${reasonOf(error).slice(0, 100)}`);
    }
  });
}

function hashOf(body: Buffer): string {
  return createHash('sha256').update(body).digest('hex');
}

interface Window {
  /** All that ended since it began, whenever they were due. */
  readonly samples: readonly Sample[];
  readonly beginMs: number;
  readonly endMs: number;
}

function seenIn(all: Window): RequestsSeen {
  const samples = dueIn(all);
  const failures: Record<string, number> = {};
  for (const { fault } of samples) if (fault !== undefined) failures[fault] = (failures[fault] ?? 0) + 1;
  const summaryOfKind = (kind: RequestKind): KindSeen =>
    summaryOf({ ...all, samples: all.samples.filter((sample) => sample.kind === kind) });
  return {
    ...summaryOf(all),
    kinds: { get: summaryOfKind('get'), post: summaryOfKind('post'), chunked: summaryOfKind('chunked') },
    failures,
    boots: [...new Set(samples.map(({ boot }) => boot).filter((boot) => boot !== ''))],
    clientLateMs: Math.max(0, ...samples.map(({ dueMs, sentMs }) => sentMs - dueMs)),
  };
}

function dueIn({ samples, beginMs, endMs }: Window): readonly Sample[] {
  return samples.filter(({ dueMs }) => dueMs >= beginMs && dueMs < endMs);
}

function summaryOf(all: Window): KindSeen {
  const samples = dueIn(all);
  const good = samples.filter(({ fault }) => fault === undefined);
  const latencies = good.map(({ dueMs, endMs }) => endMs - dueMs);
  return {
    requests: samples.length,
    failed: samples.length - good.length,
    gapMs: longestGapMs(all),
    latencyP50Ms: latencies.length === 0 ? 0 : quantile(latencies, 0.5),
    latencyWorstMs: Math.max(0, ...latencies),
  };
}

/**
 * The longest time in which no good answer came, to whatever request: one that was due before the window counts too, or what waited when it began would
 * look like silence.
 */
function longestGapMs({ samples, beginMs, endMs }: Window): number {
  const good = samples.filter(({ fault }) => fault === undefined);
  let [lastMs, longestMs] = [beginMs, 0];
  for (const atMs of good.map((sample) => sample.endMs).toSorted((one, other) => one - other)) {
    longestMs = Math.max(longestMs, atMs - lastMs);
    lastMs = atMs;
  }
  return Math.max(longestMs, endMs - lastMs);
}
