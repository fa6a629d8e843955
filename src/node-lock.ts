/** One daemon a data directory: a pid file that is believed only while the process behind it is an ecluse of this directory. */
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { EcluseError } from '#errors';

export interface NodeLock extends AsyncDisposable {
  /** An earlier daemon ended without removing its lock: it was killed. */
  readonly afterCrash: boolean;
}

/** The start time of a process (clock ticks since boot): with the pid it names a process for good. Undefined where it is gone. */
async function startOf(pid: number): Promise<string | undefined> {
  const stat = await readFile(`/proc/${String(pid)}/stat`, 'utf8').catch(() => '');
  // The second field is the program's name in parentheses and may hold anything; start time is the 22nd field.
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
}

export async function takeNodeLock(dataDir: string): Promise<NodeLock> {
  const file = join(dataDir, 'node.pid');
  const [pidText = '', start = ''] = (await readFile(file, 'utf8').catch(() => '')).trim().split(' ');
  const pid = Number(pidText);
  if (Number.isInteger(pid) && pid > 1 && (await startOf(pid)) === start) {
    throw new EcluseError({
      code: 'ECLUSE_ALREADY_RUNNING',
      source: 'usage',
      message: `another ecluse (pid ${String(pid)}) runs with the data directory ${dataDir}`,
      mend: 'stop it first, or choose another directory with --data',
    });
  }
  await writeFile(file, `${String(process.pid)} ${(await startOf(process.pid)) ?? ''}\n`, { mode: 0o600 });
  return {
    afterCrash: pidText !== '',
    async [Symbol.asyncDispose](): Promise<void> {
      await rm(file, { force: true });
    },
  };
}
