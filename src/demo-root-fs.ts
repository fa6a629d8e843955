/**
 * Root file systems for `docker import`, made of programs of this machine: no image can be pulled where there is no registry.
 *
 * The same files make the same tar byte for byte (owner, times and order are fixed), and so the same layer on every host.
 */
import { createWriteStream } from 'node:fs';
import { open, realpath } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { pack } from 'tar-stream';
import type { Pack } from 'tar-stream';
import { runCommand, tryCommand } from '#command';
import { EcluseError } from '#errors';
import { findProgram } from '#isolation/program-path.ts';

/** What is at one absolute path. Parent directories need no entry of their own. */
export type RootFsEntry =
  | { readonly kind: 'directory'; readonly path: string; readonly mode: number; readonly uid?: number }
  | { readonly kind: 'text'; readonly path: string; readonly text: string }
  | { readonly kind: 'link'; readonly path: string; readonly to: string }
  /** A copy of a file of this machine, executable. */
  | { readonly kind: 'program'; readonly path: string; readonly source: string };

/** The lines of /etc/passwd and /etc/group that every image has. */
export const ROOT_ACCOUNT = 'root:x:0:0:root:/root:/bin/sh\n';
export const ROOT_GROUP = 'root:x:0:\n';

const EPOCH = new Date(0);
const READ_BYTES = 1024 * 1024;

/** Writes the tar and ends `target`; a string is the path of the file to write. The first entry of a path wins. */
export async function writeRootFs(target: Writable | string, entries: readonly RootFsEntry[]): Promise<void> {
  const packing = pack({ highWaterMark: READ_BYTES });
  const sink = typeof target === 'string' ? createWriteStream(target, { highWaterMark: READ_BYTES }) : target;
  await Promise.all([pipeline(packing, sink), packAll(packing, withParents(entries))]);
}

/**
 * The program at `source` as `path`, with the shared libraries and the dynamic loader that it needs, at their own paths, where the
 * loader looks for them. A static program is one entry.
 */
export async function programEntries(path: string, source: string): Promise<readonly RootFsEntry[]> {
  const libraries = await librariesOf(source);
  return [
    { kind: 'program', path, source },
    ...libraries.map((library): RootFsEntry => ({ kind: 'program', path: library, source: library })),
  ];
}

/** busybox with all its applets, so that `docker exec NAME sh`, `ls` and the like work; /tmp, and root's account. */
export async function busyboxEntries(): Promise<readonly RootFsEntry[]> {
  const source = findProgram('busybox');
  if (source === undefined) {
    throw new EcluseError({
      code: 'ECLUSE_BUSYBOX_MISSING',
      source: 'runtime',
      message: 'the program busybox, which images are made of, is not installed',
      mend: 'run `ecluse doctor --fix`',
    });
  }
  const applets = (await runCommand(source, ['--list']))
    .split('\n')
    .filter((name) => /^[\w.[-]+$/.test(name) && name !== 'busybox');
  return [
    ...(await programEntries('/bin/busybox', source)),
    ...applets.map((name): RootFsEntry => ({ kind: 'link', path: `/bin/${name}`, to: 'busybox' })),
    { kind: 'text', path: '/etc/passwd', text: ROOT_ACCOUNT },
    { kind: 'text', path: '/etc/group', text: ROOT_GROUP },
    { kind: 'directory', path: '/root', mode: 0o700 },
    { kind: 'directory', path: '/tmp', mode: 0o1777 },
  ];
}

/** The absolute paths in what `ldd` prints (glibc's and musl's), without the kernel's own vdso. */
export function librariesInLdd(output: string): readonly string[] {
  const missing = /^\s*(\S+) => not found/m.exec(output);
  if (missing !== null) {
    throw new EcluseError({
      code: 'ECLUSE_LIBRARY_MISSING',
      source: 'runtime',
      message: `a shared library is not on this machine: ${String(missing[1])}`,
      mend: 'install the package that brings it',
    });
  }
  const paths = output.split('\n').map((line) => /^\s*(?:\S+ => )?(\/.*) \(0x[0-9a-f]+\)$/.exec(line)?.[1]);
  return [...new Set(paths.filter((path) => path !== undefined))].toSorted();
}

async function librariesOf(program: string): Promise<readonly string[]> {
  const ldd = findProgram('ldd');
  if (ldd === undefined) {
    throw new EcluseError({
      code: 'ECLUSE_LDD_MISSING',
      source: 'runtime',
      message: `the program ldd, which tells the libraries of ${program}, is not installed`,
      mend: 'apt-get install libc-bin',
    });
  }
  // What is preloaded here is not part of the program.
  const { exitCode, stdout, stderr } = await tryCommand(ldd, [await realpath(program)], {
    env: { ...process.env, LC_ALL: 'C', LD_PRELOAD: '' },
  });
  if (/not a (?:valid )?dynamic (?:executable|program)|statically linked/i.test(stdout + stderr)) return [];
  const libraries = librariesInLdd(stdout);
  if (exitCode !== 0 || libraries.length === 0) {
    throw new EcluseError({
      code: 'ECLUSE_LDD_FAILED',
      source: 'runtime',
      message: `ldd cannot tell the libraries of ${program}: ${(stderr.trim() === '' ? stdout : stderr).trim().slice(0, 300)}`,
    });
  }
  return libraries;
}

/** One entry a path, every directory before what is in it. */
function withParents(entries: readonly RootFsEntry[]): readonly RootFsEntry[] {
  const byPath = new Map<string, RootFsEntry>();
  for (const entry of entries) if (!byPath.has(entry.path)) byPath.set(entry.path, entry);
  for (const path of byPath.keys()) {
    const folder = dirname(path);
    // A map's iteration reaches what is added on the way, and so the parents of parents.
    if (folder !== '/' && !byPath.has(folder)) byPath.set(folder, { kind: 'directory', path: folder, mode: 0o755 });
  }
  return [...byPath.values()].toSorted((a, b) => (a.path < b.path ? -1 : 1));
}

async function packAll(packing: Pack, entries: readonly RootFsEntry[]): Promise<void> {
  try {
    for (const entry of entries) await packEntry(packing, entry);
    packing.finalize();
  } catch (error) {
    packing.destroy(error instanceof Error ? error : undefined);
    throw error;
  }
}

async function packEntry(packing: Pack, entry: RootFsEntry): Promise<void> {
  const common = { name: entry.path.slice(1), uid: 0, gid: 0, mtime: EPOCH };
  switch (entry.kind) {
    case 'directory':
      packing.entry({ ...common, type: 'directory', mode: entry.mode, uid: entry.uid ?? 0, gid: entry.uid ?? 0 });
      return;
    case 'text':
      packing.entry({ ...common, mode: 0o644 }, entry.text);
      return;
    case 'link':
      packing.entry({ ...common, type: 'symlink', mode: 0o777, linkname: entry.to });
      return;
    case 'program': {
      await using file = await open(entry.source);
      const { size } = await file.stat();
      const source = file.createReadStream({ highWaterMark: READ_BYTES, autoClose: false, end: size - 1 });
      await pipeline(source, packing.entry({ ...common, mode: 0o755, size }));
    }
  }
}
