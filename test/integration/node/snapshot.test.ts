import { request } from 'node:https';
import { readFileSync } from 'node:fs';
import { readdir, readFile, rm, stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import * as z from 'zod';
import { runCommand } from '#command';
import { systemClock, waitFor } from '#clock';
import { detectCgroups } from '#isolation/cgroup.ts';
import { scopeOf } from '#caas/host.ts';
import { expectNothingLeft } from '../../support/leftovers.ts';
import { freshDataDir, run, startNode } from '../../support/node.ts';
import type { TestNode } from '../../support/node.ts';

const placesSchema = z.array(z.object({ name: z.string(), host: z.string() }));
const snapshotsSchema = z.array(z.object({ id: z.string(), name: z.string(), kind: z.string() }));

/** A request that may meet nobody: status 0. */
async function ask(node: TestNode, host: string, path = '/count'): Promise<{ readonly status: number; readonly body: string }> {
  return await new Promise((resolve) => {
    const options = { host: '127.0.0.1', port: node.ports.https, path, servername: host, headers: { host }, agent: false };
    const outgoing = request({ ...options, ca: readFileSync(node.caFile) }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (text: string) => {
        body += text;
      });
      response.once('end', () => {
        resolve({ status: response.statusCode ?? 0, body });
      });
    });
    outgoing.once('error', (error) => {
      resolve({ status: 0, body: error.message });
    });
    outgoing.end();
  });
}

async function countAt(node: TestNode, host: string): Promise<number> {
  const answer = await waitFor(
    systemClock,
    async () => {
      const found = await ask(node, host);
      return found.status === 200 ? found.body : undefined;
    },
    { limitMs: 10_000, stepMs: 100 },
  );
  return Number(/"count":(\d+)/.exec(answer ?? '')?.[1]);
}

async function done(node: TestNode, ...args: readonly string[]): Promise<string> {
  const answer = await node.ecluse(...args);
  expect(answer.stderr).toBe('');
  expect(answer.exitCode).toBe(0);
  return answer.stdout;
}

async function docker(node: TestNode, ...args: readonly string[]): Promise<string> {
  const answer = await node.docker('demo', args);
  expect(answer.stderr).toBe('');
  return answer.stdout.trim();
}

async function hostOf(node: TestNode, name: string): Promise<string> {
  const rows = placesSchema.parse(JSON.parse(await done(node, 'ps', '--all', '--json')));
  return String(rows.find((row) => row.name === name)?.host);
}

function otherThan(host: string): string {
  return host === 'a' ? 'b' : 'a';
}

async function snapshotsOf(node: TestNode, name: string): Promise<readonly { readonly id: string; readonly kind: string }[]> {
  const all = snapshotsSchema.parse(JSON.parse(await done(node, 'snapshot', 'ls', '--json')));
  return all.filter((one) => one.name === name);
}

/** A container that counts, with a volume; a file in each says `word`. */
async function startWriter(node: TestNode, name: string, word: string): Promise<void> {
  const label = `ecluse.http.host=${name}.localhost`;
  await docker(node, 'run', '-d', '--name', name, '-u', '0', '-v', `${name}-data:/data`, '--label', label, 'hello');
  await countAt(node, `${name}.localhost`);
  await write(node, name, word);
}

async function write(node: TestNode, name: string, word: string): Promise<void> {
  await docker(node, 'exec', name, '/bin/sh', '-c', `echo ${word} > /own; echo ${word} > /data/file`);
}

async function words(node: TestNode, name: string): Promise<string> {
  return (await docker(node, 'exec', name, '/bin/cat', '/own', '/data/file')).replaceAll('\n', ' ');
}

/** Kills everything of a container as a dying host would, below its engine. */
async function killAllOf(node: TestNode, host: string, id: string): Promise<void> {
  const cgroups = await detectCgroups();
  const cgroup = `/ecluse/${scopeOf(node.dataDir)}-${host}/demo/${id}`;
  const kill = async (): Promise<readonly number[]> => {
    const pids = await cgroups.processesIn(cgroup);
    for (const pid of pids) await runCommand('kill', ['-9', String(pid)]).catch(() => undefined); // One ends with the other.
    return pids;
  };
  await expect.poll(kill, { timeout: 10_000 }).toEqual([]);
}

/** While a host's engine stands still. It goes on afterwards, whatever comes of the work. */
async function whileSilent(node: TestNode, host: string, work: () => Promise<void>): Promise<void> {
  const pid = Number(await readFile(join(node.dataDir, 'hosts', host, 'dockerd.pid'), 'utf8'));
  process.kill(pid, 'SIGSTOP');
  try {
    await work();
  } finally {
    process.kill(pid, 'SIGCONT');
  }
}

