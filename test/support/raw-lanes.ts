/**
 * One edge with lanes: each has hosts and endpoints of its own, so that whatever reaches an endpoint belongs to the one case that holds its lane.
 *
 * Tables are written for `a.test` and `b.test`. Lanes have other names of the same length, so that no length in a case changes.
 */
import { startEdge } from './edge.ts';
import type { Edge } from './edge.ts';
import { makeCertificate } from './certificates.ts';
import { startRawEndpoint } from './raw-endpoint.ts';
import type { EndpointBehaviour, RawEndpoint } from './raw-endpoint.ts';

export interface Lane {
  readonly hostA: string;
  readonly hostB: string;
  readonly a: RawEndpoint;
  readonly b: RawEndpoint;
  /** A number that no other run of the file has. */
  readonly nextId: () => string;
}

/** Where requests go: an edge, or what stands for one. */
export interface Lanes extends AsyncDisposable {
  readonly httpPort: number;
  readonly httpsPort: number;
  readonly all: readonly Lane[];
  /** Runs `work` with a lane that nobody else has. */
  readonly take: <T>(work: (lane: Lane) => Promise<T>) => Promise<T>;
}

const LANES = 5;

/** `behaviour` is that of every endpoint; without it they echo. */
export async function startLanes(behaviour?: EndpointBehaviour): Promise<Lanes> {
  await using stack = new AsyncDisposableStack();
  const all: Lane[] = [];
  let ids = 0;
  const nextId = (): string => {
    ids += 1;
    return `r${String(ids)}`;
  };
  for (let index = 0; index < LANES; index += 1) {
    const a = stack.use(await startRawEndpoint(behaviour));
    const b = stack.use(await startRawEndpoint(behaviour));
    all.push({ hostA: `${'cdefg'[index] ?? 'h'}.test`, hostB: `${String(index)}.test`, a, b, nextId });
  }
  const edge = stack.use(await openEdge(all));
  const parts = stack.move();
  const free = [...all];
  const waiting: ((lane: Lane) => void)[] = [];
  return {
    httpPort: edge.httpPort,
    httpsPort: edge.httpsPort,
    all,
    take: async (work) => {
      const lane = free.pop() ?? (await new Promise<Lane>((resolve) => waiting.push(resolve)));
      try {
        return await work(lane);
      } finally {
        const next = waiting.shift();
        if (next === undefined) free.push(lane);
        else next(lane);
      }
    },
    [Symbol.asyncDispose]: async () => {
      await parts[Symbol.asyncDispose]();
    },
  };
}

async function openEdge(all: readonly Lane[]): Promise<Edge> {
  const named = all.flatMap(({ hostA, hostB, a, b }) => [[hostA, a] as const, [hostB, b] as const]);
  const certificate = await makeCertificate('*');
  return await startEdge({
    config: {
      version: 1,
      services: named.map(([host, endpoint]) => ({ id: host, tenant: 'acme', endpoints: [endpoint.endpoint()] })),
      routes: named.map(([host]) => ({ host, path: '/', serviceId: host })),
    },
    certificates: [certificate],
  });
}

/** Text of a table as it is in `lane`. */
export function inLane(text: string, lane: Lane): string {
  return text.replaceAll('a.test', lane.hostA).replaceAll('A.TEST', lane.hostA.toUpperCase()).replaceAll('b.test', lane.hostB);
}
