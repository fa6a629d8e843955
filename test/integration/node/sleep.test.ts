import { request } from 'node:https';
import { readFileSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ask as askPlain } from '../../support/http-client.ts';
import { expectNothingLeft } from '../../support/leftovers.ts';
import { freePorts, freshDataDir, startNode } from '../../support/node.ts';
import type { TestNode } from '../../support/node.ts';

interface Answer {
  readonly status: number;
  readonly body: string;
}

/** One request over a connection of its own. */
async function ask(node: TestNode, host: string, path = '/count'): Promise<Answer> {
  return await new Promise((resolve, reject) => {
    const outgoing = request(
      {
        host: '127.0.0.1',
        port: node.ports.https,
        path,
        servername: host,
        headers: { host },
        ca: readFileSync(node.caFile),
        agent: false,
      },
      (response) => {
        let body = '';
        response.setEncoding('utf8').on('data', (text: string) => {
          body += text;
        });
        response.once('end', () => {
          resolve({ status: response.statusCode ?? 0, body });
        });
      },
    );
    outgoing.once('error', reject);
    outgoing.end();
  });
}

function countOf({ status, body }: Answer): number {
  expect(status).toBe(200);
  return Number(/"count":(\d+)/.exec(body)?.[1]);
}

describe('sleep', () => {
  let node: TestNode;
  const HOST = 'hello.localhost';

  beforeAll(async () => {
    node = await startNode({ demo: true });
  });

  afterAll(async () => {
    await node[Symbol.asyncDispose]();
    await expectNothingLeft(node.dataDir);
  });

  const done = async (...args: readonly string[]): Promise<string> => {
    const answer = await node.ecluse(...args);
    expect(answer.stderr).toBe('');
    expect(answer.exitCode).toBe(0);
    return answer.stdout;
  };
  const docker = async (...args: readonly string[]): Promise<string> => {
    const answer = await node.docker('demo', args);
    expect(answer.stderr).toBe('');
    return answer.stdout.trim();
  };
  const wakesOf = async (): Promise<number> =>
    (await node.ecluse('events', '--last', '1000', '--json')).stdout.split('container.awake').length - 1;

  test('suspend ends every process and keeps the memory; the next request wakes it', async () => {
    const before = countOf(await ask(node, HOST));
    const startedAt = await docker('inspect', '-f', '{{.State.StartedAt}} {{.RestartCount}}', 'hello');
    expect(await done('suspend', 'hello')).toMatch(/^demo\/hello sleeps: .* of memory kept/);
    expect(await docker('ps', '--format', '{{.Names}} {{.Status}}')).toMatch(/^hello Up .*\(Paused\)$/);
    expect((await node.ecluse('ps')).stdout).toContain('(asleep)');
    expect((await readdir(join(node.dataDir, 'snapshots'))).length).toBe(2); // The key and one snapshot.
    expect(countOf(await ask(node, HOST))).toBe(before + 1);
    expect((await node.ecluse('ps')).stdout).not.toContain('(asleep)');
    await expect.poll(async () => await readdir(join(node.dataDir, 'snapshots'))).toEqual(['node.key']);
    // A sleep is no restart, and no news.
    expect(await docker('inspect', '-f', '{{.State.StartedAt}} {{.RestartCount}}', 'hello')).toBe(startedAt);
    const until = String(Math.floor(Date.now() / 1000));
    expect(await docker('events', '--since', '10m', '--until', until, '--filter', 'event=die')).toBe('');
  });

  test('a thousand first requests make one wake and are all answered', { timeout: 120_000 }, async () => {
    const before = countOf(await ask(node, HOST));
    await done('suspend', 'hello');
    const wakesBefore = await wakesOf();
    // Without TLS: a worker lets no more than 512 begin their handshakes at once.
    const askOne = async (): Promise<number> => {
      const { status, body } = await askPlain({ port: node.ports.http, host: HOST, path: '/count' });
      return countOf({ status, body: body.toString() });
    };
    const all = await Promise.all(Array.from({ length: 1000 }, askOne));
    const counts = all.toSorted((one, other) => one - other);
    expect(counts).toEqual(Array.from({ length: 1000 }, (_, index) => before + 1 + index));
    expect(await wakesOf()).toBe(wakesBefore + 1);
  });

  test("Docker's commands find a sleeping container paused, and wake it where they need it", { timeout: 120_000 }, async () => {
    await docker('run', '-d', '--name', 'sleeper', 'hello');
    await expect.poll(async () => await docker('logs', 'sleeper'), { timeout: 30_000 }).not.toBe('');
    const logs = await docker('logs', 'sleeper');
    await done('suspend', 'sleeper');
    expect(await docker('logs', 'sleeper')).toBe(logs);
    expect(await docker('inspect', '-f', '{{.State.Status}}', 'sleeper')).toBe('paused');
    const refused = await node.docker('demo', ['exec', 'sleeper', '/bin/true']);
    expect(refused.stderr).toContain('is paused, unpause the container before exec');
    await docker('unpause', 'sleeper');
    expect(await docker('exec', 'sleeper', '/bin/echo', 'awake')).toBe('awake');
    await done('suspend', 'sleeper');
    await docker('stop', 'sleeper');
    // It was told to end, as by any stop; a program that has no handler yet ends with 143.
    expect(await docker('inspect', '-f', '{{.State.Status}} {{.State.ExitCode}}', 'sleeper')).toMatch(/^exited (0|143)$/);
    await docker('start', 'sleeper');
    await done('suspend', 'sleeper');
    await docker('restart', 'sleeper');
    expect(await docker('inspect', '-f', '{{.State.Status}}', 'sleeper')).toBe('running');
    await done('suspend', 'sleeper');
    await docker('rm', '-f', 'sleeper');
    expect(await readdir(join(node.dataDir, 'snapshots'))).toEqual(['node.key']);
  });

  test(
    'what woke and does not answer on its port goes on: its files are newer than what was kept',
    { timeout: 120_000 },
    async () => {
      // It notices that time has jumped, stops listening, and counts on into a file.
      const program = `const { appendFileSync } = require('node:fs');
const server = require('node:http').createServer((request, response) => response.end('ok')).listen(8080);
let [count, last] = [0, Date.now()];
setInterval(() => {
  if (Date.now() - last > 2000) server.close();
  last = Date.now();
  count += 1;
  appendFileSync('/tmp/counted', count + '\\n');
}, 100);`;
      await docker('run', '-d', '--name', 'deaf', '--label', 'ecluse.http.host=deaf.localhost', 'hello', 'node', '-e', program);
      await expect.poll(async () => (await ask(node, 'deaf.localhost', '/')).status, { timeout: 20_000 }).toBe(200);
      await done('suspend', 'deaf');
      await new Promise((resolve) => setTimeout(resolve, 3000));
      await done('wake', 'deaf');
      expect(await docker('inspect', '-f', '{{.State.Status}}', 'deaf')).toBe('running');
      expect((await ask(node, 'deaf.localhost', '/')).status).toBe(502);
      const counted = (await docker('exec', 'deaf', '/bin/busybox', 'cat', '/tmp/counted')).split('\n').map(Number);
      expect(counted).toEqual(counted.map((_, index) => index + 1));
      await docker('rm', '-f', 'deaf');
    },
  );

  test('refuses what cannot sleep, and touches nothing', { timeout: 60_000 }, async () => {
    await docker('run', '-d', '--rm', '--name', 'brief', 'hello', '/bin/sleep', '1000');
    expect((await node.ecluse('suspend', 'brief')).stderr).toContain('was started with --rm');
    await docker('pause', 'brief');
    expect((await node.ecluse('suspend', 'brief')).stderr).toContain('container brief is paused');
    await docker('rm', '-f', 'brief');
    expect((await node.ecluse('suspend', 'nobody')).stderr).toContain('no container is called nobody');
    const idle = await node.docker('demo', ['create', '--label', 'ecluse.idle=soon', 'hello']);
    expect(idle.stderr).toContain('label ecluse.idle: "soon" is no time of 1s or more');
  });

  test('the label puts it to sleep after that long without a request', { timeout: 120_000 }, async () => {
    await docker(
      'run',
      '-d',
      '--name',
      'tired',
      '--label',
      'ecluse.idle=2s',
      '--label',
      'ecluse.http.host=tired.localhost',
      'hello',
    );
    await expect.poll(async () => (await ask(node, 'tired.localhost')).status, { timeout: 30_000 }).toBe(200);
    const before = countOf(await ask(node, 'tired.localhost'));
    for (let second = 0; second < 4; second += 1) {
      countOf(await ask(node, 'tired.localhost'));
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
    expect((await node.ecluse('ps')).stdout).not.toMatch(/ tired .*\(asleep\)/);
    await expect.poll(async () => (await node.ecluse('ps')).stdout, { timeout: 60_000 }).toMatch(/ tired .*\(asleep\)/);
    expect(countOf(await ask(node, 'tired.localhost'))).toBe(before + 5);
    await docker('rm', '-f', 'tired');
  });

  test('clone makes warm copies behind the same host, each with an id and files of its own', { timeout: 120_000 }, async () => {
    await docker('run', '-d', '--name', 'one', '-u', '0', '--label', 'ecluse.http.host=one.localhost', 'hello');
    await expect.poll(async () => (await ask(node, 'one.localhost')).status, { timeout: 30_000 }).toBe(200);
    await docker('exec', 'one', '/bin/sh', '-c', 'echo kept > /kept');
    const before = countOf(await ask(node, 'one.localhost'));
    expect(await done('clone', 'one', '--count', '3')).toMatch(/^demo\/one was paused for .*one-\d/);
    const ids = (await docker('ps', '-q', '--no-trunc', '--filter', 'name=one')).split('\n');
    expect(new Set(ids).size).toBe(4);
    for (const name of ['one-2', 'one-3', 'one-4']) expect(await docker('exec', name, '/bin/cat', '/kept')).toBe('kept');
    await docker('exec', 'one-2', '/bin/sh', '-c', 'echo changed > /kept');
    expect(await docker('exec', 'one-3', '/bin/cat', '/kept')).toBe('kept');
    // Each of the four counts on from where the original was; together they answer all requests.
    const counts = await Promise.all(Array.from({ length: 40 }, async () => countOf(await ask(node, 'one.localhost'))));
    expect(Math.min(...counts)).toBe(before + 1);
    expect(Math.max(...counts)).toBeLessThan(before + 30);
    await docker('rm', '-f', 'one', 'one-2', 'one-3', 'one-4');
  });

  test('clone refuses what would share more than memory', { timeout: 60_000 }, async () => {
    await docker('run', '-d', '--name', 'data', '-v', 'vol:/data', 'hello', '/bin/sleep', '1000');
    expect((await node.ecluse('clone', 'data')).stderr).toContain('writes to the volume vol');
    expect((await node.ecluse('clone', 'data', '--count', '101')).stderr).toMatch(/count/);
    await docker('rm', '-f', 'data');
    await docker('volume', 'rm', 'vol');
    // All of them, or none: the tenant may have 8 GiB.
    await docker('run', '-d', '--name', 'big', '-m', '1g', 'hello');
    const before = await docker('ps', '-aq');
    const refused = await node.ecluse('clone', 'big', '--count', '20');
    expect(refused.stderr).toMatch(/container big cannot have 20 copies: .*its quota is 8589934592/);
    expect(refused.exitCode).toBe(1);
    expect(await docker('ps', '-aq')).toBe(before);
    expect(await done('clone', 'big', '--count', '1')).toMatch(/^demo\/big was paused for .*big-2/);
    await docker('rm', '-f', 'big', 'big-2');
  });
});

test('a sleep outlives a stop and a kill -9 of the daemon', { timeout: 180_000 }, async () => {
  const dataDir = await freshDataDir();
  const ports = await freePorts();
  let count = 0;
  for (const end of ['SIGTERM', 'SIGKILL', 'SIGTERM'] as const) {
    await using node = await startNode({ demo: true, dataDir, ports });
    // The demo's own `docker start` has woken it.
    const now = countOf(await ask(node, 'hello.localhost'));
    expect(now).toBe(count + 1);
    const slept = await node.ecluse('suspend', 'hello');
    expect(slept.stderr).toBe('');
    count = now;
    await node.stop(end);
  }
  await rm(dataDir, { recursive: true, force: true });
});
