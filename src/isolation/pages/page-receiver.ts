/** The target's end as its node's primary process sees it: one listener a node, and a sink for each migration that comes. */
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, rm, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import type { AssembledImage, PageSink, PeerTls } from './exchange.ts';
import { cancelled } from './page-errors.ts';
import { PAGE_BYTES } from './page-hash.ts';
import type { ReceiverAnswer, ReceiverRequest } from './page-receiver-thread.ts';
import { PageThread } from './page-thread.ts';
import { EcluseError } from '#errors';

export interface PageReceiverOptions {
  readonly host: string;
  /** 0: one that is free. */
  readonly port: number;
  readonly tls: PeerTls;
  /** Memory-backed, and this receiver's alone: a folder in it for each migration. */
  readonly storeFolder: string;
  /** Stores of an earlier run that are still wanted; all others are leftovers, and go. */
  readonly keep: readonly string[];
  /** How many migrations may come in at once; the others wait for their turn. */
  readonly migrationsMax: number;
}

export interface ExpectOptions {
  /** A UUID. */
  readonly migrationId: string;
  readonly fencingToken: number;
  /** Must not exist; its parent must. */
  readonly imageDir: string;
  /** The container's limit: what comes may be no larger, but for what the sandbox itself takes. */
  readonly memoryBytesMax: number;
  /** Aborting it ends the exchange. */
  readonly signal: AbortSignal;
}

export interface PageReceiver extends AsyncDisposable {
  readonly port: number;
  /** Makes a store and lets one source in. Errors: ECLUSE_PAGES_NO_ROOM (507). */
  expect(options: ExpectOptions): Promise<PageSink>;
}

/** The sandbox's own kernel has its memory in the same file. */
const SANDBOX_BYTES = 256 * 1024 * 1024;
/** What changes within one round has places of its own until the next. */
const VERSIONS_MAX = 2;
/** What must stay free beside stores and images. */
const RESERVE_BYTES = 256 * 1024 * 1024;
const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** The store and the image, each at the size of the memory. */
function roomFor(memoryBytesMax: number): number {
  return 2 * memoryBytesMax;
}

async function removeLeftovers(folder: string, keep: readonly string[]): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  for (const name of await readdir(folder)) {
    if (UUID.test(name) && !keep.includes(name)) await rm(join(folder, name), { recursive: true, force: true });
  }
}

async function checkRoom(folder: string, neededBytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  const freeBytes = bavail * bsize;
  if (freeBytes >= neededBytes + RESERVE_BYTES) return;
  throw new EcluseError({
    code: 'ECLUSE_PAGES_NO_ROOM',
    source: 'runtime',
    status: 507,
    message: `${folder} has ${String(freeBytes)} bytes free, the page store and the image need up to ${String(neededBytes)} and a reserve`,
    mend: 'free memory-backed space (df /dev/shm) or migrate smaller containers first',
  });
}

/** Turns for a bounded number; first come, first served. */
class Turns {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(max: number) {
    this.#free = max;
  }

  async take(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#free > 0) {
      this.#free -= 1;
      return;
    }
    const turn = Promise.withResolvers<undefined>();
    const go = (): void => {
      turn.resolve(undefined);
    };
    const leave = (): void => {
      const at = this.#waiting.indexOf(go);
      if (at < 0) return;
      this.#waiting.splice(at, 1);
      turn.reject(cancelled(signal.reason));
    };
    this.#waiting.push(go);
    signal.addEventListener('abort', leave, { once: true });
    try {
      await turn.promise;
    } finally {
      signal.removeEventListener('abort', leave);
    }
  }

  give(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free += 1;
    else next();
  }
}

type ReceiverThread = PageThread<ReceiverRequest, ReceiverAnswer, never>;

/** Starts the listener and its thread, and removes what a crash left in the store folder. */
export async function openPageReceiver(options: PageReceiverOptions): Promise<PageReceiver> {
  const { host, port, tls, storeFolder, keep } = options;
  await removeLeftovers(storeFolder, keep);
  const thread: ReceiverThread = new PageThread(new URL('page-receiver-thread.ts', import.meta.url), () => undefined);
  try {
    const answer = await thread.ask({ kind: 'listen', host, port, tls });
    if (answer.kind !== 'listening') throw new TypeError(`listen was answered by ${answer.kind}`);
    return new Receiver(thread, options, answer.port);
  } catch (error) {
    await thread[Symbol.asyncDispose]();
    throw error;
  }
}

class Receiver implements PageReceiver {
  readonly port: number;
  readonly #thread: ReceiverThread;
  readonly #options: PageReceiverOptions;
  readonly #turns: Turns;
  /** Room that was promised to sinks that may not have used it yet. */
  #promisedBytes = 0;

  constructor(thread: ReceiverThread, options: PageReceiverOptions, port: number) {
    this.port = port;
    this.#thread = thread;
    this.#options = options;
    this.#turns = new Turns(options.migrationsMax);
  }

  async expect(wanted: ExpectOptions): Promise<PageSink> {
    const { migrationId, fencingToken, imageDir, memoryBytesMax, signal } = wanted;
    if (!UUID.test(migrationId)) throw new TypeError(`${migrationId} is no UUID`);
    await this.#turns.take(signal);
    const roomBytes = roomFor(memoryBytesMax);
    this.#promisedBytes += roomBytes;
    const token = randomBytes(32).toString('hex');
    const { storeFolder, host } = this.#options;
    try {
      await checkRoom(storeFolder, this.#promisedBytes);
      const slotsMax = Math.ceil((VERSIONS_MAX * (memoryBytesMax + SANDBOX_BYTES)) / PAGE_BYTES);
      const pagesBytesMax = memoryBytesMax + SANDBOX_BYTES;
      await this.#thread.ask({
        kind: 'expect',
        migration: { migrationId, fencingToken, token, imageDir, storeFolder, slotsMax, pagesBytesMax },
      });
    } catch (error) {
      this.#giveBack(roomBytes);
      throw error;
    }
    let ending: Promise<void> | undefined;
    const end = async (store: 'keep' | 'remove'): Promise<void> => {
      ending ??= this.#end(migrationId, store, roomBytes);
      await ending;
    };
    const onAbort = (): void => {
      end('remove').catch(() => undefined); // A thread that has ended has nothing left to end.
    };
    signal.addEventListener('abort', onAbort, { once: true });
    const image = this.#image(migrationId, signal);
    image.catch(() => undefined); // Whoever waits for it may come later.
    return {
      ticket: { host, port: this.port, migrationId, fencingToken, token },
      image,
      keepStore: async (): Promise<void> => {
        signal.removeEventListener('abort', onAbort);
        await end('keep');
      },
      async [Symbol.asyncDispose](): Promise<void> {
        signal.removeEventListener('abort', onAbort);
        await end('remove');
      },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#thread.end({ kind: 'close' });
  }

  async #image(migrationId: string, signal: AbortSignal): Promise<AssembledImage> {
    try {
      const answer = await this.#thread.ask({ kind: 'image', migrationId });
      if (answer.kind !== 'image') throw new TypeError(`image was answered by ${answer.kind}`);
      return answer.image;
    } catch (error) {
      throw signal.aborted ? cancelled(signal.reason) : error;
    }
  }

  async #end(migrationId: string, store: 'keep' | 'remove', roomBytes: number): Promise<void> {
    try {
      await this.#thread.ask({ kind: 'end', migrationId, store });
    } finally {
      this.#giveBack(roomBytes);
    }
  }

  #giveBack(roomBytes: number): void {
    this.#promisedBytes -= roomBytes;
    this.#turns.give();
  }
}
