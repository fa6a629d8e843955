/**
 * What does a container's memory cost before the pause, and what in it?
 *
 * A real sandbox for each case, its memory sent over TLS to a receiver of the same machine: rounds, then pause, checkpoint and final pass, and what
 * came out compared with pages.img byte for byte. `--sizes 64,512` (MiB of heap), `--dirty 0,2000` (pages changed a second),
 * `--bandwidth 125` (MB a second; 0 is no limit), `--rounds N` of each case.
 */
import { createHash, hash, randomBytes } from 'node:crypto';
import { closeSync, createReadStream, openSync, readSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { pipeline } from 'node:stream/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { savePaused } from '#isolation/checkpoint.ts';
import { PAGES_PER_CALL, PAGE_BYTES, SEED_BYTES, createPageHasher } from '#isolation/pages/page-hash.ts';
import { openPageSource, preCopy } from '#isolation/pages/page-source.ts';
import { PRE_COPY_LIMITS } from '#isolation/pages/pre-copy.ts';
import { findSandboxMemory, writesPagesInOrder } from '#isolation/pages/sandbox-memory.ts';
import { openPageScene } from '../test/support/page-exchange.ts';
import { startHeapSandbox } from '../test/support/sandbox.ts';
import { machine } from './machine.ts';

const { values } = parseArgs({
  options: {
    sizes: { type: 'string', default: '64,256,512,1024,2048' },
    dirty: { type: 'string', default: '0,1000,10000' },
    bandwidth: { type: 'string', default: '0' },
    rounds: { type: 'string', default: '1' },
  },
});
const numbers = (list: string): readonly number[] => list.split(',').map(Number);
const MIB = 1024 * 1024;
const bandwidthBytesPerSecond = Number(values.bandwidth) === 0 ? undefined : Number(values.bandwidth) * 1e6;
const none = new AbortController().signal;

async function digestOf(file: string): Promise<string> {
  const digest = createHash('sha256');
  await pipeline(createReadStream(file, { highWaterMark: MIB }), digest);
  return digest.digest('hex');
}

const inMs = (ns: number): number => Math.round(ns / 1e5) / 10;

interface LoopDelay {
  readonly longestMs: number;
  readonly p99Ms: number;
}

/** How long this process's event loop was late while `work` ran; sampled each millisecond. */
async function withLoopDelay<T>(work: () => Promise<T>): Promise<readonly [T, LoopDelay]> {
  const late = monitorEventLoopDelay({ resolution: 1 });
  late.enable();
  const result = await work();
  late.disable();
  return [result, { longestMs: inMs(late.max), p99Ms: inMs(late.percentile(99)) }];
}

async function isSameImage(one: string, other: string): Promise<boolean> {
  const files = ['pages.img', 'pages_meta.img', 'checkpoint.img'];
  const digests = await Promise.all(
    [one, other].map(async (dir) => await Promise.all(files.map(async (file) => await digestOf(join(dir, file))))),
  );
  return JSON.stringify(digests[0]) === JSON.stringify(digests[1]);
}

async function oneCase(heapMib: number, dirtyPagesPerSecond: number): Promise<object> {
  await using sandbox = await startHeapSandbox({ heapMib, dirtyPagesPerSecond });
  await using scene = await openPageScene();
  const saveFolder = join(scene.folder, 'save');
  await mkdir(saveFolder);
  const timedSave = async (dir: string): Promise<number> => {
    const fromMs = performance.now();
    await savePaused(sandbox.place, dir);
    return Math.round(performance.now() - fromMs);
  };
  const memoryFile = await findSandboxMemory(await sandbox.pids());
  const { sink, ticket, imageDir } = await scene.expect({ memoryBytesMax: (heapMib + 128) * MIB });
  await using held = sink;
  const options = {
    memoryFile,
    ticket,
    tls: scene.sourceTls,
    bandwidthBytesPerSecond,
    signal: none,
    onProgress: () => undefined,
  };
  const [, idle] = await withLoopDelay(async () => await delay(1000));
  await using source = await openPageSource(options);
  const [{ rounds, why }, inRounds] = await withLoopDelay(async () => await preCopy(source, PRE_COPY_LIMITS));
  // The source's image and the target's: both are on this machine.
  await (await scene.memory?.warm(2 * (rounds.at(-1)?.scannedBytes ?? 0)))?.[Symbol.asyncDispose]();
  const pauseFromMs = performance.now();
  await sandbox.pause();
  const saveDir = join(saveFolder, 'image');
  const [[checkpointMs, final, image], inFinal] = await withLoopDelay(async () => {
    const saved = timedSave(saveDir);
    const inOrder = writesPagesInOrder(sandbox.runsc);
    return await Promise.all([saved, source.finish({ imageDir: saveDir, saved, inOrder }), held.image]);
  });
  const pausedMs = Math.round(performance.now() - pauseFromMs);
  return {
    heapMib,
    dirtyPagesPerSecond,
    rounds,
    why,
    checkpointMs,
    // The same sandbox again, with nothing beside it.
    checkpointAloneMs: await timedSave(join(saveFolder, 'again')),
    pausedMs,
    final,
    assembled: { tookMs: image.assembleMs, cpuMs: image.cpuMs },
    sentAfterFreezePercent: Math.round((final.sentBytes / final.pagesBytes) * 10_000) / 100,
    isEqual: await isSameImage(imageDir, saveDir),
    eventLoop: { idle, inRounds, inFinal },
  };
}

/** CPU time is what is compared: on a busy machine the clock measures the neighbours. */
function rateOf(bytes: number, work: () => void): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return Math.round(bytes / (user + system)) / 1000;
}