/** Engine containers and volumes of a host whose names are the node's. */
async function engineCount(node: TestNode, host: string, kind: 'containers' | 'volumes'): Promise<number> {
  const list = kind === 'containers' ? ['ps', '--all', '--quiet'] : ['volume', 'ls', '--quiet'];
  const env = {
    PATH: process.env['PATH'],
    HOME: node.dataDir,
    DOCKER_HOST: `unix://${join(node.dataDir, 'hosts', host, 'docker.sock')}`,
  };
  const { stdout } = await run('docker', list, { env });
  return stdout.split('\n').filter((line) => line !== '').length;
}

describe('snapshots', () => {
  let node: TestNode;

  beforeAll(async () => {
    node = await startNode({ demo: true });
    const labels = ['--label', 'ecluse.snapshot=1m', '--label', 'ecluse.http.host=timed.localhost'];
    await docker(node, 'run', '-d', '--name', 'timed', ...labels, 'hello');
  });

  afterAll(async () => {
    await node[Symbol.asyncDispose]();
    await expectNothingLeft(node.dataDir);
  });

  test('are taken of what runs, listed, limited and removed', { timeout: 180_000 }, async () => {
    await startWriter(node, 'kept', 'first');
    const before = await countAt(node, 'kept.localhost');
    for (let round = 0; round < 4; round += 1) expect(await done(node, 'snapshot', 'kept')).toMatch(/of demo\/kept is kept/);
    expect(await countAt(node, 'kept.localhost')).toBe(before + 1); // It went on.
    const listed = await snapshotsOf(node, 'kept');
    expect(listed).toHaveLength(3);
    expect(await done(node, 'snapshot', 'ls')).toMatch(/demo +kept +[ab] +manual/);
    const first = listed[0]?.id ?? '';
    await done(node, 'snapshot', 'rm', first.slice(0, 8));
    expect((await snapshotsOf(node, 'kept')).map(({ id }) => id)).not.toContain(first);
    expect((await node.ecluse('snapshot', 'rm', first)).stderr).toContain('no snapshot is called');
    // They go with their container, and nothing is left of their making.
    await docker(node, 'rm', '-f', 'kept');
    expect(await snapshotsOf(node, 'kept')).toEqual([]);
    expect(await readdir(join(node.dataDir, 'staging'))).toEqual([]);
    await docker(node, 'volume', 'rm', 'kept-data');
  });

  test('a container that ended comes back as it was, where it was', { timeout: 120_000 }, async () => {
    await startWriter(node, 'back', 'then');
    const startedAt = await docker(node, 'inspect', '-f', '{{.Id}} {{.State.StartedAt}}', 'back');
    const count = await countAt(node, 'back.localhost');
    await done(node, 'snapshot', 'back');
    await write(node, 'back', 'later');
    await countAt(node, 'back.localhost');
    expect((await node.ecluse('restore', 'back')).stderr).toContain('container back is running; remove it or clone it');
    await docker(node, 'stop', '-t', '1', 'back');
    const host = await hostOf(node, 'back');
    const [containers, volumes] = [await engineCount(node, host, 'containers'), await engineCount(node, host, 'volumes')];
    expect(await done(node, 'restore', 'back', '--to', host)).toMatch(/^demo\/back is back on [ab], in /);
    expect(await countAt(node, 'back.localhost')).toBe(count + 1);
    expect(await words(node, 'back')).toBe('then then');
    expect(await docker(node, 'inspect', '-f', '{{.Id}} {{.State.StartedAt}}', 'back')).toBe(startedAt);
    // Nothing is left of the old one beside it.
    expect(await engineCount(node, host, 'containers')).toBe(containers);
    expect(await engineCount(node, host, 'volumes')).toBe(volumes);
    await docker(node, 'rm', '-f', 'back');
    await docker(node, 'volume', 'rm', 'back-data');
  });

  test(
    'a container whose engine does not answer comes back on the other host, and is one when it answers again',
    { timeout: 180_000 },
    async () => {
      await startWriter(node, 'lost', 'then');
      await docker(node, 'update', '--restart', 'always', 'lost');
      const count = await countAt(node, 'lost.localhost');
      await done(node, 'snapshot', 'lost');
      await write(node, 'lost', 'later');
      const host = await hostOf(node, 'lost');
      const id = await docker(node, 'inspect', '-f', '{{.Id}}', 'lost');
      await whileSilent(node, host, async () => {
        await killAllOf(node, host, id);
        expect((await node.ecluse('restore', 'lost', '--to', host)).stderr).toContain(`host ${host} does not answer`);
        expect(await done(node, 'restore', 'lost', '--to', otherThan(host))).toContain(`(it was on ${host})`);
        expect(await countAt(node, 'lost.localhost')).toBe(count + 1);
        expect(await words(node, 'lost')).toBe('then then');
        expect(await hostOf(node, 'lost')).toBe(otherThan(host));
      });
      const hostContainers = (await done(node, 'ps', '--all', '--json')).split(`"host": "${host}"`).length - 1;
      await expect.poll(async () => await engineCount(node, host, 'containers'), { timeout: 30_000 }).toBe(hostContainers);
      expect(await countAt(node, 'lost.localhost')).toBe(count + 2);
      await docker(node, 'rm', '-f', 'lost');
      await docker(node, 'volume', 'rm', 'lost-data');
    },
  );

  test('a container whose processes live is not made twice', { timeout: 60_000 }, async () => {
    await docker(node, 'run', '-d', '--name', 'alive', 'hello');
    await done(node, 'snapshot', 'alive');
    const host = await hostOf(node, 'alive');
    await whileSilent(node, host, async () => {
      const refused = await node.ecluse('restore', 'alive', '--to', otherThan(host));
      expect(refused.stderr).toMatch(/container alive still runs, though its host [ab] does not answer \(process \d+/);
    });
    await docker(node, 'rm', '-f', 'alive');
  });

  test('a sealed file that was cut off is told, and nothing changes', { timeout: 120_000 }, async () => {
    await startWriter(node, 'harmed', 'then');
    await done(node, 'snapshot', 'harmed');
    await docker(node, 'stop', '-t', '1', 'harmed');
    const [snapshot] = await snapshotsOf(node, 'harmed');
    const file = join(node.dataDir, 'snapshots', snapshot?.id ?? '', 'files.tar');
    await truncate(file, (await stat(file)).size - 1);
    const before = await done(node, 'ps', '--all', '--json', '--tenant', 'demo');
    const failed = await node.ecluse('restore', snapshot?.id ?? '');
    expect(failed.stderr).toContain(`the snapshot ${snapshot?.id ?? ''} cannot be read`);
    expect(failed.exitCode).toBe(1);
    const withoutAge = (text: string): string => text.replaceAll(/"status": "[^"]*"/g, '');
    expect(withoutAge(await done(node, 'ps', '--all', '--json', '--tenant', 'demo'))).toBe(withoutAge(before));
    await docker(node, 'start', 'harmed');
    expect(await words(node, 'harmed')).toBe('then then');
    await docker(node, 'rm', '-f', 'harmed');
    await docker(node, 'volume', 'rm', 'harmed-data');
  });

  test('refuses what cannot be, and touches nothing', { timeout: 60_000 }, async () => {
    await docker(node, 'create', '--name', 'idle', 'hello');
    expect((await node.ecluse('snapshot', 'idle')).stderr).toContain(
      'container idle is created; only running containers can be saved',
    );
    expect((await node.ecluse('restore', 'idle')).stderr).toContain('container idle has no such snapshot');
    expect((await node.ecluse('restore', 'nobody')).stderr).toContain('no container is called nobody');
    const wrong = await node.docker('demo', ['create', '--label', 'ecluse.snapshot=often', 'hello']);
    expect(wrong.stderr).toContain('label ecluse.snapshot: "often" is no interval of 1m or more, such as 10m');
    await done(node, 'snapshot', 'hello');
    await done(node, 'suspend', 'hello');
    expect((await node.ecluse('snapshot', 'hello')).stderr).toContain('container hello sleeps');
    expect((await node.ecluse('restore', 'hello')).stderr).toContain('container hello sleeps, and nothing of it is lost');
    await done(node, 'wake', 'hello');
    await docker(node, 'rm', 'idle');
  });

  test('the label takes them by itself', { timeout: 150_000 }, async () => {
    await expect
      .poll(async () => new Set((await snapshotsOf(node, 'timed')).map(({ kind }) => kind)), { timeout: 120_000, interval: 1000 })
      .toEqual(new Set(['automatic']));
    await docker(node, 'rm', '-f', 'timed');
  });
});

test('a container of a host that the node does not have any more comes back on another', { timeout: 240_000 }, async () => {
  const dataDir = await freshDataDir();
  let lostOn = '';
  let count = 0;
  let ports;
  {
    await using node = await startNode({ demo: true, dataDir });
    ports = node.ports;
    await startWriter(node, 'web', 'then');
    count = await countAt(node, 'web.localhost');
    await done(node, 'snapshot', 'web');
    await write(node, 'web', 'later');
    lostOn = await hostOf(node, 'web');
  }
  {
    await using node = await startNode({ hosts: [otherThan(lostOn)], dataDir, ports });
    expect(await done(node, 'restore', 'web')).toContain(`demo/web is back on ${otherThan(lostOn)} (it was on ${lostOn})`);
    expect(await countAt(node, 'web.localhost')).toBe(count + 1);
    expect(await words(node, 'web')).toBe('then then');
  }
  {
    // The host is back: what it had of the container is not the container.
    await using node = await startNode({ hosts: ['a', 'b'], dataDir, ports });
    expect(await hostOf(node, 'web')).toBe(otherThan(lostOn));
    const onLost = (await done(node, 'ps', '--all', '--json')).split(`"host": "${lostOn}"`).length - 1;
    expect(await engineCount(node, lostOn, 'containers')).toBe(onLost);
    expect(await engineCount(node, lostOn, 'volumes')).toBe(0);
  }
  await expectNothingLeft(dataDir);
  await rm(dataDir, { recursive: true, force: true });
});
