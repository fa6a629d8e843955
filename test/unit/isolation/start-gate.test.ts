/** A gated start that is called off, before and after the wrapper came to the gate. The wrapper is real, with a program in runsc's place. */
import { execFile } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { systemClock } from '#clock';
import { WRAPPER_FILE } from '#isolation/runtime-settings.ts';
import { StartGate, callOffStart } from '#isolation/start-gate.ts';
import { containing } from '../../support/matchers.ts';

const ID = 'b'.repeat(64);
const LIMIT_MS = 10_000;

describe('a start gate', { timeout: 2 * LIMIT_MS }, () => {
  let folder: string;

  /** What the engine does; a start that waits for ever is ended, and its failure says nothing. */
  const start = async (): Promise<string> =>
    await promisify(execFile)(WRAPPER_FILE, ['--ecluse-dir', folder, 'start', ID], { timeout: LIMIT_MS }).then(
      () => 'started',
      (error: unknown) => String(error),
    );
  const hasRun = (): boolean => existsSync(join(folder, 'calls'));
  const reached = async (gate: StartGate): Promise<boolean> =>
    await gate.reached(systemClock, LIMIT_MS, AbortSignal.timeout(LIMIT_MS));

  beforeEach(async () => {
    folder = await mkdtemp('/tmp/gate-');
    for (const name of ['staged', 'image']) await mkdir(join(folder, name));
    await writeFile(join(folder, 'runsc'), `#!/bin/sh\necho "$@" >>'${folder}/calls'\n`);
    await chmod(join(folder, 'runsc'), 0o755);
    await writeFile(join(folder, 'settings'), `RUNSC='${folder}/runsc'\nCGROUP_PREFIX=/ecluse/test-a\n`);
  });

  afterEach(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  test('lets a start go on as a restore', async () => {
    const gate = await StartGate.open(folder, ID);
    const starting = start();
    expect(await reached(gate)).toBe(true);
    expect(hasRun()).toBe(false);
    await gate.release(join(folder, 'image'));
    expect(await starting).toBe('started');
    expect(hasRun()).toBe(true);
    expect(await readdir(join(folder, 'staged'))).toEqual([]);
  });

  describe('whose image is known ahead', () => {
    const lock = (): string => join(folder, `${ID}_sandbox:${ID}.lock`);
    const words = async (): Promise<readonly string[]> => (await readFile(join(folder, 'calls'), 'utf8')).trim().split('\n');
    const startThere = async (): Promise<string> =>
      await promisify(execFile)(WRAPPER_FILE, ['--ecluse-dir', folder, '--root', folder, 'start', ID], {
        timeout: LIMIT_MS,
      }).then(
        () => 'started',
        (error: unknown) => String(error),
      );

    beforeEach(async () => {
      await mkdir(join(folder, 'other'));
      const script = `#!/bin/sh\necho "begins $@" >>'${folder}/calls'\nflock '${lock()}' true\necho "goes on $@" >>'${folder}/calls'\n`;
      await writeFile(join(folder, 'runsc'), script);
    });

    test('starts its restore ahead, which goes on at the release', async () => {
      const gate = await StartGate.open(folder, ID, { imageDir: join(folder, 'image') });
      const starting = startThere();
      expect(await reached(gate)).toBe(true);
      const restore = `--root ${folder} restore --detach --image-path ${join(folder, 'image')} ${ID}`;
      await expect.poll(words, { timeout: LIMIT_MS }).toEqual([`begins ${restore}`]);
      await gate.release(join(folder, 'image'));
      expect(await starting).toBe('started');
      expect(await words()).toEqual([`begins ${restore}`, `goes on ${restore}`]);
      expect(await readdir(join(folder, 'staged'))).toEqual([]);
    });

    test('loads its memory in the background where that was asked for', async () => {
      const gate = await StartGate.open(folder, ID, { imageDir: join(folder, 'image'), inBackground: true });
      const starting = startThere();
      expect(await reached(gate)).toBe(true);
      await gate.release(join(folder, 'image'));
      expect(await starting).toBe('started');
      const restore = `--root ${folder} restore --detach --background --image-path ${join(folder, 'image')} ${ID}`;
      expect(await words()).toEqual([`begins ${restore}`, `goes on ${restore}`]);
      expect(await readdir(join(folder, 'staged'))).toEqual([]);
    });

    test('restores another image where it is released with one', async () => {
      const gate = await StartGate.open(folder, ID, { imageDir: join(folder, 'image') });
      const starting = startThere();
      expect(await reached(gate)).toBe(true);
      await gate.release(join(folder, 'other'));
      expect(await starting).toBe('started');
      const wentOn = (await words()).filter((line) => line.startsWith('goes on'));
      expect(wentOn).toEqual([`goes on --root ${folder} restore --detach --image-path ${join(folder, 'other')} ${ID}`]);
    });

    test('ends the restore that it started ahead where it is called off', { timeout: 10_000 }, async () => {
      const gate = await StartGate.open(folder, ID, { imageDir: join(folder, 'image') });
      const starting = startThere();
      expect(await reached(gate)).toBe(true);
      await expect.poll(hasRun, { timeout: 5000 }).toBe(true); // It is started beside the gate.
      await gate[Symbol.asyncDispose]();
      expect(await starting).toEqual(containing('the start was called off'));
      expect((await words()).filter((line) => line.startsWith('goes on'))).toEqual([]);
    });
  });

  test('that is let go of fails the start that waits at it', async () => {
    const gate = await StartGate.open(folder, ID);
    const starting = start();
    expect(await reached(gate)).toBe(true);
    await gate[Symbol.asyncDispose]();
    expect(await starting).toEqual(containing('the start was called off'));
    expect(hasRun()).toBe(false);
  });

  test('that is let go of is waited for no more', async () => {
    const gate = await StartGate.open(folder, ID);
    const looking = gate.reached(systemClock, 10 * LIMIT_MS, AbortSignal.timeout(LIMIT_MS));
    await gate[Symbol.asyncDispose]();
    expect(await looking).toBe(false);
  });

  test('that is let go of fails a start that comes later', async () => {
    const gate = await StartGate.open(folder, ID);
    await gate[Symbol.asyncDispose]();
    expect(await start()).toEqual(containing('is gone'));
    expect(hasRun()).toBe(false);
  });

  test('of a daemon that died is called off for the start that waits for it, and for one that comes later', async () => {
    // Its handle went with it.
    const orphan = async (): Promise<void> => {
      await writeFile(join(folder, 'staged', ID), '/dev/null/called-off');
      await promisify(execFile)('mkfifo', [join(folder, 'staged', `${ID}.gate`)]);
    };
    await orphan();
    const starting = start();
    await systemClock.sleep(300);
    await callOffStart(folder, ID);
    expect(await starting).toMatch(/the start was called off|is gone/);
    await orphan();
    await callOffStart(folder, ID);
    expect(await start()).toEqual(containing('is gone'));
    expect(hasRun()).toBe(false);
  });
});
