/** `/var/run/docker.sock` in a container: its own tenant's endpoint, spoken to by the docker client in a sandbox. */
import { existsSync } from 'node:fs';
import { readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import * as z from 'zod';
import { findProgram } from '#isolation/program-path.ts';
import { busyboxEntries, programEntries, writeRootFs } from '../../../src/demo-root-fs.ts';
import { callApi, credentialsOf } from '../../support/docker-api.ts';
import { containing } from '../../support/matchers.ts';
import { addTenant, freshDataDir, startNode } from '../../support/node.ts';
import type { CommandAnswer, TestNode } from '../../support/node.ts';

const SOCKET = '/var/run/docker.sock';

let node: TestNode;
let dataDir: string;

async function docker(tenant: string, ...args: readonly string[]): Promise<string> {
  const answer = await node.docker(tenant, args);
  expect(answer, `docker ${args.join(' ')}: ${answer.stderr}`).toMatchObject({ exitCode: 0 });
  return answer.stdout.trim();
}

/** `docker ARGS` in the container `inside` of a tenant. */
async function inside(tenant: string, ...args: readonly string[]): Promise<CommandAnswer> {
  return await node.docker(tenant, ['exec', 'inside', 'docker', ...args]);
}

async function mountsBelow(folder: string): Promise<readonly string[]> {
  const mounts = await readFile('/proc/self/mounts', 'utf8');
  return mounts
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter((path) => path.startsWith(folder));
}

/** busybox and the docker client of this machine. */
async function clientImage(): Promise<Buffer> {
  const program = findProgram('docker');
  if (program === undefined) throw new Error('there is no docker client on this machine');
  const tar = new PassThrough();
  const [bytes] = await Promise.all([
    buffer(tar),
    writeRootFs(tar, [...(await busyboxEntries()), ...(await programEntries('/bin/docker', program))]),
  ]);
  return bytes;
}

beforeAll(async () => {
  dataDir = await freshDataDir();
  node = await startNode({ hosts: ['a', 'b'], dataDir });
  const image = await clientImage();
  for (const tenant of ['acme', 'globex']) {
    await addTenant(node, tenant);
    await node.docker(tenant, ['import', '--change', 'ENV PATH=/bin HOME=/root', '-', 'cli'], image);
    await docker(tenant, 'run', '-d', '--name', `of-${tenant}`, 'cli', 'sleep', '10000');
    await docker(
      tenant,
      'run',
      '-d',
      '--name',
      'inside',
      '--restart',
      'always',
      '-v',
      `${SOCKET}:${SOCKET}`,
      'cli',
      'sleep',
      '10000',
    );
  }
}, 180_000);

afterAll(async () => {
  await node[Symbol.asyncDispose]();
  const left = await mountsBelow(dataDir);
  await rm(dataDir, { recursive: true, force: true });
  expect(left).toEqual([]);
});

describe('in a container', () => {
  test('the client sees its own tenant’s containers and no others', async () => {
    for (const tenant of ['acme', 'globex']) {
      const answer = await inside(tenant, 'ps', '--format', '{{.Names}}');
      expect(answer.stdout.trim().split('\n').toSorted()).toEqual(['inside', `of-${tenant}`]);
    }
    expect(await inside('acme', 'inspect', 'of-globex')).toMatchObject({
      exitCode: 1,
      stderr: containing('No such object: of-globex'),
    });
  });

  test('the client makes, uses and removes containers, with streams in both directions', async () => {
    const made = await inside('acme', 'run', '-d', '--name', 'made', 'cli', 'sh', '-c', 'echo said; sleep 1000');
    expect(made).toMatchObject({ exitCode: 0 });
    expect(await docker('acme', 'ps', '--format', '{{.Names}}')).toContain('made');
    expect(await inside('acme', 'logs', 'made')).toMatchObject({ stdout: 'said\n' });
    expect(await inside('acme', 'exec', 'made', 'echo', 'executed')).toMatchObject({ stdout: 'executed\n' });
    expect(await inside('acme', 'rm', '-f', 'made')).toMatchObject({ exitCode: 0 });
    const piped = ['exec', 'inside', 'sh', '-c', 'printf "one\\ntwo\\n" | docker run -i --rm cli sort -r'];
    expect(await docker('acme', ...piped)).toBe('two\none');
  });

  test('what it mounts itself is refused like anybody’s', async () => {
    const answer = await inside('acme', 'run', '--rm', '-v', '/:/host', 'cli', 'ls', '/host');
    expect(answer).toMatchObject({ exitCode: 125, stderr: containing('ecluse: host paths cannot be mounted') });
  });

  test('a container that such a one makes can have the socket too', async () => {
    const answer = await inside('acme', 'run', '--rm', '-v', `${SOCKET}:${SOCKET}`, 'cli', 'docker', 'ps', '-q');
    expect(answer).toMatchObject({ exitCode: 0 });
    expect(answer.stdout.trim().split('\n').length).toBeGreaterThanOrEqual(2);
  });
});

describe('the mount', () => {
  test.each([
    ['-v', `${SOCKET}:${SOCKET}:ro`, SOCKET],
    ['-v', `//var/run/docker.sock:/tmp/d.sock`, '/tmp/d.sock'],
    ['-v', `/run/docker.sock:/run/docker.sock`, '/run/docker.sock'],
    ['--mount', `type=bind,src=${SOCKET},dst=/deep/er/docker.sock`, '/deep/er/docker.sock'],
  ])('%s %s', async (flag, value, socket) => {
    const command = ['docker', '-H', `unix://${socket}`, 'version', '--format', '{{.Server.Os}}'];
    expect(await docker('acme', 'run', '--rm', flag, value, 'cli', ...command)).toBe('linux');
  });

  test('works where the root is read-only, and below a tmpfs', async () => {
    const command = ['cli', 'docker', 'version', '--format', '{{.Server.Os}}'];
    const args = ['run', '--rm', '--read-only', '--tmpfs', '/var/run', '--tmpfs', '/root', '-v', `${SOCKET}:${SOCKET}`];
    expect(await docker('acme', ...args, ...command)).toBe('linux');
  });

  test('is shown as it was asked for, and says nothing of the host', async () => {
    const { text } = await callApi(node, await credentialsOf(node, 'acme'), { path: '/v1.41/containers/inside/json' });
    const view = z
      .object({ Mounts: z.array(z.unknown()), HostConfig: z.object({ Binds: z.array(z.string()) }) })
      .parse(JSON.parse(text));
    expect(view.Mounts).toEqual([
      { Type: 'bind', Source: SOCKET, Destination: SOCKET, Mode: '', RW: true, Propagation: 'rprivate' },
    ]);
    expect(view.HostConfig.Binds).toEqual([`${SOCKET}:${SOCKET}`]);
    expect(text).not.toContain(dataDir);
  });

  test('nobody else on the machine may use it', async () => {
    const mode = async (path: string): Promise<string> => ((await stat(path)).mode & 0o777).toString(8);
    expect(await mode(join(dataDir, 'sockets', 'acme'))).toBe('700');
    expect(await mode(join(dataDir, 'sockets', 'acme', 's0'))).toBe('660');
    expect(existsSync(join(dataDir, 'sockets', 'never'))).toBe(false);
  });

  test('keeps a container where it is', async () => {
    const where = z.array(z.object({ tenant: z.string(), name: z.string(), host: z.string() }));
    const rows = where.parse(JSON.parse((await node.ecluse('ps', '--json')).stdout));
    const host = rows.find((row) => row.tenant === 'acme' && row.name === 'inside')?.host;
    const answer = await node.ecluse('migrate', 'acme/inside', '--to', host === 'a' ? 'b' : 'a');
    expect(answer.exitCode).not.toBe(0);
    expect(answer.stderr).toContain('Docker socket mounted, and a connection through it cannot be saved');
  });
});

describe('the tenant', () => {
  test('suspended is refused through its socket, and served again when it is active', async () => {
    const script = 'trap exit TERM; while sleep 0.2; do docker ps -q 2>&1 | head -1; done';
    await docker('globex', 'run', '-d', '--name', 'asking', '-v', `${SOCKET}:${SOCKET}`, 'cli', 'sh', '-c', script);
    expect(await node.ecluse('tenant', 'set', 'globex', '--state', 'suspended')).toMatchObject({ exitCode: 0 });
    await delay(2000);
    expect(await node.ecluse('tenant', 'set', 'globex', '--state', 'active')).toMatchObject({ exitCode: 0 });
    await delay(1500);
    const lines = (await docker('globex', 'logs', 'asking')).split('\n');
    expect(lines).toContain(
      'Error response from daemon: ecluse: the tenant of this container is not active; its operator knows why',
    );
    expect(lines.at(-1)).toMatch(/^[0-9a-f]{12}$/);
    await docker('globex', 'rm', '-f', 'asking');
  });

  test('removed leaves no socket and no mount', async () => {
    await addTenant(node, 'brief');
    await node.docker('brief', ['import', '-', 'cli'], await clientImage());
    await docker('brief', 'create', '--name', 'unused', '-v', `${SOCKET}:${SOCKET}`, 'cli', 'true');
    const folder = join(dataDir, 'sockets', 'brief');
    expect(await mountsBelow(folder)).toHaveLength(1);
    await docker('brief', 'rm', 'unused');
    expect(await node.ecluse('tenant', 'rm', 'brief')).toMatchObject({ exitCode: 0 });
    expect(existsSync(folder)).toBe(false);
    expect(await mountsBelow(folder)).toEqual([]);
  });
});

describe('the node', () => {
  test('that is killed finds the container’s socket working again when it is back, as often as that happens', async () => {
    const id = await docker('acme', 'inspect', '--format', '{{.Id}} {{.State.StartedAt}}', 'inside');
    for (let crash = 0; crash < 2; crash += 1) {
      await node.stop('SIGKILL');
      node = await startNode({ hosts: ['a', 'b'], dataDir, ports: node.ports });
      expect(await docker('acme', 'inspect', '--format', '{{.Id}} {{.State.StartedAt}}', 'inside')).toBe(id);
      expect((await inside('acme', 'ps', '--format', '{{.Names}}')).stdout).toContain('inside');
      const args = ['run', '--rm', '-v', `${SOCKET}:${SOCKET}`, 'cli', 'docker', 'ps', '--format', '{{.Names}}'];
      expect(await docker('acme', ...args)).toContain('of-acme');
    }
  }, 120_000);

  test('that is stopped in order has nothing mounted, and starts the container with its socket again', async () => {
    await node.stop('SIGTERM');
    expect(await mountsBelow(dataDir)).toEqual([]);
    node = await startNode({ hosts: ['a', 'b'], dataDir, ports: node.ports });
    expect((await inside('globex', 'ps', '--format', '{{.Names}}')).stdout.trim()).toContain('inside');
  }, 120_000);
});
