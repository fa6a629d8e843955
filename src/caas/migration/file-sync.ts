/**
 * A container's files on their way to another host of this machine: a first copy while the container runs, and a last pass while it is paused.
 *
 * What changed in between is told by size and time of change, to the nanosecond. Two things could hide a change from that: a file that was written twice
 * within one tick of the kernel's clock, and memory that is mapped from a file, whose later writes set no time until it was written back. So the
 * file system is synced before the first copy (mapped pages then fault, and set the time, again), and what is as young as that copy is copied
 * again whatever it looks like. Source: Linux, Documentation/filesystems/locking (page_mkwrite) and mm/page-writeback.c (clear_page_dirty_for_io).
 */
import { lstat, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { runCommand, tryCommand } from '#command';

export interface Tree {
  readonly from: string;
  readonly to: string;
}

/** The engine's layer of a container: what it wrote, and how it looks with what it was made of. */
export interface LayerTree {
  /** Upper directories. */
  readonly from: string;
  readonly to: string;
  /** Where both are mounted. */
  readonly fromMerged: string;
  readonly toMerged: string;
}

const COPY_TIMEOUT_MS = 600_000;
const SYNC_TIMEOUT_MS = 60_000;
/** A clock tick of the kernel is at most 10 ms; this is for file systems with whole seconds. */
const SAME_TIME_MS = 1_000;
/** More changes than that between two passes are copied as a whole. */
const CHANGES_MAX = 20_000;

/** Everything that a container can have: owners, times, attributes (overlay's marks), devices (its whiteouts), hard links, holes. */
const RSYNC = ['-aHAXS', '--numeric-ids', '--modify-window=-1'] as const;
/** Files vanish while a container runs: the last pass sees what is left. */
const LIVE_EXIT_CODES: ReadonlySet<number> = new Set([0, 23, 24]);

function inside(directory: string): string {
  return `${directory}/`;
}

/** The first copy, while the source is written to. Returns the time to give to the last pass. */
export async function copyLive(tree: Tree): Promise<{ readonly sinceMs: number }> {
  // A file system that cannot be synced in time: everything counts as young, which is slow and right.
  const synced = await tryCommand('sync', ['-f', tree.from], { timeoutMs: SYNC_TIMEOUT_MS });
  const sinceMs = synced.exitCode === 0 ? Date.now() - SAME_TIME_MS : 0;
  const args = [...RSYNC, '--delete', inside(tree.from), inside(tree.to)];
  const copied = await tryCommand('rsync', args, { timeoutMs: COPY_TIMEOUT_MS });
  if (!LIVE_EXIT_CODES.has(copied.exitCode)) throw new Error(`files could not be copied: ${copied.stderr.trim().slice(-500)}`);
  return { sinceMs };
}

/** Paths of regular files, below `directory`, that changed since; NUL-separated as rsync takes them. */
async function youngFiles(directory: string, sinceMs: number): Promise<string> {
  const since = `@${(sinceMs / 1000).toFixed(3)}`;
  return await runCommand('find', [directory, '-xdev', '-type', 'f', '-newerct', since, '-printf', '%P\\0'], {
    timeoutMs: COPY_TIMEOUT_MS,
  });
}

/** Anything below `directory`, or itself, that changed since; empty: nothing did. */
async function changedSince(directory: string, sinceMs: number): Promise<string> {
  const since = `@${(sinceMs / 1000).toFixed(3)}`;
  return await runCommand('find', [directory, '-xdev', '-newerct', since, '-print', '-quit'], { timeoutMs: COPY_TIMEOUT_MS });
}

/** Copies files by name whatever their times say. In place, so that hard links stay links. */
async function copyNamed(from: string, to: string, names: string): Promise<void> {
  if (names === '') return;
  const args = [...RSYNC, '-I', '--inplace', '--no-sparse', '--from0', '--files-from=-', inside(from), inside(to)];
  await runCommand('rsync', args, { input: names, timeoutMs: COPY_TIMEOUT_MS });
}

/** The last pass over a directory that nobody writes to any more, on either side. */
export async function finishTree(tree: Tree, sinceMs: number): Promise<void> {
  if (sinceMs > 0 && (await changedSince(tree.from, sinceMs)) === '') return;
  await runCommand('rsync', [...RSYNC, '--delete', inside(tree.from), inside(tree.to)], { timeoutMs: COPY_TIMEOUT_MS });
  await copyNamed(tree.from, tree.to, await youngFiles(tree.from, sinceMs));
}

type Difference = { readonly kind: 'copy' | 'removal'; readonly path: string };

/** Of a change that is no removal: rsync's kind of change with its kind of file, where a copy through a mounted overlay does it. */
const COPIED = /^[<>c.][fL]|^[c.]d(?!.*x)/;
/** A whiteout, alone or one of several links to one: the caller looks. */
const MARKED = /^[ch]D/;

/** One line of rsync's `%i %n`; undefined: nothing that can be done through a mounted overlay. */
function differenceOf(line: string): Difference | undefined {
  // rsync writes bytes that are no plain text as \#ooo.
  const parts = line.includes('\\#') ? null : /^(\*deleting {2}|[<>c.h][fdLDS].{9}) +(.*)$/.exec(line);
  if (parts === null) return undefined;
  const [, change = '', name = ''] = parts;
  const path = name === './' ? '.' : name.replace(/\/$/, '');
  if (change.startsWith('*') || MARKED.test(change)) return { kind: 'removal', path };
  // A directory whose attributes changed may have become opaque: what is below it in the image must not show.
  return COPIED.test(change) ? { kind: 'copy', path } : undefined;
}

/** What a listing of differences asks for; undefined: something that only a copy of the unmounted directory can do. Pure. */
export function planLayer(
  listing: string,
): { readonly removals: readonly string[]; readonly copies: readonly string[] } | undefined {
  const removals: string[] = [];
  const copies: string[] = [];
  for (const line of listing.split('\n')) {
    if (line === '') continue;
    const difference = differenceOf(line);
    if (difference === undefined || removals.length + copies.length >= CHANGES_MAX) return undefined;
    (difference.kind === 'copy' ? copies : removals).push(difference.path);
  }
  return { removals, copies };
}

/**
 * The last pass over a layer whose target is mounted already: what differs is written through the mount, because a directory below an overlay must
 * not change. False where that cannot express the difference; then nothing was changed but files that the source has as well.
 */
export async function finishLayer(tree: LayerTree, sinceMs: number): Promise<boolean> {
  // Whatever is made, written, renamed or removed sets the time of change of itself or of its directory.
  const changed = await changedSince(tree.from, sinceMs);
  if (changed === '') return true;
  const listing = await runCommand(
    'rsync',
    [...RSYNC, '-n', '--delete', '--out-format=%i %n', inside(tree.from), inside(tree.to)],
    { timeoutMs: COPY_TIMEOUT_MS },
  );
  const plan = planLayer(listing);
  if (plan === undefined) return false;
  if (!(await areGone(tree, plan.removals))) return false;
  for (const path of plan.removals) await rm(join(tree.toMerged, path), { recursive: true, force: true });
  const young = (await youngFiles(tree.from, sinceMs)).split('\0').filter((name) => name !== '');
  const names = [...new Set([...plan.copies, ...young])];
  await copyNamed(tree.fromMerged, tree.toMerged, names.map((name) => `${name}\0`).join(''));
  return true;
}

/** Whether the container itself does not see these any more. A character device of the tenant's own is none of overlay's marks. */
async function areGone(tree: LayerTree, paths: readonly string[]): Promise<boolean> {
  for (const path of paths) {
    try {
      await lstat(join(tree.fromMerged, path));
      return false;
    } catch {
      // It is gone, which is what the mark says.
    }
  }
  return true;
}
