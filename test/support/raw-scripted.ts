/** An edge with one endpoint that behaves as the test at hand says, by the target of the request. */
import { setTimeout as sleep } from 'node:timers/promises';
import { configOf, startEdge } from './edge.ts';
import type { Edge, EdgeOptions } from './edge.ts';
import { RawClient } from './raw-client.ts';
import { echo, startRawEndpoint } from './raw-endpoint.ts';
import type { EndpointBehaviour, EndpointConnection, RawEndpoint, SeenRequest } from './raw-endpoint.ts';
import { isBetween, valuesOf } from './raw-message.ts';
import type { RawMessage } from './raw-message.ts';

/** What is to close at once may take that long. */
const CLOSE_MS = 1_500;

export type Head = Parameters<NonNullable<EndpointBehaviour['onHead']>>[0];

interface Scene {
  readonly onHead?: (head: Head, connection: EndpointConnection) => void;
  /** Without it the endpoint stays silent. */
  readonly onRequest?: (seen: SeenRequest) => void;
}

export interface Stage extends AsyncDisposable {
  readonly edge: Edge;
  readonly endpoint: RawEndpoint;
  /** Says what happens at a target of its own, which it gives. */
  readonly at: (scene: Scene) => string;
  readonly client: () => Promise<RawClient>;
}

export async function startStage(options: Omit<EdgeOptions, 'config'> = {}): Promise<Stage> {
  const scenes = new Map<string, Scene>();
  await using stack = new AsyncDisposableStack();
  const endpoint = stack.use(
    await startRawEndpoint({
      onHead: (head, connection) => scenes.get(head.target)?.onHead?.(head, connection),
      onRequest: (seen) => {
        const scene = scenes.get(seen.message.target);
        if (scene === undefined) echo(seen);
        else scene.onRequest?.(seen);
      },
    }),
  );
  const edge = stack.use(await startEdge({ ...options, config: configOf([endpoint.endpoint()]) }));
  const parts = stack.move();
  return {
    edge,
    endpoint,
    at: (scene) => {
      const target = `/scene/${String(scenes.size)}`;
      scenes.set(target, scene);
      return target;
    },
    client: async () => await RawClient.open({ port: edge.httpPort }),
    [Symbol.asyncDispose]: async () => {
      await parts[Symbol.asyncDispose]();
    },
  };
}

/** A scene that answers whole requests with `text`. */
export function answering(text: string, then: 'stay' | 'end' | 'reset' = 'stay'): Scene {
  return {
    onRequest: ({ connection }) => {
      write(connection, text, then);
    },
  };
}

export function write({ socket }: EndpointConnection, text: string, then: 'stay' | 'end' | 'reset' = 'stay'): void {
  if (!socket.writable) return;
  socket.write(text, 'latin1', () => {
    if (then === 'end') socket.end();
    else if (then === 'reset') socket.resetAndDestroy();
  });
}

/** The one request that came for `target`. */
export function seenAt(stage: Stage, target: string): RawMessage {
  const [seen, ...more] = stage.endpoint.seen.filter(({ message }) => message.target === target);
  if (seen === undefined || more.length > 0) throw new Error(`${String(more.length + 1)} requests for ${target}`);
  return seen.message;
}

/**
 * What is to be poured to see that somebody is held back. Linux lets a receive buffer grow to 32 MiB (`net.ipv4.tcp_rmem`) and there are
 * two on the way through the edge: that less than half goes out shows that it is the edge who stops.
 */
export const HELD_BACK_BYTES = 160 * 1024 * 1024;

/** Writes `total` octets as fast as they are taken. Gives how many were handed to the kernel, and ends when all were or `signal` says so. */
export function pour(
  socket: { write: (chunk: Buffer, done: (error?: Error | null) => void) => boolean; readonly writable: boolean },
  total: number,
): { readonly sent: () => number; readonly done: Promise<void> } {
  let sent = 0;
  const piece = Buffer.alloc(64 * 1024, 'x');
  const run = async (): Promise<void> => {
    while (sent < total && socket.writable) {
      const { promise, resolve } = Promise.withResolvers<undefined>();
      socket.write(piece, () => {
        resolve(undefined);
      });
      await promise;
      sent += piece.length;
    }
  };
  return { sent: () => sent, done: run() };
}

/** True where a number stays the same for a while. */
export async function standsStill(read: () => number, limitMs = 3_000): Promise<boolean> {
  const end = performance.now() + limitMs;
  for (let last = -1; performance.now() < end;) {
    const now = read();
    if (now === last) return true;
    last = now;
    await sleep(250);
  }
  return false;
}

/** What becomes of a connection behind its last answer: `stays` where another request gets its own answer, `closes` where that was said, or what is wrong. */
export async function afterwards(client: RawClient): Promise<string> {
  const last = client.finals.at(-1);
  if (!isBetween(client.reader)) return `something is left: ${client.state}`;
  if (last !== undefined && valuesOf(last, 'connection').some((value) => /(?:^|,)\s*close\s*(?:,|$)/i.test(value)))
    return (await client.closed(CLOSE_MS)) ? 'closes' : `says close and stays: ${client.state}`;
  if (client.ended !== 'no') return `closes without saying so: ${client.state}`;
  client.expect('GET');
  const earlier = client.finals.length;
  client.send('GET /next HTTP/1.1\r\nHost: app.test\r\nX-Case: next\r\n\r\n');
  const next = (await client.answers(earlier + 1)).at(earlier);
  return next?.status === 200 && next.body === 'next GET /next 0' ? 'stays' : `says nothing and does not stay: ${client.state}`;
}
