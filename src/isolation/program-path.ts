/**
 * Where a program of the system is. PATH first, then the administrator's folders: `su` without a dash and some service managers
 * leave `/usr/sbin` out of PATH, and dockerd, nft and runsc live there.
 */
import { accessSync, constants, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';

const FOLDERS_ALWAYS = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'] as const;

/** PATH with the administrator's folders added where they are missing: what a program that we start should get. */
export function systemPath(): string {
  const given = (process.env['PATH'] ?? '').split(delimiter).filter((folder) => folder !== '');
  return [...given, ...FOLDERS_ALWAYS.filter((folder) => !given.includes(folder))].join(delimiter);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false; // Absent, or not ours to run: the next folder may have it.
  }
}

/** The full path of `program`, or undefined where the machine does not have it. */
export function findProgram(program: string): string | undefined {
  return systemPath()
    .split(delimiter)
    .map((folder) => join(folder, program))
    .find(isExecutable);
}
