/** Real Docker clients against a real node: what a tenant does all day. */
import Dockerode from 'dockerode';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { PassThrough } from 'node:stream';
import { text as textOf } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { busyboxTar, credentialsOf } from '../../support/docker-api.ts';
import { imageArchive } from '../../support/image-archive.ts';
import { addTenant, run, startNode } from '../../support/node.ts';
import type { CommandAnswer, TestNode } from '../../support/node.ts';
import { containing, including, matching } from '../../support/matchers.ts';

/** Debian's client and, where there is one, a newer one. */
const CLIENTS = ['/usr/bin/docker', '/usr/local/bin/docker'].filter((path) => existsSync(path));

let node: TestNode;
let rootFs: Buffer;

beforeAll(async () => {
  node = await startNode({ hosts: ['a'] });
  await addTenant(node, 'acme', '--domain', 'shop.test');
  rootFs = await busyboxTar(node.dataDir);
  const imported = await node.docker('acme', ['import', '-', 'bb'], rootFs);
  expect(imported).toMatchObject({ exitCode: 0, stdout: matching(/^sha256:[0-9a-f]{64}\n$/) });
});

afterAll(async () => {
  await node[Symbol.asyncDispose]();
});

afterEach(async () => {
  const ids = (await node.docker('acme', ['ps', '-aq'])).stdout.split('\n').filter((id) => id !== '');
  if (ids.length > 0) await node.docker('acme', ['rm', '-f', ...ids]);
});

async function docker(...args: readonly string[]): Promise<CommandAnswer> {
  return await node.docker('acme', args);
}

/** The output of a command that must succeed. */
async function out(...args: readonly string[]): Promise<string> {
  const answer = await docker(...args);
  expect(answer, args.join(' ')).toMatchObject({ exitCode: 0 });
  return answer.stdout;
}

async function until(check: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 20_000;
  while (!(await check())) {
    if (Date.now() > deadline) throw new Error('it did not come');
    await delay(50);
  }
}

