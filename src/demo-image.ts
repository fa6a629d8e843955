/**
 * The demo's container image, built from what this machine has: the running Node binary, its libraries, busybox, and `demo/`.
 *
 * `docker import` gets the tar of `writeDemoImage` and one `--change` for each of `DEMO_IMAGE_CHANGES`.
 */
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { tryCommand } from '#command';
import { findProgram } from '#isolation/program-path.ts';
import { busyboxEntries, programEntries, ROOT_ACCOUNT, ROOT_GROUP, writeRootFs } from './demo-root-fs.ts';
import type { RootFsEntry } from './demo-root-fs.ts';

const APP_FOLDER = fileURLToPath(new URL('../demo', import.meta.url));
const APP_UID = 1000;
const NODE_PATH = '/usr/local/bin/node';

/** The image's config, in Dockerfile's words. */
export const DEMO_IMAGE_CHANGES: readonly string[] = [
  `CMD ["${NODE_PATH}","/app/hello.js"]`,
  'EXPOSE 8080',
  'USER app',
  'WORKDIR /app',
  'ENV PATH=/usr/local/bin:/bin',
  // A container's memory is what a migration moves: fewer threads and a small young generation keep a quarter of it away.
  'ENV NODE_OPTIONS="--max-semi-space-size=1 --v8-pool-size=1"',
  'ENV UV_THREADPOOL_SIZE=1',
  'ENV MALLOC_ARENA_MAX=1',
];

/** Writes the root file system as a tar and ends `target`; a string is the path of the file to write. `further` is what else is in it. */
export async function writeDemoImage(target: Writable | string, further: readonly RootFsEntry[] = []): Promise<void> {
  await using scratch = await scratchFolder();
  const node = await strippedNode(scratch.path);
  const ids = `${String(APP_UID)}:${String(APP_UID)}`;
  await writeRootFs(target, [
    // Before busybox's own, which know root alone.
    { kind: 'text', path: '/etc/passwd', text: `${ROOT_ACCOUNT}app:x:${ids}:app:/app:/bin/sh\n` },
    { kind: 'text', path: '/etc/group', text: `${ROOT_GROUP}app:x:${String(APP_UID)}:\n` },
    ...(await appEntries()),
    ...further,
    ...(await programEntries(NODE_PATH, node)),
    ...(await busyboxEntries()),
  ]);
}

async function appEntries(): Promise<readonly RootFsEntry[]> {
  const names = (await readdir(APP_FOLDER)).filter((name) => name.endsWith('.js'));
  const files = names.map(async (name): Promise<RootFsEntry> => ({
    kind: 'text',
    path: `/app/${name}`,
    text: await readFile(join(APP_FOLDER, name), 'utf8'),
  }));
  return [
    { kind: 'directory', path: '/app', mode: 0o755, uid: APP_UID },
    { kind: 'text', path: '/app/package.json', text: '{"type":"module"}\n' },
    ...(await Promise.all(files)),
  ];
}

/** The running Node without its symbols, which are a fifth of it, where the machine has `strip`; else as it is. */
async function strippedNode(folder: string): Promise<string> {
  const strip = findProgram('strip');
  if (strip === undefined) return process.execPath;
  const stripped = join(folder, 'node');
  const { exitCode } = await tryCommand(strip, ['-o', stripped, process.execPath]);
  return exitCode === 0 ? stripped : process.execPath;
}

async function scratchFolder(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'ecluse-demo-'));
  return {
    path,
    [Symbol.asyncDispose]: async () => {
      await rm(path, { recursive: true, force: true });
    },
  };
}
