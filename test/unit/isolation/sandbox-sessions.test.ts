/** Which processes of a sandbox belong to exec sessions. */
import { describe, expect, test } from 'vitest';
import { readProcesses } from '#isolation/sandbox-processes.ts';
import { sessionPids } from '#isolation/sandbox-sessions.ts';

interface Given {
  readonly pid: number;
  readonly ppid: number;
  readonly args?: readonly string[];
  readonly files?: readonly string[];
}

function processesOf(given: readonly Given[]) {
  const table = [
    'UID PID PPID C TTY STIME TIME CMD',
    ...given.map(({ pid, ppid }) => `0 ${String(pid)} ${String(ppid)} 0 ? 00:36 10ms x`),
  ];
  const dump = given.map(({ pid, args = ['x'], files = [] }) =>
    JSON.stringify({ args, status: { pid }, fdlist: files.map((path, number) => ({ number, path, mode: 0 })) }),
  );
  return readProcesses(table.join('\n'), ['PROCFS DUMP', ...dump].join('\n'));
}

const own = ['host:[1]', 'host:[2]', 'host:[3]'];
const none = () => false;

describe('sessionPids()', () => {
  test('takes sessions, what they started, and what still holds the streams of one that ended', () => {
    const processes = processesOf([
      { pid: 1, ppid: 0, files: own },
      { pid: 7, ppid: 1, files: ['/dev/null', 'host:[8]', 'host:[9]'] },
      { pid: 45, ppid: 0, files: ['host:[10]', 'host:[11]', 'host:[12]'] },
      { pid: 46, ppid: 45, files: ['/dev/null', '/dev/null', '/dev/null'] },
      { pid: 47, ppid: 45, files: ['pipe:[3]', 'host:[11]'] },
      { pid: 52, ppid: 1, files: own },
    ]);
    expect(sessionPids(processes, none)).toEqual([7, 45, 47]);
  });

  test('leaves alone what the first process started, also when that closed its own streams', () => {
    const processes = processesOf([
      { pid: 1, ppid: 0, files: ['/var/log/x'] },
      { pid: 2, ppid: 1, files: own },
      { pid: 9, ppid: 0, files: ['host:[7]'] },
    ]);
    expect(sessionPids(processes, none)).toEqual([9]);
  });

  test('spares a health check with what it started', () => {
    const processes = processesOf([
      { pid: 1, ppid: 0, files: own },
      { pid: 9, ppid: 0, args: ['/bin/sh', '-c', 'probe'], files: ['host:[7]'] },
      { pid: 10, ppid: 9, files: ['host:[7]'] },
      { pid: 11, ppid: 0, files: ['host:[8]'] },
    ]);
    expect(sessionPids(processes, ({ args }) => args.at(-1) === 'probe')).toEqual([11]);
  });

  test('takes all that a session started where open files are not told', () => {
    const processes = processesOf([
      { pid: 1, ppid: 0 },
      { pid: 2, ppid: 1 },
      { pid: 9, ppid: 0 },
      { pid: 10, ppid: 9 },
      { pid: 11, ppid: 10 },
    ]);
    expect(sessionPids(processes, none)).toEqual([9, 10, 11]);
    expect(sessionPids([], none)).toEqual([]);
  });
});