describe.each(CLIENTS)('%s', (program) => {
  const client = async (args: readonly string[], input?: string): Promise<CommandAnswer> =>
    await run(program, args, { env: node.dockerEnv('acme'), ...(input === undefined ? {} : { input }) });

  test('version and info tell of the tenant’s own machine', async () => {
    const version = await client(['version', '--format', '{{.Server.APIVersion}} {{.Server.MinAPIVersion}} {{.Server.Os}}']);
    expect(version).toMatchObject({ exitCode: 0, stdout: '1.44 1.24 linux\n' });
    const info = await client(['info', '--format', '{{.OSType}} {{.DefaultRuntime}} {{.MemTotal}} {{.Swarm.LocalNodeState}}']);
    expect(info).toMatchObject({ exitCode: 0, stdout: `linux runsc ${String(8 * 1024 ** 3)} inactive\n` });
  });

  test('run passes options in, and output and exit codes out', async () => {
    const options = ['-e', 'A=b', '-w', '/tmp', '-u', '1000', '--hostname', 'h1', '-l', 'x=y', '--entrypoint', 'sh'];
    const answer = await client(['run', '--rm', ...options, 'bb', '-c', 'echo $A $PWD $(id -u) $(hostname); echo e >&2; exit 3']);
    expect(answer).toEqual({ exitCode: 3, stdout: 'b /tmp 1000 h1\n', stderr: 'e\n' });
    expect(await client(['run', '--rm', 'bb', 'sh', '-c', 'kill -9 $$'])).toMatchObject({ exitCode: 137 });
    expect((await client(['ps', '-aq'])).stdout).toBe('');
  });

  test('run -i hears the end of its input', async () => {
    const answer = await client(['run', '--rm', '-i', 'bb', 'sh', '-c', 'wc -c; exit 4'], 'x'.repeat(300_000));
    expect(answer).toEqual({ exitCode: 4, stdout: '300000\n', stderr: '' });
  });

  test('a program that does not exist is exit code 127 and leaves nothing', async () => {
    const answer = await client(['run', '--rm', 'bb', '/nonexistent']);
    expect(answer).toMatchObject({ exitCode: 127, stderr: containing('no such file or directory') });
    expect((await client(['ps', '-aq'])).stdout).toBe('');
  });

  test('exec gives output, input and exit code', async () => {
    const id = (await client(['run', '-d', '--name', 'box', 'bb', 'sleep', '100'])).stdout.trim();
    expect(id).toMatch(/^[0-9a-f]{64}$/);
    const script = 'echo $Q $PWD; cat; echo err >&2; exit 7';
    const answer = await client(['exec', '-i', '-e', 'Q=1', '-w', '/tmp', 'box', 'sh', '-c', script], 'input\n');
    expect(answer).toEqual({ exitCode: 7, stdout: '1 /tmp\ninput\n', stderr: 'err\n' });
    expect(await client(['exec', '-d', id.slice(0, 12), 'touch', '/tmp/made'])).toMatchObject({ exitCode: 0 });
    await until(async () => (await client(['exec', 'box', 'ls', '/tmp/made'])).exitCode === 0);
    expect((await client(['inspect', '--format', '{{.ExecIDs}}', 'box'])).stdout).toBe('[]\n');
  });

  test('inspect of what does not exist says so in Docker’s words', async () => {
    const answer = await client(['inspect', 'nothing']);
    expect(answer).toMatchObject({
      exitCode: 1,
      stdout: '[]\n',
      stderr: matching(/error: no such object: nothing/i),
    });
  });

  test('logs -f goes on until the container ends', async () => {
    await client(['run', '-d', '--name', 'talk', 'bb', 'sh', '-c', 'for i in 1 2 3; do echo o$i; echo e$i >&2; sleep 0.2; done']);
    expect(await client(['logs', '-f', 'talk'])).toEqual({ exitCode: 0, stdout: 'o1\no2\no3\n', stderr: 'e1\ne2\ne3\n' });
    // Which of the last two lines came first is up to the engine: it reads the two streams side by side.
    expect(await client(['logs', '--tail', '2', 'talk'])).toMatchObject({ stdout: 'o3\n', stderr: 'e3\n' });
  });
});

