/** testcontainers for Node, unmodified, with Ryuk where its image can be had. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { extract } from 'tar-stream';
import { GenericContainer, Network, Wait } from 'testcontainers';
import type { StartedTestContainer } from 'testcontainers';
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import * as z from 'zod';
import { busyboxTar } from '../../../support/docker-api.ts';
import { addTenant, startNode } from '../../../support/node.ts';
import type { TestNode } from '../../../support/node.ts';
import { RYUK_REFERENCE, ryukImage } from '../../../support/ryuk-image.ts';

const CLIENT = join(import.meta.dirname, 'programs', 'testcontainers-client.ts');
/** Serves /www, where every test finds what it put there. */
const SERVE = ['httpd', '-f', '-p', '8080', '-h', '/www'];

let node: TestNode;

async function docker(...args: readonly string[]): Promise<string> {
  const answer = await node.docker('acme', args);
  expect(answer, args.join(' ')).toMatchObject({ exitCode: 0 });
  return answer.stdout.trim();
}

/** Starts a container that the test's end stops. */
async function started(container: GenericContainer): Promise<StartedTestContainer> {
  const running = await container.start();
  onTestFinished(async () => {
    await running.stop();
  });
  return running;
}

async function asked(container: StartedTestContainer, path: string): Promise<string> {
  const response = await fetch(`http://${container.getHost()}:${String(container.getMappedPort(8080))}${path}`);
  return await response.text();
}

beforeAll(async () => {
  node = await startNode({ hosts: ['a', 'b'] });
  await addTenant(node, 'acme');
  expect(await node.docker('acme', ['import', '-', 'bb'], await busyboxTar(node.dataDir))).toMatchObject({ exitCode: 0 });
  // It reads these once, when the first container starts.
  Object.assign(process.env, node.dockerEnv('acme'), { TESTCONTAINERS_RYUK_DISABLED: 'true', TMPDIR: node.dataDir });
});

afterAll(async () => {
  await node[Symbol.asyncDispose]();
});

describe('a container is ready', () => {
  test('when its port listens inside and outside', async () => {
    const container = await started(
      new GenericContainer('bb')
        .withCommand(['sh', '-c', `sleep 1; exec ${SERVE.join(' ')}`])
        .withCopyContentToContainer([{ content: 'served\n', target: '/www/index.html' }])
        .withExposedPorts(8080)
        .withWaitStrategy(Wait.forListeningPorts()),
    );
    expect(container.getHost()).toBe('127.0.0.1');
    expect(await asked(container, '/')).toBe('served\n');
    await container.restart({ timeout: 1 });
    expect(await asked(container, '/')).toBe('served\n');
  });

  test('when it logs a line, when it answers HTTP, and when a command in it succeeds', async () => {
    const lines: string[] = [];
    const container = await started(
      new GenericContainer('bb')
        .withCommand(['sh', '-c', `echo Starting; sleep 1; echo Ready on 8080; exec ${SERVE.join(' ')}`])
        .withCopyContentToContainer([{ content: 'ok', target: '/www/health' }])
        .withExposedPorts({ container: 8080, host: 0 })
        .withLogConsumer((stream) => stream.on('data', (line: string) => lines.push(line)))
        .withWaitStrategy(
          Wait.forAll([
            Wait.forLogMessage(/Ready on \d+/),
            Wait.forHttp('/health', 8080).forStatusCode(200),
            Wait.forSuccessfulCommand('test -f /www/health'),
          ]),
        ),
    );
    expect(await asked(container, '/health')).toBe('ok');
    expect(lines.join('')).toContain('Ready on 8080');
    expect(await text(Readable.from(await container.logs({ tail: 1 })).take(1))).toContain('Ready');
  });

  test('when its health check says so', async () => {
    const container = await started(
      new GenericContainer('bb')
        .withCommand(['sh', '-c', 'sleep 1; touch /tmp/healthy; sleep 1000'])
        .withHealthCheck({ test: ['CMD-SHELL', 'test -f /tmp/healthy'], interval: 500, timeout: 5000, retries: 20 })
        .withWaitStrategy(Wait.forHealthCheck()),
    );
    expect(await docker('inspect', '--format', '{{.State.Health.Status}}', container.getId())).toBe('healthy');
  });

  test('when it has done its one thing; and an exit code is a failure', async () => {
    const doing = (command: string): GenericContainer =>
      new GenericContainer('bb').withCommand(['sh', '-c', command]).withWaitStrategy(Wait.forOneShotStartup());
    const container = await started(doing('echo done'));
    expect(await text(await container.logs())).toBe('done\n');
    await expect(doing('exit 3').start()).rejects.toThrow('failed to start');
  });

  test('or it is stopped when it is not in time', async () => {
    const late = new GenericContainer('bb')
      .withCommand(['sleep', '1000'])
      .withName('late')
      .withStartupTimeout(1500)
      .withWaitStrategy(Wait.forLogMessage('never'));
    await expect(late.start()).rejects.toThrow('not received after 1500ms');
    await vi.waitFor(
      async () => {
        expect(await docker('ps', '-q', '--filter', 'name=late')).toBe('');
      },
      { timeout: 20_000, interval: 500 },
    );
  });
});

