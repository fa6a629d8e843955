/** `docker top`: columns over a sandbox's processes. */
import { describe, expect, test } from 'vitest';
import { topView } from '#caas/docker-api/top.ts';
import { readProcesses } from '#isolation/sandbox-processes.ts';
import { goDurationMs } from '#units';

const TABLE = `UID       PID       PPID      C         TTY       STIME     TIME      CMD
0         1         0         3         ?         08:13     1m2.5s    sh
1000      7         1         0         ?         Nov21     20ms      node
`;
const DUMP = `PROCFS DUMP

{"exe":"/bin/sh","args":["sh","-c","a b"],"env":["SECRET=1"],"status":{"comm":"sh","pid":1,"gid":{"effective":5},"vm_size":10328,"vm_rss":1024},"stat":{"pgid":1,"sid":1}}
no JSON
`;
const processes = readProcesses(TABLE, DUMP);
const facts = { memoryBytes: 64 * 1024 * 1024 };

function rows(psArgs: string): readonly string[] {
  const answer = topView(psArgs, processes, facts);
  if (answer.kind === 'refused') throw new Error(answer.message);
  return [answer.titles, ...answer.processes].map((row) => row.join('|'));
}

describe('readProcesses()', () => {
  test('joins what runsc tells of a process', () => {
    expect(processes).toMatchObject([
      { uid: 0, gid: 5, pid: 1, ppid: 0, cpuMs: 62_500, comm: 'sh', args: ['sh', '-c', 'a b'], vszKiB: 10_328, rssKiB: 1024 },
      { uid: 1000, pid: 7, ppid: 1, start: 'Nov21', cpuMs: 20, comm: 'node', args: [] },
    ]);
    expect(JSON.stringify(processes)).not.toContain('SECRET');
  });

  test('reads Go’s durations', () => {
    expect(['0s', '20ms', '1h2m3.5s', '100µs', 'x'].map(goDurationMs)).toEqual([0, 20, 3_723_500, 0.1, undefined]);
  });
});

describe('topView()', () => {
  test('has the columns of ps -ef where nothing is asked for', () => {
    const expected = [
      'UID|PID|PPID|C|STIME|TTY|TIME|CMD',
      'root|1|0|3|08:13|?|00:01:02|sh -c a b',
      '1000|7|1|0|Nov21|?|00:00:00|[node]',
    ];
    expect(rows('')).toEqual(expected);
    expect(rows('-ef')).toEqual(expected);
  });

  test('has those of BSD, and of any list', () => {
    expect(rows('aux')[1]).toBe('root|1|3.0|1.6|10328|1024|?|S|08:13|1:02|sh -c a b');
    expect(rows('-o pid,comm')).toEqual(['PID|COMMAND', '1|sh', '7|node']);
    expect(rows('-eo pid=PID,cmd=WHAT -o ppid')).toEqual(['PID|WHAT|PPID', '1|sh -c a b|0', '7|[node]|1']);
    expect(rows('-A')[0]).toBe('PID|TTY|TIME|CMD');
    // Docker's own would show environments of the host's processes here.
    expect(rows('ewww')).toEqual(['PID|TTY|STAT|TIME|COMMAND', '1|?|S|1:02|sh -c a b', '7|?|S|0:00|[node]']);
  });

  test.each([
    ['-o comm', "Couldn't find PID field in ps output"],
    ['-o pid=X', "Couldn't find PID field in ps output"],
    ['-o comm=PID', 'specifying "comm=PID" is not allowed'],
    ['-o pid,environ', 'ps: error: unknown user-defined format specifier "environ"'],
    ['-o pid,toString', 'ps: error: unknown user-defined format specifier "tostring"'],
    ['-o', 'ps: error: format specification must follow -o'],
    ['-z', 'ps: error: unsupported SysV option'],
    ['k', 'ps: error: unsupported option (BSD syntax)'],
    ['--sort=pid', 'ps: error: garbage option'],
    ['-ef; id', 'ps: error: garbage option'],
  ])('%s: %s', (psArgs, message) => {
    expect(topView(psArgs, processes, facts)).toEqual({ kind: 'refused', message });
  });
});
