/**
 * A steady stream of HTTPS requests at a fixed rate, whatever the answers take (open loop): what a client sees while something happens behind.
 */
import { readFileSync } from 'node:fs';
import { Agent, request } from 'node:https';

export interface LoadTarget {
  readonly port: number;
  readonly host: string;
  readonly path: string;
  readonly caFile: string;
}

export interface LoadSample {
  readonly startMs: number;
  readonly tookMs: number;
  readonly status: number;
  readonly body: string;
  readonly error: string | undefined;
}

export interface SteadyLoad {
  /** Ends the stream, waits for what is under way and returns every request in order of its start. */
  stop(): Promise<readonly LoadSample[]>;
}

/** Longer than any hold: a request that takes as long has failed. */
const REQUEST_LIMIT_MS = 40_000;

export function startSteadyLoad(target: LoadTarget, ratePerSecond: number): SteadyLoad {
  const agent = new Agent({ keepAlive: true, ca: readFileSync(target.caFile), servername: target.host, maxSockets: 512 });
  const samples: LoadSample[] = [];
  const underWay = new Set<Promise<void>>();
  const startedMs = performance.now();
  let sent = 0;
  const send = (): void => {
    const startMs = performance.now();
    const done = new Promise<void>((resolve) => {
      const settle = (status: number, body: string, error?: string): void => {
        samples.push({ startMs, tookMs: performance.now() - startMs, status, body, error });
        resolve();
      };
      const outgoing = request(
        {
          host: '127.0.0.1',
          port: target.port,
          path: target.path,
          headers: { host: target.host },
          agent,
          timeout: REQUEST_LIMIT_MS,
        },
        (response) => {
          let body = '';
          response.setEncoding('utf8');
          response.on('data', (chunk: string) => {
            body += chunk;
          });
          response.once('end', () => {
            settle(response.statusCode ?? 0, body);
          });
          response.once('error', (error) => {
            settle(0, body, error.message);
          });
        },
      );
      outgoing.once('timeout', () => outgoing.destroy(new Error('timed out')));
      outgoing.once('error', (error) => {
        settle(0, '', error.message);
      });
      outgoing.end();
    });
    underWay.add(done);
    void done.finally(() => underWay.delete(done));
  };
  // A timer may come late; what is due is sent then, so that the rate stays what was asked for.
  const timer = setInterval(() => {
    const due = Math.floor(((performance.now() - startedMs) * ratePerSecond) / 1000);
    for (; sent < due; sent += 1) send();
  }, 5);
  return {
    stop: async () => {
      clearInterval(timer);
      await Promise.all(underWay);
      agent.destroy();
      return samples.toSorted((one, other) => one.startMs - other.startMs);
    },
  };
}

/** The longest time in which no answer came: the pause that a client sees. */
export function longestGapMs(samples: readonly LoadSample[]): number {
  const ends = samples.map((sample) => sample.startMs + sample.tookMs).toSorted((one, other) => one - other);
  let longest = 0;
  for (const [index, end] of ends.entries()) longest = Math.max(longest, end - (ends[index - 1] ?? end));
  return longest;
}
