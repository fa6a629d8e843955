/**
 * Files of a snapshot as archives: one for a container's own files, one for each of its volumes. GNU tar, because it keeps everything that a directory of
 * overlay has: owners by number, extended attributes (overlay's marks), devices (its whiteouts), hard links, holes.
 */
import { runCommand, tryCommand } from '#command';

const ARCHIVE_TIMEOUT_MS = 600_000;
/** A tree that cannot be looked at in this time is not saved: it could not be copied either. */
const SIZE_TIMEOUT_MS = 60_000;
const WHOLE = ['--numeric-owner', '--xattrs', '--xattrs-include=*', '--acls'] as const;

/** The container's own files; everything else in a snapshot that ends so is a volume. */
export const OWN_FILES = 'files.tar';

/** The archive of a volume: by its place among the container's, because its name is the tenant's. */
export function volumeArchive(position: number): string {
  return `volume-${String(position)}.tar`;
}

export function isArchive(name: string): boolean {
  return name.endsWith('.tar');
}

/** Writes all that is below a directory, and how the directory itself looks, into a fresh archive. */
export async function packTree(directory: string, archive: string): Promise<void> {
  await runCommand('tar', ['-C', directory, ...WHOLE, '--sparse', '-cf', archive, '.'], { timeoutMs: ARCHIVE_TIMEOUT_MS });
}

/** Fills a directory that nobody uses from an archive of ours. */
export async function unpackTree(archive: string, directory: string): Promise<void> {
  await runCommand('tar', ['-C', directory, ...WHOLE, '--same-owner', '-xpf', archive], { timeoutMs: ARCHIVE_TIMEOUT_MS });
}

/** What a tree occupies on its disk. Files may vanish meanwhile. */
export async function diskBytesOf(directory: string): Promise<number> {
  const counted = await tryCommand('du', ['-sx', '--block-size=1', directory], { timeoutMs: SIZE_TIMEOUT_MS });
  const bytes = /^(\d+)\t/.exec(counted.stdout)?.[1];
  if (bytes === undefined) throw new Error(`the size of its files is not known: ${counted.stderr.trim().slice(-200)}`);
  return Number(bytes);
}