describe('containers', () => {
  test('run -d, ps with its filters, stop, start, restart, kill, wait and rm', async () => {
    const id = (await out('run', '-d', '--name', 'one', '-l', 'tier=web', 'bb', 'sleep', '100')).trim();
    await out('create', '--name', 'two', 'bb', 'true');
    const names = async (...args: readonly string[]): Promise<readonly string[]> =>
      (await out('ps', '--format', '{{.Names}}', ...args)).split('\n').filter((name) => name !== '');
    expect(await names()).toEqual(['one']);
    expect(await names('-a')).toEqual(['two', 'one']);
    expect(await names('-a', '--filter', 'label=tier=web')).toEqual(['one']);
    expect(await names('-a', '--filter', 'status=created')).toEqual(['two']);
    expect(await names('-a', '--filter', 'name=^tw')).toEqual(['two']);
    expect(await names('-a', '--filter', 'ancestor=bb', '--filter', 'since=one')).toEqual(['two']);
    expect(await names('-n', '1')).toEqual(['two']);
    expect((await out('ps', '-q')).trim()).toBe(id.slice(0, 12));
    expect((await out('ps', '-q', '--no-trunc')).trim()).toBe(id);
    expect(await docker('ps', '--filter', 'nonsense=1')).toMatchObject({
      exitCode: 1,
      stderr: containing("'nonsense'"),
    });

    const started = await out('inspect', '--format', '{{.State.StartedAt}}', 'one');
    expect(await out('restart', '-t', '0', 'one')).toBe('one\n');
    expect(await out('inspect', '--format', '{{.State.StartedAt}}', 'one')).not.toBe(started);
    expect(await out('kill', '-s', 'KILL', 'one')).toBe('one\n');
    expect(await out('wait', 'one')).toBe('137\n');
    expect(await out('inspect', '--format', '{{.State.Status}} {{.State.ExitCode}} {{.State.Running}}', 'one')).toBe(
      'exited 137 false\n',
    );
    expect(await out('start', 'one')).toBe('one\n');
    expect(await out('start', 'one')).toBe('one\n');
    expect(await docker('rm', 'one')).toMatchObject({
      exitCode: 1,
      stderr: containing('You cannot remove a running container'),
    });
    expect(await out('stop', '-t', '0', 'one')).toBe('one\n');
    expect(await out('stop', 'one')).toBe('one\n');
    expect(await docker('kill', 'one')).toMatchObject({ exitCode: 1, stderr: containing('is not running') });
    expect(await out('rm', 'one', 'two')).toBe('one\ntwo\n');
  });

  test('ps follows a container that ends by itself', async () => {
    await out('run', '-d', '--name', 'brief', 'bb', 'sleep', '0.5');
    await until(async () => (await out('ps', '-a', '--format', '{{.State}}')) === 'exited\n');
    expect(await out('ps', '-a', '--format', '{{.Status}}')).toMatch(/^Exited \(0\) /);
  });

  test('pause holds a container and exec with it', async () => {
    await out('run', '-d', '--name', 'one', 'bb', 'sleep', '100');
    await out('pause', 'one');
    expect(await out('ps', '--format', '{{.Status}}')).toMatch(/\(Paused\)\n$/);
    expect(await docker('exec', 'one', 'true')).toMatchObject({ exitCode: 1, stderr: containing('is paused') });
    expect(await docker('pause', 'one')).toMatchObject({ exitCode: 1, stderr: containing('already paused') });
    await out('unpause', 'one');
    expect(await out('exec', 'one', 'echo', 'on')).toBe('on\n');
  });

  test('start -a and attach show output and take the exit code over', async () => {
    await out('create', '-i', '--name', 'cat', 'bb', 'sh', '-c', 'cat; exit 5');
    expect(await node.docker('acme', ['start', '-ai', 'cat'], 'through\n')).toEqual({
      exitCode: 5,
      stdout: 'through\n',
      stderr: '',
    });
    await out('run', '-d', '--name', 'late', 'bb', 'sh', '-c', 'sleep 1; echo said; exit 6');
    expect(await docker('attach', '--no-stdin', 'late')).toEqual({ exitCode: 6, stdout: 'said\n', stderr: '' });
  });

  test('logs by time, with times, and of a TTY', async () => {
    await out('run', '--name', 'talk', 'bb', 'sh', '-c', 'echo old; sleep 1.2; echo new');
    const lines = (await out('logs', '-t', 'talk')).trim().split('\n');
    expect(lines).toHaveLength(2);
    expect(lines[0]).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z old$/);
    const second = (lines[1] ?? '').split(' ')[0] ?? '';
    expect(await out('logs', '--since', second, 'talk')).toBe('new\n');
    expect(await out('logs', '--until', lines[0]?.split(' ')[0] ?? '', 'talk')).toBe('old\n');
    await out('run', '-t', '--name', 'tty', 'bb', 'sh', '-c', 'echo a; echo b');
    expect(await out('logs', 'tty')).toBe('a\r\nb\r\n');
  });

  test('inspect shows what was asked for and nothing of the host', async () => {
    await out('create', '--name', 'one', '-e', 'A=b', '-m', '128m', '--restart', 'on-failure:3', '-l', 'x=y', 'bb', 'sleep', '1');
    const text = await out('inspect', 'one');
    const views: unknown = JSON.parse(text);
    expect(views).toMatchObject([
      {
        Name: '/one',
        Config: { Image: 'bb', Cmd: ['sleep', '1'], Labels: { x: 'y' }, Env: including('A=b') },
        HostConfig: {
          Memory: 128 * 1024 ** 2,
          RestartPolicy: { Name: 'on-failure', MaximumRetryCount: 3 },
          Privileged: false,
          CgroupParent: '',
        },
      },
    ]);
    expect(text).not.toContain(node.dataDir);
    expect(text).not.toContain('ecluse-');
  });

  test('rename moves the name, and names are taken once', async () => {
    const id = (await out('create', '--name', 'one', 'bb', 'true')).trim();
    const conflict = `The container name "/one" is already in use by container "${id}"`;
    expect(await docker('run', '--name', 'one', 'bb', 'true')).toMatchObject({
      exitCode: 125,
      stderr: containing(conflict),
    });
    await out('create', '--name', 'two', 'bb', 'true');
    expect(await docker('rename', 'two', 'one')).toMatchObject({ exitCode: 1, stderr: containing(conflict) });
    await out('rename', 'one', 'three');
    await out('rename', 'two', 'one');
    expect((await out('ps', '-a', '--format', '{{.Names}}')).trim().split('\n').toSorted()).toEqual(['one', 'three']);
    expect(await docker('rename', 'one', '')).toMatchObject({ exitCode: 1 });
    expect(await docker('rename', 'one', 'one')).toMatchObject({ exitCode: 1, stderr: containing('same name') });
  });

  test('refusals have Docker’s words and exit codes', async () => {
    for (const args of [
      ['rm', 'no'],
      ['stop', 'no'],
      ['logs', 'no'],
      ['exec', 'no', 'true'],
      ['start', 'no'],
      ['wait', 'no'],
      ['kill', 'no'],
    ]) {
      const answer = await docker(...args);
      expect(answer, args.join(' ')).toMatchObject({ exitCode: 1, stderr: containing('No such container: no') });
    }
    const badName = 'Invalid container name (a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed';
    expect(await docker('create', '--name', 'a b', 'bb')).toMatchObject({
      exitCode: 1,
      stderr: containing(badName),
    });
    const missing = await docker('run', 'registry.invalid/absent');
    expect(missing.exitCode).toBe(125);
    expect(missing.stderr).toContain("Unable to find image 'registry.invalid/absent:latest' locally");
    expect(missing.stderr).toContain('Get "https://registry.invalid/v2/": dial tcp: lookup registry.invalid: no such host');
  });

  test('what is asked for and not to be had is refused with the reason', async () => {
    const refused: readonly (readonly [readonly string[], string])[] = [
      [['-v', '/:/host'], 'HostConfig.Binds'],
      [['-v', 'data:/x:rshared'], 'field BindOptions must not be specified'],
      [['--tmpfs', '/x', '--mount', 'type=volume,dst=/x'], 'Duplicate mount point: /x'],
      [['-p', '8080:80/sctp'], 'cannot be published'],
      [['--network', 'host'], 'HostConfig.NetworkMode'],
      [['-m', '6m'], 'Minimum memory limit allowed is 64MB'],
      [['-m', '100g'], 'its quota is'],
      [
        ['-l', 'ecluse.http.host=evil.test', '-l', 'ecluse.http.port=80'],
        'evil.test is outside of the domains of tenant acme (NAME-acme.localhost, shop.test)',
      ],
      [['-l', 'ecluse.http.host=a.shop.test'], 'it needs ecluse.http.port'],
      [['-l', 'ecluse.http.port=no'], '"no" is no port'],
      [['--rm', '--restart', 'always'], ''],
    ];
    for (const [args, reason] of refused) {
      const answer = await docker('run', ...args, 'bb', 'true');
      expect(answer, args.join(' ')).toMatchObject({ exitCode: 125, stderr: containing(reason) });
    }
    expect(await out('ps', '-aq')).toBe('');
  });
});

