/**
 * The one place that uses what Node does not document: reading accepted sockets into buffers of our own, what libuv has still queued, and a
 * shorter way to strings.
 *
 * Outgoing sockets have the option `onread` for this; accepted ones have the same three slots, but no public way to set them. The slots are
 * found by their descriptions on a socket that was made with `onread`. Whether it works in the Node at hand is tried once, when a worker
 * starts (`provePlain`, `proveTls`); where it does not, sockets are read by 'data' events, which costs some 2 µs a read more
 * (`npm run bench -- proxy`, docs/decisions/011).
 */
import { Socket, connect, createServer } from 'node:net';
import type { Server } from 'node:net';
import { connect as connectTls, createServer as createTlsServer } from 'node:tls';
import type { TLSSocket } from 'node:tls';

/** Takes bytes `[0, bytes)` of the buffer that was read into. False: stop reading. */
export type OnRead = (bytes: number) => boolean;
/** Gives the buffer for the next read. */
export type NextBuffer = () => Buffer;

interface Slots {
  readonly buffer: symbol;
  readonly callback: symbol;
  readonly generator: symbol;
}

/** A TCP or TLS handle as far as it is used here. */
interface Handle {
  readonly useUserBuffer: (buffer: Buffer) => void;
  readonly writeQueueSize?: unknown;
}

/** How long a proof may take: it talks to itself over the loopback. */
const PROOF_LIMIT_MS = 2_000;
const PROOF_TRIES = 3;
const slots = findSlots();

/** Makes an accepted socket read into `first`, again and again. Only where the proof for its kind has passed. */
export function readIntoBuffer(socket: Socket, first: Buffer, onRead: OnRead): boolean {
  const handle = handleOf(socket);
  if (slots === undefined || handle === undefined) return false;
  Reflect.set(socket, slots.buffer, first);
  Reflect.set(socket, slots.callback, onRead);
  Reflect.set(socket, slots.generator, null);
  handle.useUserBuffer(first);
  return true;
}

/**
 * From now on, `next` is asked for a buffer after each read; null: no more, the last one stays. For sockets that read into a buffer, accepted
 * or made with `onread`. PERF: asking costs half a microsecond, of which Node's own handling of the answer is most.
 */
export function askForBuffers(socket: Socket, next: NextBuffer | null): void {
  if (slots !== undefined) Reflect.set(socket, slots.generator, next);
}

/** Whether sockets can be asked to change their buffers. */
export const canChangeBuffers: boolean = slots !== undefined;

/** `[start, end)` as a string of one character an octet. PERF: without what `toString` does around it, a fifth of a microsecond. */
export const latin1: (buffer: Buffer, start: number, end: number) => string = findLatin1();

/** Bytes of `socket` that the kernel has not taken: to the byte where Node tells it, else whole writes. */
export function queuedBytes(socket: Socket): number {
  const size: unknown = handleOf(socket)?.writeQueueSize;
  return typeof size === 'number' ? Math.max(size, 0) : socket.writableLength;
}

/** Tries on real sockets whether accepted plain connections can be read so. Never rejects. */
export async function provePlain(): Promise<boolean> {
  return await proveSoon(async () => {
    const server = createServer({ allowHalfOpen: true });
    return await prove(server, 'connection', (port) => connect({ host: '127.0.0.1', port }));
  });
}

/** The same for TLS. A pre-shared key needs no certificate. */
export async function proveTls(): Promise<boolean> {
  const psk = Buffer.alloc(32, 1);
  const shared = { ciphers: 'PSK', minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' } as const;
  return await proveSoon(async () => {
    const server = createTlsServer({ ...shared, pskCallback: () => psk });
    return await prove(server, 'secureConnection', (port) =>
      connectTls({
        ...shared,
        host: '127.0.0.1',
        port,
        pskCallback: () => ({ psk, identity: 'proof' }),
        checkServerIdentity: () => undefined,
      }),
    );
  });
}

/** A proof failed once (2026-11-30, TLS, nobody knows why), and its worker would have been slower for all its life. */
async function proveSoon(once: () => Promise<boolean>): Promise<boolean> {
  for (let tries = 1; tries < PROOF_TRIES; tries += 1) if (await once()) return true;
  return await once();
}

function findSlots(): Slots | undefined {
  const probe = new Socket({ onread: { buffer: Buffer.alloc(1), callback: () => true } });
  const named = new Map(Object.getOwnPropertySymbols(probe).map((symbol) => [symbol.description, symbol]));
  const buffer = named.get('kBuffer');
  const callback = named.get('kBufferCb');
  const generator = named.get('kBufferGen');
  probe.destroy();
  return buffer === undefined || callback === undefined || generator === undefined ? undefined : { buffer, callback, generator };
}

function findLatin1(): (buffer: Buffer, start: number, end: number) => string {
  const slice: unknown = Reflect.get(Buffer.prototype, 'latin1Slice');
  if (!isLatin1Slice(slice)) return (buffer, start, end) => buffer.toString('latin1', start, end);
  return (buffer, start, end) => slice.call(buffer, start, end);
}

function isLatin1Slice(candidate: unknown): candidate is (this: Buffer, start: number, end: number) => string {
  return typeof candidate === 'function' && Reflect.apply(candidate, Buffer.from([0x61, 0xe9, 0x00]), [1, 3]) === '\u00e9\0';
}

function handleOf(socket: Socket): Handle | undefined {
  const handle: unknown = Reflect.get(socket, '_handle');
  return isHandle(handle) ? handle : undefined;
}

function isHandle(value: unknown): value is Handle {
  return typeof value === 'object' && value !== null && 'useUserBuffer' in value && typeof value.useUserBuffer === 'function';
}

/** Whether two messages and an end come through two buffers in turn, with a pause between, and an answer goes back. */
async function prove(server: Server, event: string, dial: (port: number) => Socket | TLSSocket): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const sockets: Socket[] = [];
  const keep = (socket: Socket): void => {
    sockets.push(socket);
    socket.on('error', () => {
      resolve(false);
    });
  };
  const timer = setTimeout(() => {
    resolve(false);
  }, PROOF_LIMIT_MS);
  server.on('error', () => {
    resolve(false);
  });
  server.on('tlsClientError', () => {
    resolve(false);
  });
  server.on(event, (socket: Socket) => {
    keep(socket);
    if (!listenForProof(socket, resolve)) resolve(false);
  });
  server.listen({ host: '127.0.0.1', port: 0 }, () => {
    const address = server.address();
    if (typeof address !== 'object' || address === null) return;
    const client = dial(address.port);
    keep(client);
    client.write('one');
    client.once('data', () => {
      client.end('two');
    });
  });
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    for (const socket of sockets) socket.destroy();
    server.close();
  }
}

function listenForProof(socket: Socket, resolve: (works: boolean) => void): boolean {
  const buffers = [Buffer.alloc(16), Buffer.alloc(16)] as const;
  const seen: string[] = [];
  const began = readIntoBuffer(socket, buffers[0], (bytes) => {
    seen.push(buffers[seen.length === 0 ? 0 : 1].toString('latin1', 0, bytes));
    if (seen.length > 1) return true;
    askForBuffers(socket, () => {
      askForBuffers(socket, null);
      return buffers[1];
    });
    socket.write('ok');
    setImmediate(() => socket.resume());
    return false;
  });
  socket.on('end', () => {
    resolve(seen.length === 2 && seen[0] === 'one' && seen[1] === 'two');
  });
  socket.resume();
  return began;
}
