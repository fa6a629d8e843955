/** A held restore: released, called off at each of its places, and left by a daemon that died. The wrapper is real, with a program in runsc's place. */
import { execFile, spawn } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { systemClock } from '#clock';
import { WRAPPER_FILE } from '#isolation/runtime-settings.ts';
import { HeldRestore, NotRestored, callOffStart, hasRun, unstage } from '#isolation/held-restore.ts';
import type { RestorePlace } from '#isolation/held-restore.ts';
import { containing } from '../../support/matchers.ts';

const ID = 'b'.repeat(64);
const LIMIT_MS = 10_000;

describe('a held restore', { timeout: 2 * LIMIT_MS }, () => {
  let folder: string;
  let place: RestorePlace;
  const open: HeldRestore[] = [];

  /** What the engine does, which waits for the end of the program and of its streams. */
  const start = async (): Promise<string> =>
    await promisify(execFile)(WRAPPER_FILE, ['--ecluse-dir', folder, '--root', folder, 'start', ID]).then(
      () => 'started',
      (error: unknown) => String(error),
    );
  const hold = async (options: { readonly gate?: boolean; readonly ahead?: boolean; readonly background?: boolean } = {}) => {
    const held = await HeldRestore.open(place, {
      holdsEngine: options.gate ?? false,
      ...(options.ahead === true ? { imageDir: image() } : {}),
      inBackground: options.background ?? false,
    });
    open.push(held);
    return held;
  };
  const image = (): string => join(folder, 'image');
  const calls = async (): Promise<readonly string[]> =>
    (await readFile(join(folder, 'calls'), 'utf8').catch(() => '')).trim().split('\n');
  const waits = async (held: HeldRestore): Promise<boolean> =>
    await held.waits(systemClock, LIMIT_MS, AbortSignal.timeout(LIMIT_MS));
  const restoreOf = (words: string): string => `--root ${folder} restore --detach ${words} ${ID}`;
  const program = async (text: string): Promise<void> => {
    await writeFile(join(folder, 'runsc'), `#!/bin/sh\n${text}\n`);
    await chmod(join(folder, 'runsc'), 0o755);
  };

  beforeEach(async () => {
    folder = await mkdtemp('/tmp/held-');
    place = { runtimeDir: folder, engineId: ID };
    for (const name of ['staged', 'held', 'image', 'other']) await mkdir(join(folder, name));
    await program(`echo "$@" >>'${folder}/calls'`);
    await writeFile(join(folder, 'settings'), `RUNSC='${folder}/runsc'\nCGROUP_PREFIX=/ecluse/test-a\n`);
  });

  afterEach(async () => {
    for (const held of open.splice(0)) await held[Symbol.asyncDispose]();
    // A restore's shell may write how it ended as its folder goes.
    await rm(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
  });

  test('lets the engine end its start, and runs only when it is released', async () => {
    const held = await hold();
    expect(await start()).toBe('started');
    expect(await waits(held)).toBe(true);
    expect(await calls()).toEqual(['']);
    await held.restore(systemClock, image());
    expect(await calls()).toEqual([restoreOf(`--image-path ${image()}`)]);
  });

  test('holds the engine too where there is a gate', async () => {
    const held = await hold({ gate: true });
    let said = 'nothing yet';
    const starting = start().then((text) => (said = text));
    expect(await waits(held)).toBe(true);
    await systemClock.sleep(100);
    expect(said).toBe('nothing yet');
    held.letEngineGoOn();
    expect(await starting).toBe('started');
    expect(await calls()).toEqual(['']);
    await held.restore(systemClock, image());
    expect(await calls()).toEqual([restoreOf(`--image-path ${image()}`)]);
  });

  test('takes its words before the start has come for them', async () => {
    const held = await hold({ gate: true });
    held.letEngineGoOn();
    const restoring = held.restore(systemClock, image());
    expect(await start()).toBe('started');
    await restoring;
    expect(await calls()).toEqual([restoreOf(`--image-path ${image()}`)]);
  });

  test('loads its memory in the background where that was asked for', async () => {
    const held = await hold({ background: true });
    await start();
    await held.restore(systemClock, image());
    expect(await calls()).toEqual([restoreOf(`--background --image-path ${image()}`)]);
  });

  test('makes the next start an ordinary one when it ran, whatever becomes of the node', async () => {
    const held = await hold();
    await start();
    await held.restore(systemClock, image());
    expect(await start()).toBe('started');
    expect(await calls()).toEqual([restoreOf(`--image-path ${image()}`), `--root ${folder} start ${ID}`]);
  });

  test('leaves nothing behind when it ran', async () => {
    const held = await hold({ gate: true, ahead: true });
    held.letEngineGoOn();
    await start();
    await held.restore(systemClock, image());
    await unstage(place);
    expect([...(await readdir(join(folder, 'staged'))), ...(await readdir(join(folder, 'held')))]).toEqual([]);
  });

  test('says in the words of its runtime why it did not run', async () => {
    await program('echo "no such page" >&2; echo "a trace" >&2; exit 128');
    const held = await hold();
    await start();
    const restoring = held.restore(systemClock, image());
    await expect(restoring).rejects.toThrow(NotRestored);
    await expect(restoring).rejects.toThrow(/^no such page$/);
  });

  test('does not run from a snapshot that is gone', async () => {
    const held = await hold();
    await start();
    await expect(held.restore(systemClock, join(folder, 'gone'))).rejects.toThrow(/is gone$/);
    expect(await calls()).toEqual(['']);
  });

  test('fails a start whose sandbox has ended, and lets go of its state', async () => {
    await mkdir(join(folder, 'cgroup'));
    await writeFile(join(folder, 'cgroup', ID), '/ecluse/test-no-such');
    const held = await hold({ ahead: true });
    expect(await start()).toEqual(containing('the sandbox ended before its start'));
    expect(await hasRun(systemClock, place, async () => await Promise.resolve(true))).toBe(false);
    await promisify(execFile)('flock', ['-w', '5', join(folder, `${ID}_sandbox:${ID}.lock`), 'true']);
    await expect(held.restore(systemClock, image())).rejects.toThrow('the start was called off');
    expect((await calls()).filter((line) => line.startsWith('goes on'))).toEqual([]);
  });

  describe('whose image is known ahead', () => {
    beforeEach(async () => {
      const lock = join(folder, `${ID}_sandbox:${ID}.lock`);
      await program(`echo "begins $@" >>'${folder}/calls'\nflock '${lock}' true\necho "goes on $@" >>'${folder}/calls'`);
    });

    test('starts its restore ahead, which goes on at the release', async () => {
      const held = await hold({ ahead: true });
      await start();
      const restore = restoreOf(`--image-path ${image()}`);
      await expect.poll(calls, { timeout: LIMIT_MS }).toEqual([`begins ${restore}`]);
      await held.restore(systemClock, image());
      expect(await calls()).toEqual([`begins ${restore}`, `goes on ${restore}`]);
    });

    test('restores another image where it is released with one', async () => {
      const held = await hold({ ahead: true });
      await start();
      await held.restore(systemClock, join(folder, 'other'));
      const wentOn = (await calls()).filter((line) => line.startsWith('goes on'));
      expect(wentOn).toEqual([`goes on ${restoreOf(`--image-path ${join(folder, 'other')}`)}`]);
    });

    test('ends the restore that it started ahead where it is called off', async () => {
      const held = await hold({ ahead: true });
      await start();
      await expect.poll(calls, { timeout: LIMIT_MS }).toEqual([containing('begins')]);
      await held[Symbol.asyncDispose]();
      expect(await hasRun(systemClock, place, async () => await Promise.resolve(true))).toBe(false);
      expect((await calls()).filter((line) => line.startsWith('goes on'))).toEqual([]);
    });
  });

  describe('that is called off', () => {
    test('fails the start that waits at its gate', async () => {
      const held = await hold({ gate: true });
      const starting = start();
      expect(await waits(held)).toBe(true);
      await held[Symbol.asyncDispose]();
      expect(await starting).toEqual(containing('the start was called off'));
      expect(await calls()).toEqual(['']);
    });

    test('is waited for no more', async () => {
      const held = await hold({ gate: true });
      const looking = held.waits(systemClock, 10 * LIMIT_MS, AbortSignal.timeout(LIMIT_MS));
      await held[Symbol.asyncDispose]();
      expect(await looking).toBe(false);
    });

    test('fails a start that comes later', async () => {
      const held = await hold();
      await held[Symbol.asyncDispose]();
      expect(await start()).toEqual(containing('the start was called off'));
      expect(await calls()).toEqual(['']);
    });

    test('says nothing to the one that comes after it', async () => {
      const first = await hold();
      await start();
      expect(await waits(first)).toBe(true);
      await first[Symbol.asyncDispose]();
      const second = await hold();
      await start();
      await second.restore(systemClock, image());
      expect(await calls()).toEqual([restoreOf(`--image-path ${image()}`)]);
    });
  });

  test('that is called off ends the sandbox that it was made with, and none that came after it', async () => {
    const programs = [1, 2].map(() => spawn('sleep', ['60'], { argv0: 'runsc-sandbox' }));
    try {
      const [first, second] = programs.map(({ pid }) => String(pid));
      await mkdir(join(folder, 'cgroup'));
      await mkdir(join(folder, 'own', ID), { recursive: true });
      // Out of the tree of cgroups: who is in this one is ours to say.
      await writeFile(join(folder, 'cgroup', ID), `/../../../../..${folder}/own`);
      await writeFile(join(folder, 'own', ID, 'cgroup.procs'), `${String(first)}\n`);
      const held = await hold();
      expect(await start()).toBe('started');
      expect(await waits(held)).toBe(true);
      await writeFile(join(folder, 'own', ID, 'cgroup.procs'), `${String(second)}\n`);
      await held[Symbol.asyncDispose]();
      expect(await hasRun(systemClock, place, async () => await Promise.resolve(true))).toBe(false);
      await expect.poll(() => programs.map(({ signalCode }) => signalCode), { timeout: LIMIT_MS }).toEqual(['SIGKILL', null]);
    } finally {
      for (const one of programs) one.kill('SIGKILL');
    }
  });

  describe('of a daemon that died', () => {
    const sandboxIs = (isThere: boolean) => async (): Promise<boolean> => await Promise.resolve(isThere);
    /** Its handles went with it. */
    const orphan = async (): Promise<void> => {
      const held = join(folder, 'held', ID, 'one');
      await mkdir(held, { recursive: true });
      for (const fifo of ['gate', 'release']) await promisify(execFile)('mkfifo', [join(held, fifo)]);
      await writeFile(join(folder, 'staged', ID), held);
    };

    test('ends the start that waits, and one that comes later', async () => {
      await orphan();
      const starting = start();
      await systemClock.sleep(300);
      await callOffStart(place);
      expect(await starting).toEqual(containing('the start was called off'));
      expect(await start()).toEqual(containing('the start was called off'));
      expect(await hasRun(systemClock, place, sandboxIs(true))).toBe(false);
      expect(await calls()).toEqual(['']);
    });

    test('has run where it was released', async () => {
      const held = await hold();
      await start();
      await held.restore(systemClock, image());
      await callOffStart(place);
      expect(await hasRun(systemClock, place, sandboxIs(false))).toBe(true);
    });

    test('has run where its restore was under way', async () => {
      await program(`sleep 0.5; echo "$@" >>'${folder}/calls'`);
      const held = await hold();
      await start();
      const restoring = held.restore(systemClock, image());
      await systemClock.sleep(100);
      await callOffStart(place);
      expect(await hasRun(systemClock, place, sandboxIs(true))).toBe(true);
      await restoring;
    });

    test('has not run where there is no sandbox and no outcome', async () => {
      await orphan();
      await callOffStart(place);
      expect(await hasRun(systemClock, place, sandboxIs(false))).toBe(false);
    });

    test('is forgotten with what was staged', async () => {
      await orphan();
      await callOffStart(place);
      await unstage(place);
      expect(await start()).toBe('started');
      expect(existsSync(join(folder, 'held', ID))).toBe(false);
    });
  });
});
