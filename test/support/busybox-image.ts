/** The tests' small image: busybox, /tmp and root's account. */
import type { Writable } from 'node:stream';
import { busyboxEntries, writeRootFs } from '../../src/demo-root-fs.ts';

/** Writes the root file system as a tar for `docker import -` and ends `target`; a string is the path of the file to write. */
export async function writeBusyboxImage(target: Writable | string): Promise<void> {
  await writeRootFs(target, await busyboxEntries());
}
