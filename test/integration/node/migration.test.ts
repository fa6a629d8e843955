import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { expectNothingLeft } from '../../support/leftovers.ts';
import { startNode } from '../../support/node.ts';
import type { TestNode } from '../../support/node.ts';
import { longestGapMs, startSteadyLoad } from '../../support/steady-load.ts';

interface Count {
  readonly count: number;
  readonly host: string;
}

function countOf(body: string): Count {
  const parsed: unknown = JSON.parse(body);
  if (typeof parsed !== 'object' || parsed === null || !('count' in parsed) || !('host' in parsed))
    throw new Error(`no count: ${body}`);
  return { count: Number(parsed.count), host: String(parsed.host) };
}

describe('migrate', () => {
  let node: TestNode;

  beforeAll(async () => {
    node = await startNode({ demo: true });
  });

  afterAll(async () => {
    await node[Symbol.asyncDispose]();
    await expectNothingLeft(node.dataDir);
  });

  test('moves hello there and back five times under 100 requests a second without losing one', { timeout: 120_000 }, async () => {
    const before = (await node.docker('demo', ['ps', '--no-trunc', '--format', '{{.ID}} {{.Names}}'])).stdout;
    const startedAt = (await node.docker('demo', ['inspect', '-f', '{{.State.StartedAt}}', 'hello'])).stdout;
    const follow = spawn('docker', ['logs', '-f', 'hello'], {
      env: node.dockerEnv('demo'),
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let followed = '';
    follow.stdout.setEncoding('utf8').on('data', (text: string) => {
      followed += text;
    });
    const load = startSteadyLoad({ port: node.ports.https, host: 'hello.localhost', path: '/count', caFile: node.caFile }, 100);
    for (let round = 0; round < 5; round += 1) {
      for (const host of ['b', 'a']) {
        const moved = await node.ecluse('migrate', 'hello', '--to', host, '--json');
        expect(moved.stderr).not.toContain('ecluse: ');
        expect(moved.exitCode).toBe(0);
        expect((await node.docker('demo', ['ps', '--no-trunc', '--format', '{{.ID}} {{.Names}}'])).stdout).toBe(before);
      }
    }
    const samples = await load.stop();
    expect(samples.length).toBeGreaterThan(300);
    expect(samples.filter((sample) => sample.status !== 200)).toEqual([]);

    // Every request was counted exactly once: no reset, no loss, no repetition.
    const counts = samples.map((sample) => countOf(sample.body));
    const sorted = counts.map((entry) => entry.count).toSorted((one, other) => one - other);
    expect(new Set(sorted).size).toBe(sorted.length);
    expect((sorted.at(-1) ?? 0) - (sorted[0] ?? 0)).toBe(sorted.length - 1);
    expect(new Set(counts.map((entry) => entry.host))).toEqual(new Set(['a', 'b']));

    // The log is one log: each line once, in order, and the follower has seen all of it.
    const last = `request ${String(sorted.at(-1))} from a\n`;
    await expect.poll(() => followed.includes(last), { timeout: 10_000 }).toBe(true);
    follow.kill();
    const logged = (await node.docker('demo', ['logs', 'hello'])).stdout;
    expect(followed).toBe(logged.slice(0, followed.length));
    const numbers = [...logged.matchAll(/^request (\d+) from/gm)].map((found) => Number(found[1]));
    expect(numbers).toEqual(numbers.map((_, index) => index + 1));

    // Nothing is kept of the copies that were left behind.
    expect(await readdir(join(node.dataDir, 'hosts', 'b', 'runsc', 'final'))).toEqual([]);

    // A move is not a start.
    expect((await node.docker('demo', ['inspect', '-f', '{{.State.StartedAt}}', 'hello'])).stdout).toBe(startedAt);
    process.stdout.write(
      `longest pause seen by a client: ${longestGapMs(samples).toFixed(0)} ms over ${String(samples.length)} requests\n`,
    );
  });

  test('refuses what cannot move, and touches nothing', async () => {
    const same = await node.ecluse('migrate', 'hello', '--to', 'a');
    expect(same.stderr).toMatch(/^ecluse: container hello is on host a already; choose another host\n$/);
    expect(same.exitCode).toBe(1);
    const unknown = await node.ecluse('migrate', 'hello', '--to', 'nowhere');
    expect(unknown.stderr).toMatch(/^ecluse: host nowhere does not exist; choose one of: a, b\n$/);
    const never = await node.docker('demo', ['run', '-d', '--name', 'stays', '--label', 'ecluse.migrate=never', 'hello']);
    expect(never.exitCode).toBe(0);
    const refused = await node.ecluse('migrate', 'stays', '--to', 'a');
    expect(refused.stderr).toContain('ecluse.migrate=never');
    expect((await node.docker('demo', ['inspect', '-f', '{{.State.Status}}', 'stays'])).stdout.trim()).toBe('running');
    await node.docker('demo', ['rm', '-f', 'stays']);
  });

  test('carries files that the container wrote, deletions included', async () => {
    const write =
      'echo kept > /tmp/kept; mkdir /tmp/dir; echo x > /tmp/dir/x; rm /app/package.json; mv /tmp/dir /tmp/moved; ln -s kept /tmp/link';
    const made = await node.docker('demo', [
      'run',
      '-d',
      '--name',
      'files',
      '-u',
      '0',
      'hello',
      '/bin/sh',
      '-c',
      `${write}; sleep 1000`,
    ]);
    expect(made.stderr).toBe('');
    const look = ['exec', 'files', '/bin/sh', '-c', 'cat /tmp/link /tmp/moved/x; ls /tmp /app; stat -c "%U %a" /tmp/kept'];
    await expect.poll(async () => (await node.docker('demo', look)).stdout, { timeout: 10_000 }).toContain('kept');
    const before = await node.docker('demo', look);
    expect(before.stdout).not.toContain('package.json');
    const onB = (await node.ecluse('ps')).stdout.split('\n').some((line) => / files +\S+ +b /.test(line));
    const host = onB ? 'a' : 'b';
    const moved = await node.ecluse('migrate', 'files', '--to', host);
    expect(moved.stderr).not.toContain('ecluse: ');
    expect(await node.docker('demo', look)).toEqual(before);
    await node.docker('demo', ['rm', '-f', 'files']);
  });

  test('carries a volume and what is written until the last moment', { timeout: 120_000 }, async () => {
    // A writer that never rests: files made, appended to, renamed, removed and linked, in its root and in its volume.
    const script = [
      'mkdir -p /work; i=0',
      'while true; do i=$((i+1))',
      'echo "$i" >> /data/appended; echo "$i" > /data/file.$((i % 20)); mv /data/file.$((i % 20)) /data/moved.$((i % 7))',
      'echo "$i" >> /work/appended; mkdir -p /work/dir.$((i % 5)); echo "$i" > /work/dir.$((i % 5))/f; rm -rf /work/dir.$(((i + 2) % 5))',
      'echo "$i" > /app/made; [ $((i % 9)) != 0 ] || rm -f /app/made',
      'echo "$i" > /work/last; done',
    ].join('\n');
    const made = await node.docker('demo', [
      'run',
      '-d',
      '--name',
      'writer',
      '-u',
      '0',
      '-v',
      'data:/data',
      'hello',
      '/bin/sh',
      '-c',
      script,
    ]);
    expect(made.stderr).toBe('');
    const ask = async (command: string): Promise<string> => {
      const answer = await node.docker('demo', ['exec', 'writer', '/bin/sh', '-c', command]);
      expect(answer.stderr).toBe('');
      return answer.stdout;
    };
    // Every number was appended once, in order; in both files the same, but for the one that is being written.
    const check =
      'for f in /data/appended /work/appended; do awk "\\$1 != NR { print FILENAME, NR, \\$1 }" $f; tail -n 1 $f; done; cat /work/last';
    await expect
      .poll(async () => Number((await ask('cat /work/last 2>/dev/null || echo 0')).trim()), { timeout: 60_000 })
      .toBeGreaterThan(20);
    let before = 0;
    for (let round = 0; round < 3; round += 1) {
      const onB = (await node.ecluse('ps')).stdout.split('\n').some((line) => / writer +\S+ +b /.test(line));
      const moved = await node.ecluse('migrate', 'writer', '--to', onB ? 'a' : 'b');
      expect(moved.stderr).not.toContain('ecluse: ');
      const lines = (await ask(check)).trim().split('\n').map(Number);
      expect(lines).toHaveLength(3);
      const [inVolume = 0, inRoot = 0, last = 0] = lines;
      expect(Math.abs(inVolume - inRoot)).toBeLessThan(50); // It goes on between the two looks.
      expect(last).toBeGreaterThan(before);
      before = last;
    }
    await node.docker('demo', ['rm', '-f', 'writer']);
    await node.docker('demo', ['volume', 'rm', 'data']);
  });

  test('ends exec sessions where it is told to, and is kept by them otherwise', async () => {
    const made = await node.docker('demo', [
      'run',
      '-d',
      '--name',
      'busy',
      'hello',
      '/bin/sh',
      '-c',
      'sleep 1001 & while :; do sleep 1; done',
    ]);
    expect(made.stderr).toBe('');
    // One that ignores every signal, one with a terminal, and one that ended and left a process with its streams and a daemon without.
    const stubborn = ['exec', '-i', 'busy', '/bin/sh', '-c', 'trap "" TERM HUP INT; echo begun; while :; do sleep 1; done'];
    const session = spawn('docker', stubborn, { env: node.dockerEnv('demo'), stdio: ['pipe', 'pipe', 'inherit'] });
    const ended = once(session, 'exit');
    await once(session.stdout, 'data');
    await node.docker('demo', ['exec', '-d', '-t', 'busy', '/bin/sleep', '1002']);
    const left = 'sleep 1003 & sleep 1004 </dev/null >/dev/null 2>&1 &';
    await node.docker('demo', ['exec', 'busy', '/bin/sh', '-c', left]);
    const top = async (): Promise<string> => (await node.docker('demo', ['top', 'busy'])).stdout;
    for (const seconds of ['1001', '1002', '1003', '1004'])
      await expect.poll(top, { timeout: 10_000 }).toContain(`sleep ${seconds}`); // A detached one may not have begun yet.
    const onB = (await node.ecluse('ps')).stdout.split('\n').some((line) => / busy +\S+ +b /.test(line));
    const [here, there] = onB ? ['b', 'a'] : ['a', 'b'];

    const refused = await node.ecluse('migrate', 'busy', '--to', there);
    expect(refused.stderr).toContain('open exec sessions');
    expect(refused.stderr).toContain('--end-sessions');
    const stays = await node.ecluse('host', 'drain', here, '--dry-run');
    expect(stays.stdout).toMatch(/busy keeps the host busy: container busy has open exec sessions/);
    const goes = await node.ecluse('host', 'drain', here, '--dry-run', '--end-sessions');
    expect(goes.stdout).toMatch(/busy (?:would move|keeps the host busy: no host has room)/); // Who else is there is the other tests' doing.

    const moved = await node.ecluse('migrate', 'busy', '--to', there, '--end-sessions');
    expect(moved.stderr).not.toContain('ecluse: ');
    expect(moved.exitCode).toBe(0);
    expect(await ended).toEqual([137, null]);
    // gVisor ends whatever an exec session started when it restores, daemons too; what the container itself started goes on.
    const after = await top();
    expect(after).toContain('sleep 1001');
    expect(after).not.toMatch(/sleep 100[234]|trap/);

    // What an ended session left is not seen from outside: the attempt says what it is, and changes nothing.
    await node.docker('demo', ['exec', 'busy', '/bin/sh', '-c', 'sleep 1005 &']);
    const failed = await node.ecluse('migrate', 'busy', '--to', here);
    expect(failed.exitCode).toBe(1);
    expect(failed.stderr).toContain('still holds the streams of that session');
    expect(failed.stderr.length).toBeLessThan(500);
    expect(await top()).toContain('sleep 1005');
    await node.docker('demo', ['rm', '-f', 'busy']);
  });

  test('refuses a container whose volume another one has', async () => {
    for (const name of ['one', 'other']) {
      const made = await node.docker('demo', ['run', '-d', '--name', name, '-v', 'shared:/data', 'hello', '/bin/sleep', '1000']);
      expect(made.stderr).toBe('');
    }
    const onB = (await node.ecluse('ps')).stdout.split('\n').some((line) => / one +\S+ +b /.test(line));
    const refused = await node.ecluse('migrate', 'one', '--to', onB ? 'a' : 'b');
    expect(refused.stderr).toContain('container one shares the volume shared with another container');
    await node.docker('demo', ['rm', '-f', 'one', 'other']);
    await node.docker('demo', ['volume', 'rm', 'shared']);
  });
});
