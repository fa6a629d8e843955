/** The app as an image, and as words of `docker run`: the same on every engine. */
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { DEMO_IMAGE_CHANGES, writeDemoImage } from '../../src/demo-image.ts';
import { run } from '../../test/support/node.ts';

export interface AppSettings {
  readonly name: string;
  /** Memory that it holds beside Node's own. */
  readonly liveMib: number;
  readonly dirtyMibPerSecond?: number;
  readonly warmUpMs?: number;
  /** Further words of `docker run`. */
  readonly flags?: readonly string[];
}

/** The app's own port. */
export const APP_PORT = 8080;

const IMAGE = 'live-app';
const APP_FILE = fileURLToPath(new URL('app/live-app.js', import.meta.url));
const APP_PATH = '/app/live-app.js';
const COMMAND_LIMIT_MS = 300_000;
/** What Node itself needs beside the live memory, with room for what is under way. */
const OWN_MIB = 512;

/** `docker ARGS`; throws where it fails. */
export async function mustDocker(env: NodeJS.ProcessEnv, args: readonly string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await run('docker', args, { env, timeoutMs: COMMAND_LIMIT_MS });
  if (exitCode !== 0) throw new Error(`docker ${args.slice(0, 3).join(' ')}: ${stderr.trim()}`);
  return stdout.trim();
}

/** Makes the image in `file` and gives it to the engine. */
export async function importAppImage(env: NodeJS.ProcessEnv, file: string): Promise<void> {
  await writeDemoImage(file, [{ kind: 'text', path: APP_PATH, text: await readFile(APP_FILE, 'utf8') }]);
  const changes = DEMO_IMAGE_CHANGES.filter((change) => !change.startsWith('CMD ')).concat(
    `CMD ["/usr/local/bin/node","${APP_PATH}"]`,
  );
  await mustDocker(env, ['import', ...changes.flatMap((change) => ['--change', change]), file, IMAGE]);
}

export async function startApp(env: NodeJS.ProcessEnv, app: AppSettings): Promise<void> {
  const variables = {
    LIVE_MIB: app.liveMib,
    DIRTY_MIB_PER_S: app.dirtyMibPerSecond ?? 0,
    WARMUP_MS: app.warmUpMs ?? 0,
  };
  await mustDocker(env, [
    'run',
    '--detach',
    '--name',
    app.name,
    '--memory',
    `${String(app.liveMib + OWN_MIB)}m`,
    ...Object.entries(variables).flatMap(([name, value]) => ['--env', `${name}=${String(value)}`]),
    ...(app.flags ?? []),
    IMAGE,
  ]);
}
