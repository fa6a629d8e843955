/**
 * A crowd's first requests: every connection is there before the first byte of any request is sent, then all are sent at once. argv: JSON of `TOLD`.
 * Prints JSON of `FIRST_REQUESTS` and ends.
 */
import { connect } from 'node:net';
import { z } from 'zod';
import type { FirstRequests } from '../crowd.ts';
import { spreadOf } from '../summary.ts';

const TOLD = z.object({ port: z.int(), host: z.string(), count: z.int(), limitMs: z.number() });

interface Outcome {
  /** Of the answer; or what kept it from coming. */
  readonly what: string;
  readonly firstByteMs: number;
}

const told = TOLD.parse(JSON.parse(process.argv[2] ?? ''));

async function opened(): Promise<ReturnType<typeof connect>> {
  return await new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port: told.port }, () => {
      resolve(socket);
    });
    socket.once('error', reject);
  });
}

async function ask(socket: ReturnType<typeof connect>): Promise<Outcome> {
  const sentMs = performance.now();
  return await new Promise((resolve) => {
    const timer = setTimeout(() => {
      settle('no answer in time');
    }, told.limitMs);
    const settle = (what: string): void => {
      clearTimeout(timer);
      resolve({ what, firstByteMs: performance.now() - sentMs });
      socket.destroy();
    };
    socket.once('data', (bytes: Buffer) => {
      settle(/^HTTP\/1\.1 (\d{3})/.exec(bytes.toString('latin1'))?.[1] ?? 'no HTTP');
    });
    socket.once('error', (error: NodeJS.ErrnoException) => {
      settle(error.code ?? error.message);
    });
    socket.once('close', () => {
      settle('closed');
    });
    socket.write(`GET /count HTTP/1.1\r\nHost: ${told.host}\r\n\r\n`);
  });
}

const sockets = await Promise.all(Array.from({ length: told.count }, async () => await opened()));
const outcomes = await Promise.all(sockets.map(async (socket) => await ask(socket)));
const others: Record<string, number> = {};
for (const { what } of outcomes) if (what !== '200') others[what] = (others[what] ?? 0) + 1;
const good = outcomes.filter(({ what }) => what === '200');
const seen: FirstRequests = {
  requests: outcomes.length,
  answered: good.length,
  others,
  firstByteMs: spreadOf(good.map(({ firstByteMs }) => firstByteMs)),
};
process.stdout.write(`${JSON.stringify(seen)}\n`);
