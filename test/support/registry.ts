/** Debian's registry on loopback, for pull and push. One account: `tester` with `open sesame`. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

export const REGISTRY_USER = 'tester';
export const REGISTRY_PASSWORD = 'open sesame';
/** bcrypt of that, with the least work. */
const ACCOUNT_LINE = `${REGISTRY_USER}:$2b$04$rbOur1QEwr11WTGQ/OtYsuhLroEQ3jW7UUEidf22cuwJ.YYRFvQG2`;
const READY_LIMIT_MS = 20_000;

type Spawn = (program: string, args: readonly string[]) => ChildProcess;

/** Starts one on 127.0.0.1, in whichever network `spawnProgram` runs programs. Disposing ends it and removes what it holds. */
export async function startRegistry(
  port: number,
  spawnProgram: Spawn = (program, args) => spawn(program, [...args], { stdio: 'ignore' }),
): Promise<AsyncDisposable> {
  const directory = await mkdtemp('/tmp/ecl-registry-');
  const log = join(directory, 'log');
  await mkdir(join(directory, 'data'));
  await writeFile(join(directory, 'htpasswd'), `${ACCOUNT_LINE}\n`);
  const config = {
    version: '0.1',
    log: { level: 'error' },
    storage: { filesystem: { rootdirectory: join(directory, 'data') } },
    http: { addr: `127.0.0.1:${String(port)}` },
    auth: { htpasswd: { realm: 'test', path: join(directory, 'htpasswd') } },
  };
  await writeFile(join(directory, 'config.yml'), JSON.stringify(config));
  const child = spawnProgram('sh', ['-c', `exec docker-registry serve ${join(directory, 'config.yml')} >${log} 2>&1`]);
  const dispose = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
    await rm(directory, { recursive: true, force: true, maxRetries: 10 });
  };
  const deadline = Date.now() + READY_LIMIT_MS;
  while (
    (await exitCodeOf(spawnProgram('curl', ['--silent', '--output', '/dev/null', `http://127.0.0.1:${String(port)}/v2/`]))) !== 0
  ) {
    if (child.exitCode !== null || Date.now() > deadline) {
      await dispose();
      throw new Error('docker-registry did not start');
    }
    await delay(100);
  }
  return { [Symbol.asyncDispose]: dispose };
}

async function exitCodeOf(child: ChildProcess): Promise<number | null> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  return child.exitCode;
}