describe('images', () => {
  test('load, images, tag, inspect and rmi', async () => {
    const config = { Cmd: ['echo', 'loaded'], Env: ['PATH=/bin'], Labels: { made: 'here' } };
    const archive = await imageArchive({ repoTags: ['shop:1', 'example.test:5000/team/shop:2'], rootFs, config });
    const loaded = await node.docker('acme', ['load'], archive);
    expect(loaded).toMatchObject({ exitCode: 0 });
    expect(loaded.stdout).toContain('Loaded image: shop:1\n');
    expect(loaded.stdout).toContain('Loaded image: example.test:5000/team/shop:2\n');
    expect(await node.docker('acme', ['load', '-q'], archive)).toMatchObject({ exitCode: 0 });
    expect(await out('run', '--rm', 'shop:1')).toBe('loaded\n');
    expect(await out('image', 'inspect', '--format', '{{.Config.Labels.made}} {{.RepoTags}}', 'shop:1')).toBe(
      'here [shop:1 example.test:5000/team/shop:2]\n',
    );
    await out('tag', 'shop:1', 'other');
    const listed = (await out('images', '--format', '{{.Repository}}:{{.Tag}}')).trim().split('\n');
    const named = async (pattern: string): Promise<string> =>
      await out('images', '--format', '{{.Repository}}:{{.Tag}}', '-f', `reference=${pattern}`);
    expect([await named('sh*'), await named('*/*/sh?p:2'), await named('s')]).toEqual([
      'shop:1\n',
      'example.test:5000/team/shop:2\n',
      '',
    ]);
    expect(listed.toSorted()).toEqual(['bb:latest', 'example.test:5000/team/shop:2', 'other:latest', 'shop:1']);
    const id = (await out('images', '-q', '--no-trunc', 'shop:1')).trim();
    expect(id).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect(await docker('rmi', id)).toMatchObject({
      exitCode: 1,
      stderr: containing('image is referenced in multiple repositories'),
    });
    expect(await out('rmi', 'other', 'shop:1')).toBe('Untagged: other:latest\nUntagged: shop:1\n');
    expect(await out('rmi', id)).toBe(`Untagged: example.test:5000/team/shop:2\nDeleted: ${id}\n`);
    expect(await docker('rmi', 'shop:1')).toMatchObject({
      exitCode: 1,
      stderr: containing('No such image: shop:1'),
    });
    expect(await docker('tag', 'shop:1', 'x')).toMatchObject({
      exitCode: 1,
      stderr: containing('No such image: shop:1'),
    });
  });

  test('an image in use stays, by force without its name', async () => {
    await node.docker('acme', ['load'], await imageArchive({ repoTags: ['used:1'], rootFs, config: { Cmd: ['sleep', '100'] } }));
    await out('run', '-d', '--name', 'user', 'used:1');
    const user = (await out('ps', '-q')).trim();
    expect(await docker('rmi', 'used:1')).toMatchObject({
      exitCode: 1,
      stderr: containing(`unable to remove repository reference "used:1" (must force) - container ${user} is using its`),
    });
    expect(await out('rmi', '-f', 'used:1')).toBe('Untagged: used:1\n');
    await out('restart', '-t', '0', 'user');
    const image = (await out('inspect', '--format', '{{.Image}}', 'user')).trim();
    await out('rm', '-f', 'user');
    expect(await out('rmi', image)).toBe(`Deleted: ${image}\n`);
  });

  test('import applies --change, and an image’s volumes are made', async () => {
    await node.docker('acme', ['import', '-c', 'CMD ["echo","changed"]', '-c', 'ENV X=1', '-m', 'why', '-', 'changed:2'], rootFs);
    expect(await out('run', '--rm', 'changed:2')).toBe('changed\n');
    await node.docker('acme', ['import', '-c', 'VOLUME /data', '-', 'vol'], rootFs);
    expect(await out('run', '--rm', 'vol', 'sh', '-c', 'mount | grep -c " on /data "')).toBe('1\n');
    expect(await out('ps', '-aq')).toBe('');
    await out('rmi', 'vol', 'changed:2');
  });
});

