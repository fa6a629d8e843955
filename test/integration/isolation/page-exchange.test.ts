/** A sandbox's memory over real TLS sockets and real threads. The memory of most tests is a file that they change; one is a sandbox's. */
import { randomBytes, randomUUID } from 'node:crypto';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { appendFile, mkdir, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { runCommand } from '#command';
import { savePaused } from '#isolation/checkpoint.ts';
import type { PageProgress, PageSource, PageTicket } from '#isolation/pages/exchange.ts';
import { isMountedAt, mountMemoryFolder } from '#isolation/memory-folder.ts';
import { PAGE_BYTES } from '#isolation/pages/page-hash.ts';
import { openPageReceiver } from '#isolation/pages/page-receiver.ts';
import { openPageSource, preCopy } from '#isolation/pages/page-source.ts';
import type { PageSourceOptions } from '#isolation/pages/page-source.ts';
import { PRE_COPY_LIMITS } from '#isolation/pages/pre-copy.ts';
import { findSandboxMemory, writesPagesInOrder } from '#isolation/pages/sandbox-memory.ts';
import { openPageScene } from '../../support/page-exchange.ts';
import type { PageScene } from '../../support/page-exchange.ts';
import { startHeapSandbox } from '../../support/sandbox.ts';

const MIB = 1024 * 1024;
const MEMORY_BYTES = 24 * MIB;

let scene: PageScene;
let memoryFile = '';
let memory = Buffer.alloc(0);
let saveDir = '';

beforeEach(async () => {
  scene = await openPageScene();
  memoryFile = join(scene.folder, 'memory');
  memory = randomBytes(MEMORY_BYTES);
  memory.fill(0, 5 * PAGE_BYTES, 9 * PAGE_BYTES);
  await writeFile(memoryFile, memory);
  saveDir = join(scene.folder, 'save');
});
afterEach(async () => {
  await scene[Symbol.asyncDispose]();
});

async function sourceOf(ticket: PageTicket, options: Partial<PageSourceOptions> = {}): Promise<PageSource> {
  return await openPageSource({
    memoryFile,
    ticket,
    tls: scene.sourceTls,
    bandwidthBytesPerSecond: undefined,
    signal: new AbortController().signal,
    onProgress: () => undefined,
    ...options,
  });
}

/** Changes pages as a program would: some anew, some like others. */
async function dirty(pages: readonly number[]): Promise<void> {
  await using file = await open(memoryFile, 'r+');
  for (const page of pages) {
    const bytes = page % 3 === 0 ? memory.subarray(0, PAGE_BYTES) : randomBytes(PAGE_BYTES);
    bytes.copy(memory, page * PAGE_BYTES);
    await file.write(bytes, 0, PAGE_BYTES, page * PAGE_BYTES);
  }
}

/** A checkpoint as runsc writes it: zero pages left out, so that all pages move, and a file that grows. */
async function save(stepMs = 0): Promise<Buffer> {
  const pages: Buffer[] = [];
  for (let at = 0; at < memory.length; at += PAGE_BYTES) pages.push(memory.subarray(at, at + PAGE_BYTES));
  const zero = Buffer.alloc(PAGE_BYTES);
  const image = Buffer.concat(pages.filter((page) => !page.equals(zero)));
  await mkdir(saveDir);
  for (let at = 0; at < image.length; at += 5 * MIB + 1000) {
    await appendFile(join(saveDir, 'pages.img'), image.subarray(at, at + 5 * MIB + 1000));
    await delay(stepMs);
  }
  await writeFile(join(saveDir, 'checkpoint.img'), randomBytes(1_300_000));
  await writeFile(join(saveDir, 'pages_meta.img'), randomBytes(5000));
  return image;
}

/** The files of the second image that are not byte for byte those of the first. */
async function differences(one: string, other: string): Promise<readonly string[]> {
  const found: string[] = [];
  for (const file of ['pages.img', 'pages_meta.img', 'checkpoint.img']) {
    const [left, right] = await Promise.all([readFile(join(one, file)), readFile(join(other, file))]);
    if (!left.equals(right)) found.push(file);
  }
  return found;
}

test('memory that changes between rounds and after them arrives byte for byte, and what is sent at the end is what changed', async () => {
  const { sink, ticket, imageDir } = await scene.expect();
  await using held = sink;
  const progress: PageProgress[] = [];
  await using source = await sourceOf(ticket, { onProgress: (news) => progress.push(news) });
  const first = await source.round();
  expect(first.newPages).toBe(MEMORY_BYTES / PAGE_BYTES - 4);
  await dirty([1, 2, 3, 700, 701, 4000]);
  const second = await source.round();
  // Page 3 became like page 0, which the sink has.
  expect([second.newPages, second.stalePages]).toEqual([5, 6]);
  await dirty([2, 5, 6, 4001, 4002]);
  const saving = save(5);
  const [report, image] = await Promise.all([source.finish({ imageDir: saveDir, saved: saving, inOrder: true }), held.image]);
  expect(report.newPages).toBe(3);
  expect(report.pagesBytes).toBe((await saving).length);
  expect(report.sentBytes).toBeLessThan(1_300_000 + 5000 + 4 * PAGE_BYTES + 20_000);
  expect(image.imageDir).toBe(imageDir);
  expect(await differences(imageDir, saveDir)).toEqual([]);
  expect(progress.at(-1)).toMatchObject({ phase: 'done', doneBytes: report.pagesBytes, etaMs: 0 });
  expect(progress.some(({ phase, round }) => phase === 'round' && round === 1)).toBe(true);
});

test('a file that is not written in order is read when it is whole', async () => {
  const { sink, ticket, imageDir } = await scene.expect();
  await using held = sink;
  await using source = await sourceOf(ticket);
  await source.round();
  const wrong = randomBytes(MIB);
  const saving = (async () => {
    await mkdir(saveDir);
    await writeFile(join(saveDir, 'pages.img'), wrong);
    await delay(100);
    await rm(saveDir, { recursive: true });
    await save();
  })();
  await source.finish({ imageDir: saveDir, saved: saving, inOrder: false });
  await held.image;
  expect(await differences(imageDir, saveDir)).toEqual([]);
});

test('a checkpoint without a round before it is sent whole, its last part of a page included', async () => {
  const { sink, ticket, imageDir } = await scene.expect();
  await using held = sink;
  await using source = await sourceOf(ticket);
  await save();
  await appendFile(join(saveDir, 'pages.img'), 'a rest');
  const report = await source.finish({ imageDir: saveDir, saved: Promise.resolve(), inOrder: true });
  expect(report.newPages).toBe(MEMORY_BYTES / PAGE_BYTES - 4);
  await held.image;
  expect(await differences(imageDir, saveDir)).toEqual([]);
});

test('an abort in the middle of a round ends both ends at once and gives the memory back', async () => {
  const migrationId = randomUUID();
  const { sink, ticket, imageDir } = await scene.expect({ migrationId });
  const stop = new AbortController();
  const source = await sourceOf(ticket, { signal: stop.signal, bandwidthBytesPerSecond: 2_000_000 });
  const rounding = source.round();
  setTimeout(() => {
    stop.abort();
  }, 300);
  await expect(rounding).rejects.toMatchObject({ code: 'ECLUSE_PAGES_CANCELLED' });
  await expect(sink.image).rejects.toMatchObject({ code: 'ECLUSE_PAGES_CANCELLED' });
  await Promise.all([source[Symbol.asyncDispose](), sink[Symbol.asyncDispose]()]);
  expect(existsSync(imageDir)).toBe(false);
  expect(readdirSync(scene.storeFolder)).toEqual([]);
});

test('a sink that is aborted tells the source, and leaves nothing', async () => {
  const stop = new AbortController();
  const { sink, ticket } = await scene.expect({ signal: stop.signal });
  await using source = await sourceOf(ticket, { bandwidthBytesPerSecond: 2_000_000 });
  const rounding = source.round();
  setTimeout(() => {
    stop.abort();
  }, 200);
  await expect(rounding).rejects.toMatchObject({ code: 'ECLUSE_PAGES_CANCELLED' });
  await expect(sink.image).rejects.toMatchObject({ code: 'ECLUSE_PAGES_CANCELLED' });
  await sink[Symbol.asyncDispose]();
  expect(readdirSync(scene.storeFolder)).toEqual([]);
});

test('a checkpoint that fails cancels the exchange with its reason', async () => {
  const { sink, ticket, imageDir } = await scene.expect();
  await using held = sink;
  await using source = await sourceOf(ticket);
  await source.round();
  const saved = Promise.reject(new Error('the sandbox could not be saved'));
  await expect(source.finish({ imageDir: saveDir, saved, inOrder: true })).rejects.toMatchObject({
    code: 'ECLUSE_PAGES_CANCELLED',
  });
  await expect(held.image).rejects.toMatchObject({ code: 'ECLUSE_PAGES_CANCELLED' });
  expect(existsSync(imageDir)).toBe(false);
});

test('a second attempt finds the pages of the first', async () => {
  const migrationId = randomUUID();
  const first = await scene.expect({ migrationId });
  const cut = await sourceOf(first.ticket);
  const { newPages } = await cut.round();
  await cut[Symbol.asyncDispose]();
  await expect(first.sink.image).rejects.toMatchObject({ code: 'ECLUSE_PAGES_CANCELLED' });
  await first.sink.keepStore();
  await dirty([10, 11]);
  const second = await scene.expect({ migrationId });
  await using held = second.sink;
  await using source = await sourceOf(second.ticket);
  expect(newPages).toBeGreaterThan(1000);
  expect((await source.round()).newPages).toBe(2);
  await save();
  await source.finish({ imageDir: saveDir, saved: Promise.resolve(), inOrder: true });
  await held.image;
  expect(await differences(second.imageDir, saveDir)).toEqual([]);
});

test('a bandwidth limit is kept', async () => {
  const { sink, ticket } = await scene.expect();
  await using held = sink;
  const bandwidthBytesPerSecond = 12 * MIB;
  await using source = await sourceOf(ticket, { bandwidthBytesPerSecond });
  const { sentBytes, tookMs } = await source.round();
  expect(held.ticket).toBe(ticket);
  expect(sentBytes).toBeGreaterThan(MEMORY_BYTES * 0.9);
  expect((sentBytes / tookMs) * 1000).toBeLessThan(bandwidthBytesPerSecond * 1.05);
});

test('who comes with another token, an older order or for another migration is refused, and the right one still gets in', async () => {
  const { sink, ticket } = await scene.expect();
  await using held = sink;
  const wrongs: readonly PageTicket[] = [
    { ...ticket, token: randomBytes(32).toString('hex') },
    { ...ticket, fencingToken: ticket.fencingToken - 1 },
    { ...ticket, migrationId: randomUUID() },
  ];
  for (const wrong of wrongs) await expect(sourceOf(wrong)).rejects.toMatchObject({ code: 'ECLUSE_PAGES_REFUSED' });
  await using source = await sourceOf(ticket);
  expect((await source.round()).round).toBe(1);
  // A token is good for one connection.
  await expect(sourceOf(held.ticket)).rejects.toMatchObject({ code: 'ECLUSE_PAGES_REFUSED' });
});

test('a tenant with a certificate of the same CA gets no answer, and a source does not speak to a server of another name', async () => {
  const { sink, ticket } = await scene.expect();
  await using held = sink;
  await expect(sourceOf(held.ticket, { tls: scene.tenantTls })).rejects.toMatchObject({ code: 'ECLUSE_PAGES_CONNECTION' });
  const elsewhere = { ...scene.sourceTls, peerName: 'another.ecluse.test' };
  await expect(sourceOf(ticket, { tls: elsewhere })).rejects.toMatchObject({ code: 'ECLUSE_PAGES_CONNECTION' });
});

test('a store whose file system is full fails the exchange, and gives back what it had', async () => {
  const folder = await mkdtemp('/tmp/ecluse-test-full-');
  await runCommand('mount', ['-t', 'tmpfs', '-o', 'size=400m', 'none', folder]);
  try {
    await using small = await openPageScene({ folder });
    const { sink, ticket } = await small.expect();
    await using held = sink;
    // The room was there when it was asked for; then another took it.
    await runCommand('fallocate', ['-l', '390M', join(folder, 'other')]);
    await using source = await sourceOf(ticket, { tls: small.sourceTls });
    await expect(source.round()).rejects.toThrow('ENOSPC');
    await expect(held.image).rejects.toThrow('ENOSPC');
    await held[Symbol.asyncDispose]();
    expect(readdirSync(small.storeFolder)).toEqual([]);
    await expect(small.expect({ memoryBytesMax: 300 * MIB })).rejects.toMatchObject({
      code: 'ECLUSE_PAGES_NO_ROOM',
      status: 507,
    });
  } finally {
    await runCommand('umount', [folder]);
    await rm(folder, { recursive: true });
  }
});

test('no more migrations come in at once than allowed; the next waits for its turn, or for its signal', async () => {
  await using narrow = await openPageScene({ migrationsMax: 1 });
  const first = await narrow.expect();
  const stop = new AbortController();
  const given = narrow.expect({ signal: stop.signal });
  const waiting = narrow.expect();
  stop.abort();
  await expect(given).rejects.toMatchObject({ code: 'ECLUSE_PAGES_CANCELLED' });
  const early = await Promise.race([waiting, delay(100)]);
  expect(early).toBeUndefined();
  await first.sink[Symbol.asyncDispose]();
  const second = await waiting;
  await second.sink[Symbol.asyncDispose]();
});

test('a receiver that starts removes stores that nobody wants', async () => {
  const [wanted, left] = [randomUUID(), randomUUID()];
  const storeFolder = join(scene.folder, 'after-a-crash');
  for (const id of [wanted, left]) await mkdir(join(storeFolder, id), { recursive: true });
  const tls = { ...scene.sourceTls, peerName: 'anybody' };
  await using receiver = await openPageReceiver({
    host: '127.0.0.1',
    port: 0,
    tls,
    storeFolder,
    keep: [wanted],
    migrationsMax: 1,
  });
  expect(receiver.port).toBeGreaterThan(0);
  expect(readdirSync(storeFolder)).toEqual([wanted]);
});

// The sandbox starts a Node of its own, which takes its time on a busy machine.
test(
  "a running sandbox's memory goes ahead, and its checkpoint arrives byte for byte with hardly a byte sent",
  { timeout: 300_000 },
  async () => {
    await using sandbox = await startHeapSandbox({ heapMib: 64, dirtyPagesPerSecond: 200 });
    const { sink, ticket, imageDir } = await scene.expect({ memoryBytesMax: 256 * MIB });
    await using held = sink;
    memoryFile = await findSandboxMemory(await sandbox.pids());
    await using source = await sourceOf(ticket);
    const { rounds } = await preCopy(source, PRE_COPY_LIMITS);
    expect(rounds.length).toBeGreaterThan(1);
    await sandbox.pause();
    const saved = savePaused(sandbox.place, saveDir);
    const [report] = await Promise.all([
      source.finish({ imageDir: saveDir, saved, inOrder: writesPagesInOrder(sandbox.runsc) }),
      saved,
    ]);
    await held.image;
    expect(await differences(imageDir, saveDir)).toEqual([]);
    expect(report.pagesBytes).toBeGreaterThan(64 * MIB);
    expect(report.sentBytes / report.pagesBytes).toBeLessThan(0.05);
    await sandbox.resume();
  },
);

test('a container without a sandbox has no memory to find', async () => {
  await expect(findSandboxMemory([process.pid])).rejects.toMatchObject({ code: 'ECLUSE_PAGES_NO_MEMORY' });
});

test('a memory folder is a tmpfs of its own; what a crash left in it goes with the next', async () => {
  const path = join(scene.folder, 'memory-folder');
  const left = await mountMemoryFolder(path);
  expect(['huge', 'plain']).toContain(left.kind);
  await writeFile(join(path, 'left'), 'over');
  await using folder = await mountMemoryFolder(path);
  const warmth = await folder.warm(3 * MIB);
  const sizes = readdirSync(path).map((name) => statSync(join(path, name)).size);
  expect(sizes).toEqual([3 * MIB]);
  await warmth[Symbol.asyncDispose]();
  expect([folder.path, readdirSync(path)]).toEqual([path, []]);
  await folder[Symbol.asyncDispose]();
  expect(isMountedAt(await readFile('/proc/self/mountinfo', 'utf8'), path)).toBe(false);
});
