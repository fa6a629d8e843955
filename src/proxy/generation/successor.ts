/** A worker whose primary is gone looks for the one that comes after it. */
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import type { Clock } from '#clock';
import type { FromWorker, ToWorker } from '#proxy/protocol.ts';
import { FrameReader, frameOf } from './frames.ts';

/** A whole configuration of 100 000 routes is some tens of MB. Certificates are not told this way. */
const MESSAGE_BYTES_MAX = 512 * 1024 * 1024;
const LOOK_PERIOD_MS = 50;

export interface Successor {
  readonly send: (message: FromWorker) => void;
  /** Resolves when what was sent is on its way. */
  readonly flushed: () => Promise<void>;
  /** It is gone, too. */
  readonly closed: Promise<void>;
}

/** Returns when one was found and greeted; undefined: there was none within `waitMs`. */
export async function findSuccessor(
  clock: Clock,
  options: {
    readonly socketPath: string;
    readonly waitMs: number;
    readonly hello: FromWorker & { readonly kind: 'hello' };
    readonly hear: (message: ToWorker) => void;
  },
): Promise<Successor | undefined> {
  const endMs = clock.monotonicMs() + options.waitMs;
  for (;;) {
    const socket = await connected(options.socketPath);
    if (socket !== undefined) return talkTo(socket, options);
    if (clock.monotonicMs() >= endMs) return undefined;
    await clock.sleep(LOOK_PERIOD_MS);
  }
}

async function connected(socketPath: string): Promise<Socket | undefined> {
  const { promise, resolve } = Promise.withResolvers<Socket | undefined>();
  const socket = connect(socketPath);
  socket.once('connect', () => {
    resolve(socket);
  });
  socket.once('error', () => {
    resolve(undefined);
  });
  return await promise;
}

function talkTo(
  socket: Socket,
  { hello, hear }: { readonly hello: FromWorker & { readonly kind: 'hello' }; readonly hear: (message: ToWorker) => void },
): Successor {
  const reader = new FrameReader<ToWorker>(MESSAGE_BYTES_MAX);
  const closed = Promise.withResolvers<void>();
  socket.on('error', () => undefined); // `close` follows.
  socket.once('close', () => {
    closed.resolve();
  });
  socket.on('data', (bytes: Buffer) => {
    try {
      for (const message of reader.read(bytes)) hear(message);
    } catch {
      socket.destroy();
    }
  });
  socket.write(frameOf(hello));
  return {
    send: (message) => {
      if (!socket.destroyed) socket.write(frameOf(message));
    },
    flushed: async () => {
      const done = Promise.withResolvers<void>();
      if (socket.destroyed) return;
      socket.end(() => {
        done.resolve();
      });
      await Promise.race([done.promise, closed.promise]);
    },
    closed: closed.promise,
  };
}