describe('API versions', () => {
  const withVersion = async (version: string, ...args: readonly string[]): Promise<CommandAnswer> =>
    await run('docker', args, { env: { ...node.dockerEnv('acme'), DOCKER_API_VERSION: version } });

  // Below 1.25 the client itself removes what --rm started; below 1.30 it knows of the end from events.
  test.each(['1.24', '1.25', '1.29', '1.30', '1.41', '1.42', '1.44'])(
    'a client of %s creates, starts, reads and runs',
    async (version) => {
      const old = async (...args: readonly string[]): Promise<CommandAnswer> => await withVersion(version, ...args);
      expect(await old('create', '--name', 'old', 'bb', 'echo', 'hi')).toMatchObject({ exitCode: 0 });
      expect(await old('start', '-a', 'old')).toEqual({ exitCode: 0, stdout: 'hi\n', stderr: '' });
      expect(await old('logs', 'old')).toEqual({ exitCode: 0, stdout: 'hi\n', stderr: '' });
      const script = 'echo out; echo err >&2; exit 7';
      expect(await old('run', '--name', 'ran', 'bb', 'sh', '-c', script)).toEqual({
        exitCode: 7,
        stdout: 'out\n',
        stderr: 'err\n',
      });
      expect(await old('run', '--rm', 'bb', 'sh', '-c', 'exit 3')).toMatchObject({ exitCode: 3, stdout: '' });
      expect(await out('ps', '-a', '--format', '{{.Names}} {{.State}}')).toBe('ran exited\nold exited\n');
    },
  );

  test('too old and too new are refused as Docker does', async () => {
    expect(await withVersion('1.23', 'ps')).toMatchObject({
      exitCode: 1,
      stderr: containing('client version 1.23 is too old. Minimum supported API version is 1.24'),
    });
    expect(await withVersion('1.99', 'ps')).toMatchObject({
      exitCode: 1,
      stderr: containing('client version 1.99 is too new. Maximum supported API version is 1.44'),
    });
  });
});

