/** Files that are whole or absent, whatever happens while they are written: temporary file, fsync, then one step into place. */
import { randomBytes } from 'node:crypto';
import { link, open, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';

async function syncFolder(folder: string): Promise<void> {
  await using handle = await open(folder, 'r');
  await handle.sync();
}

/** A name that no reader looks for; short, because the final name may be near the file system's limit. */
async function writeTemporary(folder: string, text: string, mode: number): Promise<string> {
  const path = join(folder, `.new-${randomBytes(8).toString('hex')}`);
  await using handle = await open(path, 'wx', mode);
  await handle.chmod(mode); // The process's umask may have taken bits away.
  await handle.writeFile(text);
  await handle.sync();
  return path;
}

/** Writes `path`, which must not exist: fails with EEXIST where it does, even if it came to be a moment ago. */
export async function createFile(path: string, text: string, mode: number): Promise<void> {
  const temporary = await writeTemporary(dirname(path), text, mode);
  try {
    await link(temporary, path); // Unlike rename, link never overwrites.
  } finally {
    await rm(temporary, { force: true });
  }
  await syncFolder(dirname(path));
}

/** Writes `path` anew: whoever opens it reads what there was, or all of this. */
export async function replaceFile(path: string, text: string, mode: number): Promise<void> {
  const temporary = await writeTemporary(dirname(path), text, mode);
  try {
    await rename(temporary, path);
  } finally {
    await rm(temporary, { force: true });
  }
  await syncFolder(dirname(path));
}
