/** A gated start that is called off, before and after the wrapper came to the gate. The wrapper is real, with a program in runsc's place. */
import { execFile } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
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

  test('that is let go of fails the start that waits at it', async () => {
    const gate = await StartGate.open(folder, ID);
    const starting = start();
    expect(await reached(gate)).toBe(true);
    await gate[Symbol.asyncDispose]();
    expect(await starting).toEqual(containing('the start was called off'));
    expect(hasRun()).toBe(false);
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
