/**
 * A steady stream of requests at an app that counts them, for as long as a story takes: what it answered is remembered, so that a count that was given
 * twice, or taken back, shows.
 */
import { Agent, request } from 'node:http';
import * as z from 'zod';

const PERIOD_MS = 50;
/** Longer than any hold. */
const REQUEST_LIMIT_MS = 35_000;
const UNDER_WAY_MAX = 64;

const countSchema = z.object({ boot: z.string(), count: z.int() });
export type Count = z.infer<typeof countSchema>;

export interface FaultLoad extends Disposable {
  /** Requests are sent, or not. */
  run(isOn: boolean): void;
  /** One request now; undefined: no good answer. */
  ask(): Promise<Count | undefined>;
  /** The highest count that a start of the app has answered with. */
  highest(boot: string): number;
  /** Counts that were answered twice: two copies of one memory were at work. */
  readonly repeated: readonly string[];
}

export function startFaultLoad(port: number, host: string): FaultLoad {
  const agent = new Agent({ keepAlive: true, maxSockets: UNDER_WAY_MAX });
  const seen = new Map<string, Set<number>>();
  const repeated: string[] = [];
  let underWay = 0;
  let isRunning = true;
  const remember = ({ boot, count }: Count): void => {
    const counts = seen.get(boot) ?? new Set();
    seen.set(boot, counts);
    if (counts.has(count)) repeated.push(`${boot} ${String(count)}`);
    counts.add(count);
  };
  const ask = async (): Promise<Count | undefined> => {
    const body = await getCount(agent, port, host);
    if (body !== undefined) remember(body);
    return body;
  };
  const timer = setInterval(() => {
    if (!isRunning || underWay >= UNDER_WAY_MAX) return;
    underWay += 1;
    void ask().finally(() => {
      underWay -= 1;
    });
  }, PERIOD_MS);
  return {
    run: (isOn) => {
      isRunning = isOn;
    },
    ask,
    highest: (boot) => Math.max(0, ...(seen.get(boot) ?? [])),
    repeated,
    [Symbol.dispose]: () => {
      clearInterval(timer);
      agent.destroy();
    },
  };
}

async function getCount(agent: Agent, port: number, host: string): Promise<Count | undefined> {
  return await new Promise((resolve) => {
    const place = { host: '127.0.0.1', port, path: '/count', headers: { host }, agent, timeout: REQUEST_LIMIT_MS };
    const outgoing = request(place, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (text: string) => {
        body += text;
      });
      response.once('error', () => {
        resolve(undefined);
      });
      response.once('end', () => {
        resolve(response.statusCode === 200 ? readCount(body) : undefined);
      });
    });
    outgoing.once('timeout', () => outgoing.destroy(new Error('no answer')));
    outgoing.once('error', () => {
      resolve(undefined);
    });
    outgoing.end();
  });
}

function readCount(body: string): Count | undefined {
  try {
    return countSchema.parse(JSON.parse(body));
  } catch {
    return undefined; // Cut off with its connection.
  }
}
