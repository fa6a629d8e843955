/**
 * The memory of a running sandbox, read from outside: all application memory of a gVisor sandbox is one memfd. Reading it neither stops nor
 * changes the sandbox, and holes that are read stay holes.
 */
import { spawnSync } from 'node:child_process';
import { readdir, readlink, stat } from 'node:fs/promises';
import { fstatSync } from 'node:fs';
import { findProgram } from '#isolation/program-path.ts';
import type { RunscCapabilities } from '#isolation/runsc-probe.ts';
import { pageError } from './page-errors.ts';

const MEMORY_LINK = '/memfd:runsc-memory (deleted)';

/** The file of the memory of the sandbox which is among `pids` (the processes of its container's cgroup). */
export async function findSandboxMemory(pids: readonly number[]): Promise<string> {
  const found = new Map<string, string>();
  for (const pid of pids) {
    const folder = `/proc/${String(pid)}/fd`;
    // Processes end; those that remain are asked.
    for (const name of await readdir(folder).catch(() => [])) {
      const file = `${folder}/${name}`;
      if ((await readlink(file).catch(() => '')) !== MEMORY_LINK) continue;
      const { dev, ino } = await stat(file);
      found.set(`${String(dev)}:${String(ino)}`, file);
    }
  }
  const [file, ...others] = found.values();
  if (file === undefined || others.length > 0) {
    throw pageError(
      'ECLUSE_PAGES_NO_MEMORY',
      `the container has ${String(found.size)} sandboxes with memory, not one`,
      'migrate it without pre-copy',
    );
  }
  return file;
}

/** Bytes of a file from `from` up to `to`. */
export interface Extent {
  readonly from: number;
  readonly to: number;
}

/** lseek with SEEK_DATA and SEEK_HOLE, which Node does not have. Perl calls position 0 "0 but true", hence the `+ 0`. */
const EXTENTS_PROGRAM = `
open(my $file, "<", $ARGV[0]) or exit 1;
my $at = 0;
while (defined(my $data = sysseek($file, $at, 3))) {
  my $hole = sysseek($file, $data, 4);
  exit 1 unless defined $hole;
  printf("%d %d\\n", $data + 0, $hole + 0);
  $at = $hole + 0;
}`;
const PROGRAM_TIMEOUT_MS = 10_000;
const OUTPUT_BYTES_MAX = 64 * 1024 * 1024;

/** Pairs of numbers, a line each, ascending. Undefined for anything else. Pure. */
export function readExtents(text: string): readonly Extent[] | undefined {
  const extents: Extent[] = [];
  let end = 0;
  for (const line of text.split('\n')) {
    if (line === '') continue;
    const found = /^(\d{1,15}) (\d{1,15})$/.exec(line);
    const from = Number(found?.[1]);
    const to = Number(found?.[2]);
    if (found === null || from < end || to <= from) return undefined;
    extents.push({ from, to });
    end = to;
  }
  return extents;
}

/**
 * Where a file has data, for a thread of its own: it waits for a program that takes some milliseconds. Without perl it is the whole file, whose holes
 * are then read as zeros.
 */
export function dataExtents(file: string, fd: number): readonly Extent[] {
  const perl = findProgram('perl');
  if (perl !== undefined) {
    const { status, stdout } = spawnSync(perl, ['-e', EXTENTS_PROGRAM, file], {
      encoding: 'utf8',
      timeout: PROGRAM_TIMEOUT_MS,
      maxBuffer: OUTPUT_BYTES_MAX,
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const extents = status === 0 ? readExtents(stdout) : undefined;
    if (extents !== undefined) return extents;
  }
  return [{ from: 0, to: fstatSync(fd).size }];
}

/** The last release of which it is known that pages.img grows from its beginning to its end. */
const IN_ORDER_LAST_YMD = 20240729;

/** Whether what pages.img has is final while runsc still writes. Later releases write at several places at once. */
export function writesPagesInOrder({ dateYmd }: Pick<RunscCapabilities, 'dateYmd'>): boolean {
  return dateYmd !== undefined && dateYmd <= IN_ORDER_LAST_YMD;
}