describe('containers', () => {
  test('of a network know each other by alias', async () => {
    const network = await new Network().start();
    onTestFinished(async () => {
      await network.stop();
    });
    await started(
      new GenericContainer('bb')
        .withNetwork(network)
        .withNetworkAliases('server', 'other')
        .withCopyContentToContainer([{ content: 'from the peer', target: '/www/file' }])
        .withCommand(SERVE),
    );
    const client = await started(new GenericContainer('bb').withNetwork(network).withCommand(['sleep', '1000']));
    expect(client.getNetworkNames()).toEqual([network.getName()]);
    expect(client.getIpAddress(network.getName())).toMatch(/^\d+\.\d+\.\d+\.\d+$/);
    for (const name of ['server', 'other']) {
      const answer = await client.exec(['wget', '-q', '-O', '-', `http://${name}:8080/file`]);
      expect(answer).toMatchObject({ exitCode: 0, stdout: 'from the peer' });
    }
  });

  test('get files and directories, give archives, and execute', async () => {
    const folder = join(node.dataDir, 'copied');
    await mkdir(folder);
    await writeFile(join(folder, 'in'), 'a file\n');
    const container = await started(
      new GenericContainer('bb')
        .withCommand(['sleep', '1000'])
        .withEnvironment({ WORD: 'said' })
        .withLabels({ of: 'sdk' })
        .withTmpFs({ '/scratch': 'rw,size=1m' })
        .withWorkingDir('/tmp')
        .withUser('0')
        .withResourcesQuota({ memory: 0.0625, cpu: 0.5 })
        .withCopyFilesToContainer([{ source: join(folder, 'in'), target: '/copied/file', mode: 0o640 }])
        .withCopyDirectoriesToContainer([{ source: folder, target: '/copied/dir' }]),
    );
    await container.copyContentToContainer([{ content: 'later\n', target: '/copied/later' }]);
    const said = await container.exec('cat /copied/file /copied/dir/in /copied/later');
    expect(said).toMatchObject({ exitCode: 0, output: 'a file\na file\nlater\n' });
    const shell = await container.exec(['sh', '-c', 'echo $WORD $MORE; pwd; echo error >&2; exit 7'], {
      env: { MORE: 'more' },
      workingDir: '/copied',
      user: '0',
    });
    expect(shell).toMatchObject({ exitCode: 7, stdout: 'said more\n/copied\n', stderr: 'error\n' });

    const files = new Map<string, string>();
    const entries = extract();
    Readable.from(await container.copyArchiveFromContainer('/copied')).pipe(entries);
    for await (const entry of entries) files.set(entry.header.name, await text(entry));
    expect(files.get('copied/dir/in')).toBe('a file\n');
    expect(await docker('inspect', '--format', '{{.HostConfig.Memory}}', container.getId())).toBe(String(64 * 1024 ** 2));
  });

  test('are built from a Dockerfile, and committed', async () => {
    const folder = join(node.dataDir, 'built');
    await mkdir(folder);
    await writeFile(join(folder, 'Dockerfile'), 'FROM bb\nARG WORD\nRUN echo $WORD > /said\nCMD ["sleep", "1000"]\n');
    const image = await GenericContainer.fromDockerfile(folder).withBuildArgs({ WORD: 'argued' }).build('built:tc');
    const container = await started(image);
    expect(await container.exec(['cat', '/said'])).toMatchObject({ output: 'argued\n' });
    expect(await container.commit({ repo: 'committed', tag: 'tc' })).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect(await docker('images', '--format', '{{.Repository}}:{{.Tag}}', 'committed')).toBe('committed:tc');
  });
});

