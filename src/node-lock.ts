/**
 * One daemon a data directory. The lock is the kernel's, on a file, and ends with the process whatever ends that; it is taken through
 * SQLite, because Node has no call for it. The pid file beside it only names the holder, and by its presence tells that one was killed.
 */
import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { EcluseError } from '#errors';

export interface NodeLock extends AsyncDisposable {
  /** An earlier daemon ended without giving its lock back: it was killed. */
  readonly afterCrash: boolean;
}

const SQLITE_BUSY = 5;

function isBusy(thrown: unknown): boolean {
  return typeof thrown === 'object' && thrown !== null && 'errcode' in thrown && thrown.errcode === SQLITE_BUSY;
}

function lockFile(dataDir: string, holder: string): DatabaseSync {
  const lock = new DatabaseSync(join(dataDir, 'node.lock'), { timeout: 0 });
  try {
    lock.exec('BEGIN EXCLUSIVE'); // Nothing is ever written: the file stays empty.
    return lock;
  } catch (error) {
    lock.close();
    if (!isBusy(error)) throw error;
    throw new EcluseError({
      code: 'ECLUSE_ALREADY_RUNS',
      source: 'usage',
      message: `another ecluse${holder === '' ? '' : ` (pid ${holder})`} runs with the data directory ${dataDir}`,
      mend: 'stop it first, or choose another directory with --data',
      cause: error,
    });
  }
}

/** Errors: ECLUSE_ALREADY_RUNS. */
export async function takeNodeLock(dataDir: string): Promise<NodeLock> {
  const file = join(dataDir, 'node.pid');
  const holder = (await readFile(file, 'utf8').catch(() => '')).trim();
  const lock = lockFile(dataDir, holder);
  try {
    // In one step: on a full disk the old file stays, and with it what it tells.
    await writeFile(`${file}.new`, `${String(process.pid)}\n`, { mode: 0o600 });
    await rename(`${file}.new`, file);
  } catch (error) {
    lock.close();
    await rm(`${file}.new`, { force: true });
    throw error;
  }
  return {
    afterCrash: holder !== '',
    async [Symbol.asyncDispose](): Promise<void> {
      await rm(file, { force: true });
      lock.close();
    },
  };
}
