/**
 * How a container's memory gets from its source to its target.
 *
 * `shared`: both hosts are on this machine, and the target restores the very image that the source wrote: nothing is sent. `tls`: as between machines, over
 * TLS 1.3 with certificates of the internal CA on both sides; memory goes ahead while the container runs, and after the freeze only what is new follows
 * (isolation/pages).
 */
import { join } from 'node:path';
import type { Cgroups } from '#isolation/cgroup.ts';
import type { PageProgress, PageSink, PageSource, PeerTls } from '#isolation/pages/exchange.ts';
import { openPageReceiver } from '#isolation/pages/page-receiver.ts';
import { openPageSource, preCopy } from '#isolation/pages/page-source.ts';
import { PRE_COPY_LIMITS } from '#isolation/pages/pre-copy.ts';
import { findSandboxMemory, writesPagesInOrder } from '#isolation/pages/sandbox-memory.ts';
import type { RunscCapabilities } from '#isolation/runsc-probe.ts';

export interface SentBytes {
  readonly beforeFreeze: number;
  readonly afterFreeze: number;
}

/** The memory of one move on its way. Disposing of it gives back what it took; the images are the move's. */
export interface ImageTransfer extends AsyncDisposable {
  /** While the source runs. */
  preCopy(): Promise<void>;
  /** Beside a save into the source's image directory. Returns the directory that the target restores. */
  deliver(saved: Promise<unknown>): Promise<string>;
  sent(): SentBytes;
}

export interface TransferOrder {
  readonly migrationId: string;
  readonly fencingToken: number;
  /** Where the source's image will be. */
  readonly imageDir: string;
  /** Of the sandbox: its processes are in it. */
  readonly cgroup: string;
  readonly runsc: RunscCapabilities;
  readonly memoryBytesMax: number;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: PageProgress) => void;
}

export interface ImageTransfers extends AsyncDisposable {
  /** Where the target will find the image that the source writes into `imageDir`. */
  targetDirOf(imageDir: string): string;
  open(order: TransferOrder): Promise<ImageTransfer>;
}

/** Nothing travels. */
export const sharedTransfers: ImageTransfers = {
  targetDirOf: (imageDir) => imageDir,
  open: async ({ imageDir }) =>
    await Promise.resolve({
      preCopy: async () => {
        await Promise.resolve();
      },
      deliver: async (saved) => {
        await saved;
        return imageDir;
      },
      sent: () => ({ beforeFreeze: 0, afterFreeze: 0 }),
      [Symbol.asyncDispose]: async () => {
        await Promise.resolve();
      },
    }),
  [Symbol.asyncDispose]: async () => {
    await Promise.resolve();
  },
};

export interface TlsTransferOptions {
  /** Memory-backed. */
  readonly imageFolder: string;
  readonly sourceTls: PeerTls;
  readonly targetTls: PeerTls;
  /** Undefined: as fast as it goes. */
  readonly bandwidthBytesPerSecond: number | undefined;
  readonly migrationsMax: number;
}

const receivedDirOf = (imageDir: string): string => `${imageDir}.received`;

/** Opens the target's end once, for all moves of the node. */
export async function openTlsTransfers(cgroups: Cgroups, options: TlsTransferOptions): Promise<ImageTransfers> {
  const { imageFolder, sourceTls, targetTls, bandwidthBytesPerSecond, migrationsMax } = options;
  const receiver = await openPageReceiver({
    host: '127.0.0.1',
    port: 0,
    tls: targetTls,
    storeFolder: join(imageFolder, 'pages'),
    keep: [],
    migrationsMax,
  });
  return {
    targetDirOf: receivedDirOf,
    open: async (order) => {
      await using stack = new AsyncDisposableStack();
      const { migrationId, fencingToken, memoryBytesMax, signal, onProgress } = order;
      const sink = stack.use(
        await receiver.expect({ migrationId, fencingToken, imageDir: receivedDirOf(order.imageDir), memoryBytesMax, signal }),
      );
      sink.image.catch(() => undefined); // Whoever delivers hears of it.
      const source = stack.use(
        await openPageSource({
          memoryFile: await findSandboxMemory(await cgroups.processesIn(order.cgroup)),
          ticket: sink.ticket,
          tls: sourceTls,
          bandwidthBytesPerSecond,
          signal,
          onProgress,
        }),
      );
      return transferOf(order, { source, sink, stack: stack.move() });
    },
    [Symbol.asyncDispose]: async () => {
      await receiver[Symbol.asyncDispose]();
    },
  };
}

function transferOf(
  order: TransferOrder,
  { source, sink, stack }: { readonly source: PageSource; readonly sink: PageSink; readonly stack: AsyncDisposableStack },
): ImageTransfer {
  const sent = { beforeFreeze: 0, afterFreeze: 0 };
  return {
    preCopy: async () => {
      const { rounds } = await preCopy(source, PRE_COPY_LIMITS);
      sent.beforeFreeze = rounds.reduce((sum, { sentBytes }) => sum + sentBytes, 0);
    },
    deliver: async (saved) => {
      const inOrder = writesPagesInOrder(order.runsc);
      const [, report] = await Promise.all([saved, source.finish({ imageDir: order.imageDir, saved, inOrder })]);
      sent.afterFreeze = report.sentBytes;
      return (await sink.image).imageDir;
    },
    sent: () => sent,
    [Symbol.asyncDispose]: async () => {
      await stack.disposeAsync();
    },
  };
}