interface Client {
  readonly child: ChildProcess;
  readonly said: string;
  readonly complaint: string;
}

/** A client of its own, which starts a network and containers, says so, and waits to be killed. */
async function startClient(env: NodeJS.ProcessEnv): Promise<Client> {
  const child = spawn(process.execPath, [CLIENT], {
    env: { ...node.dockerEnv('acme'), TMPDIR: node.dataDir, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [said, complaint] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    said += chunk;
  });
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    complaint += chunk;
  });
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  await vi.waitUntil(() => said.endsWith('\n') || child.exitCode !== null, { timeout: 60_000, interval: 100 });
  return { child, said, complaint };
}

async function kill({ child }: Client): Promise<void> {
  child.kill('SIGKILL');
  await once(child, 'exit');
}

const sessionSchema = z.object({
  session: z.string().min(1),
  network: z.string(),
  image: z.string(),
  containers: z.array(z.string()).length(2),
  ryuk: z.string(),
});

/** What a client without Ryuk's image gets: an error that names what it could not have, and nothing half made. */
async function expectRefusal({ child, said, complaint }: Client): Promise<void> {
  expect({ exitCode: child.exitCode, said }).toEqual({ exitCode: 1, said: '' });
  expect(complaint).toMatch(/Get "https:.*registry/);
  expect(await docker('ps', '-aq', '--filter', 'label=org.testcontainers=true')).toBe('');
}

async function expectReaping(client: Client): Promise<void> {
  const { session, ryuk, containers, image } = sessionSchema.parse(JSON.parse(client.said));
  const label = `label=org.testcontainers.session-id=${session}`;
  const ids = (await docker('ps', '-q', '--no-trunc')).split('\n');
  expect(ids.toSorted()).toEqual([...containers, ryuk].toSorted());
  expect(await docker('inspect', '--format', '{{json .HostConfig.Binds}}', ryuk)).toContain('/var/run/docker.sock');
  expect((await docker('volume', 'ls', '-q')).split('\n')).toHaveLength(1);
  await docker('run', '-d', '--name', 'other', '--label', 'org.testcontainers.session-id=other', 'bb', 'sleep', '1000');

  await kill(client);
  await vi.waitFor(
    async () => {
      expect(await docker('ps', '-a', '--format', '{{.Names}}')).toBe('other'); // Ryuk itself is gone then, too.
    },
    { timeout: 60_000, interval: 500 },
  );
  expect(await docker('network', 'ls', '-q', '--filter', label)).toBe('');
  expect(await docker('volume', 'ls', '-q')).toBe('');
  expect(await docker('images', '-q', image)).toBe('');
  expect(await docker('images', '-q', 'bb')).toMatch(/^[0-9a-f]{12}$/);
  await docker('rm', '-f', 'other');
}

describe('Ryuk', () => {
  test('removes all of a session whose client was killed, where its image can be had', async ({ annotate }) => {
    const ryuk = await ryukImage(node, 'acme');
    const client = await startClient({ TESTCONTAINERS_RYUK_RECONNECTION_TIMEOUT: '1s' });
    await annotate(ryuk.kind === 'there' ? `with ${RYUK_REFERENCE}` : `left out: ${ryuk.reason}`, 'notice');
    await (ryuk.kind === 'there' ? expectReaping(client) : expectRefusal(client));
    expect(['there', 'left out']).toContain(ryuk.kind);
  });

  test('can be done without: a killed client leaves what it made to the tenant', async () => {
    const client = await startClient({ TESTCONTAINERS_RYUK_DISABLED: 'true' });
    const { session, network, containers, image, ryuk } = sessionSchema.parse(JSON.parse(client.said));
    await kill(client);
    expect(ryuk).toBe('');
    const left = await docker('ps', '-q', '--no-trunc', '--filter', `label=org.testcontainers.session-id=${session}`);
    expect(left.split('\n').toSorted()).toEqual(containers.toSorted());
    await docker('rm', '-fv', ...containers);
    await docker('network', 'rm', network);
    await docker('rmi', image);
  });
});