describe('dockerode', () => {
  const dockerode = async (): Promise<Dockerode> =>
    new Dockerode({ host: '127.0.0.1', port: node.ports.docker, protocol: 'https', ...(await credentialsOf(node, 'acme')) });

  test('creates, attaches, waits, reads logs and removes', async () => {
    const client = await dockerode();
    const container = await client.createContainer({
      name: 'box',
      Image: 'bb',
      Cmd: ['sh', '-c', 'echo out; echo err >&2; exit 9'],
    });
    await container.start();
    expect(await container.wait()).toMatchObject({ StatusCode: 9 });
    const raw = await container.logs({ stdout: true, stderr: true });
    const [stdout, stderr] = [new PassThrough(), new PassThrough()];
    const source = PassThrough.from([raw]);
    client.modem.demuxStream(source, stdout, stderr);
    await once(source, 'end');
    stdout.end();
    stderr.end();
    expect([await textOf(stdout), await textOf(stderr)]).toEqual(['out\n', 'err\n']);
    expect((await client.listContainers({ all: true })).map(({ Names, State }) => [Names, State])).toEqual([
      [['/box'], 'exited'],
    ]);
    await container.remove();
    await expect(container.inspect()).rejects.toMatchObject({
      statusCode: 404,
      json: { message: containing('No such container') },
    });
  });

  test('exec with a raw connection carries input both ways', async () => {
    const client = await dockerode();
    const container = await client.createContainer({ Image: 'bb', Cmd: ['sleep', '100'] });
    await container.start();
    const exec = await container.exec({ Cmd: ['cat'], AttachStdin: true, AttachStdout: true });
    const stream = await exec.start({ hijack: true, stdin: true });
    const [stdout, stderr] = [new PassThrough(), new PassThrough()];
    client.modem.demuxStream(stream, stdout, stderr);
    stream.write('hello ');
    stream.end('there');
    await once(stream, 'end');
    stdout.end();
    expect(await textOf(stdout)).toBe('hello there');
    expect(await exec.inspect()).toMatchObject({ Running: false, ExitCode: 0, ContainerID: container.id });
    await container.remove({ force: true });
  });
});

test('a client that leaves logs -f or attach leaves nothing open', async () => {
  await out('run', '-d', '--name', 'one', 'bb', 'sleep', '100');
  const child = spawn('docker', ['logs', '-f', 'one'], { env: node.dockerEnv('acme'), stdio: 'ignore' });
  await delay(500);
  child.kill('SIGKILL');
  await once(child, 'exit');
  expect(await out('rm', '-f', 'one')).toBe('one\n');
});