/** GB a second of CPU for each way to know a page again, pages read from memory-backed storage included and not. */
async function hashRates(): Promise<object> {
  const folder = await mkdtemp('/dev/shm/ecluse-bench-hash-');
  const file = join(folder, 'pages');
  const callBytes = PAGES_PER_CALL * PAGE_BYTES;
  const bytes = 128 * MIB;
  await writeFile(file, randomBytes(bytes));
  const fd = openSync(file, 'r');
  try {
    const hasher = createPageHasher(randomBytes(SEED_BYTES));
    const other = Buffer.alloc(callBytes);
    const calls = (work: (at: number) => void) => (): void => {
      for (let at = 0; at < bytes; at += callBytes) work(at);
    };
    const pages = (work: (page: Buffer) => void) => (): void => {
      for (let at = 0; at < callBytes; at += PAGE_BYTES) work(hasher.input.subarray(at, at + PAGE_BYTES));
    };
    const read = (at: number): void => {
      readSync(fd, hasher.input, 0, callBytes, at);
    };
    const native = (algorithm: string): number => rateOf(bytes, calls(pages((page) => hash(algorithm, page, 'buffer'))));
    calls(() => {
      hasher.hash(PAGES_PER_CALL);
    })();
    return {
      read: rateOf(bytes, calls(read)),
      nh128: rateOf(
        bytes,
        calls(() => {
          hasher.hash(PAGES_PER_CALL);
        }),
      ),
      readAndNh128: rateOf(
        bytes,
        calls((at) => {
          read(at);
          hasher.hash(PAGES_PER_CALL);
        }),
      ),
      readTwiceAndCompare: rateOf(
        bytes,
        calls((at) => {
          read(at);
          readSync(fd, other, 0, callBytes, at);
          hasher.input.equals(other);
        }),
      ),
      ...Object.fromEntries(['sha256', 'sha1', 'md5', 'blake2b512', 'blake2s256'].map((name) => [name, native(name)])),
    };
  } finally {
    closeSync(fd);
    await rm(folder, { recursive: true, force: true });
  }
}

const cases: object[] = [];
for (const heapMib of numbers(values.sizes)) {
  for (const dirty of numbers(values.dirty)) {
    for (let round = 0; round < Number(values.rounds); round += 1) cases.push(await oneCase(heapMib, dirty));
  }
}
process.stdout.write(`${JSON.stringify({ machine: machine(), hashGbPerCpuSecond: await hashRates(), cases }, undefined, 2)}\n`);
