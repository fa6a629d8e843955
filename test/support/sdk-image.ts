/** An image with Node, busybox, npm packages with all that they need, and one program that uses them: nothing of it is from a registry of images. */
import { createReadStream, existsSync } from 'node:fs';
import { readdir, readFile, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import * as z from 'zod';
import { busyboxEntries, programEntries, writeRootFs } from '../../src/demo-root-fs.ts';
import type { RootFsEntry } from '../../src/demo-root-fs.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

const manifestSchema = z.looseObject({ dependencies: z.record(z.string(), z.string()).default({}) });

/** Where Node finds `name` for a module in `folder`, below this repository. */
function packageFolder(name: string, folder: string): string {
  const found = join(folder, 'node_modules', name);
  if (existsSync(join(found, 'package.json'))) return found;
  if (!folder.startsWith(ROOT)) throw new Error(`the package ${name} is not installed: npm install`);
  return packageFolder(name, dirname(folder));
}

/** The folders of a package and of everything that it depends on. */
async function packageFolders(name: string, from: string, found: Set<string>): Promise<void> {
  const folder = packageFolder(name, from);
  if (found.has(folder)) return;
  found.add(folder);
  const { dependencies } = manifestSchema.parse(JSON.parse(await readFile(join(folder, 'package.json'), 'utf8')));
  for (const dependency of Object.keys(dependencies)) await packageFolders(dependency, folder, found);
}

/** The files of a package, without packages inside of it, which are asked for by themselves. */
async function filesOf(folder: string): Promise<readonly RootFsEntry[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const inner = join(folder, 'node_modules');
  const sources = entries
    .filter((entry) => entry.isFile() && !entry.parentPath.startsWith(inner) && !/\.(?:map|md|ts)$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name));
  return await Promise.all(
    sources.map(async (source): Promise<RootFsEntry> => {
      const path = `/app/${source.slice(ROOT.length)}`;
      const { size } = await stat(source);
      return size === 0 ? { kind: 'text', path, text: '' } : { kind: 'program', path, source };
    }),
  );
}

/** The root file system as a tar: `node /app/program.ts` is the program at `program`. `folder` is for scratch files. */
export async function clientImage(packageNames: readonly string[], program: string, folder: string): Promise<Readable> {
  const folders = new Set<string>();
  for (const name of packageNames) await packageFolders(name, ROOT, folders);
  const files = await Promise.all([...folders].map(filesOf));
  const tar = join(folder, 'client-image.tar');
  await writeRootFs(tar, [
    ...files.flat(),
    { kind: 'program', path: '/app/program.ts', source: program },
    ...(await programEntries('/bin/node', process.execPath)),
    ...(await busyboxEntries()),
  ]);
  return createReadStream(tar);
}
