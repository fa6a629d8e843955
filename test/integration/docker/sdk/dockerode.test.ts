/** dockerode, unmodified: what its own tests do, over TLS with the tenant's environment, and through the socket in a container. */
import { mkdir, writeFile } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { buffer, text } from 'node:stream/consumers';
import Dockerode from 'dockerode';
import { extract, pack } from 'tar-stream';
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import * as z from 'zod';
import { containing, matching } from '../../../support/matchers.ts';
import { busyboxTar } from '../../../support/docker-api.ts';
import { addTenant, startNode } from '../../../support/node.ts';
import type { TestNode } from '../../../support/node.ts';
import { clientImage } from '../../../support/sdk-image.ts';

const ID = /^[0-9a-f]{64}$/;
/** What `docker.run` resolves to. */
const ranSchema = z.tuple([
  z.object({ StatusCode: z.number() }),
  z.custom<Dockerode.Container>((value) => typeof value === 'object'),
]);
const IMAGE_ID = /^sha256:[0-9a-f]{64}$/;

let node: TestNode;
let docker: Dockerode;

/** A client as its users make one: from the environment, or at a version. */
function clientOf(tenant: string, options: Dockerode.DockerOptions = {}): Dockerode {
  for (const [name, value] of Object.entries(node.dockerEnv(tenant))) if (name.startsWith('DOCKER_')) vi.stubEnv(name, value);
  const client = new Dockerode(options);
  vi.unstubAllEnvs();
  return client;
}

/** What a stream of frames carries. */
async function demuxed(stream: NodeJS.ReadableStream): Promise<{ readonly stdout: string; readonly stderr: string }> {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  stream.once('end', () => {
    stdout.end();
    stderr.end();
  });
  docker.modem.demuxStream(stream, stdout, stderr);
  const [out, errors] = await Promise.all([text(stdout), text(stderr)]);
  return { stdout: out, stderr: errors };
}

/** Every line of a stream of JSON. */
async function progressOf(stream: NodeJS.ReadableStream): Promise<readonly unknown[]> {
  const { promise, resolve, reject } = Promise.withResolvers<readonly unknown[]>();
  docker.modem.followProgress(stream, (error, output) => {
    if (error === null) resolve(output);
    else reject(error);
  });
  return await promise;
}

/** The refusal of a call that must not succeed. */
async function refusal(call: Promise<unknown>): Promise<{ readonly statusCode: number; readonly message: string }> {
  const error: unknown = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  return z.looseObject({ statusCode: z.number(), message: z.string() }).parse(error);
}

async function tarOf(files: Readonly<Record<string, string>>): Promise<Buffer> {
  const archive = pack();
  for (const [name, content] of Object.entries(files)) archive.entry({ name, mode: 0o755 }, content);
  archive.finalize();
  return await buffer(archive);
}

async function filesOf(stream: NodeJS.ReadableStream): Promise<Readonly<Record<string, string>>> {
  const files: Record<string, string> = {};
  const entries = extract();
  Readable.from(stream).pipe(entries);
  for await (const entry of entries) files[entry.header.name] = await text(entry);
  return files;
}

/** A container that is removed after the test. */
async function made(options: Omit<Dockerode.ContainerCreateOptions, 'Image'>): Promise<Dockerode.Container> {
  const container = await docker.createContainer({ Image: 'bb', ...options });
  onTestFinished(async () => {
    await container.remove({ force: true, v: true }).catch(() => undefined);
  });
  return container;
}

async function running(options: Omit<Dockerode.ContainerCreateOptions, 'Image'> = {}): Promise<Dockerode.Container> {
  const container = await made({ Cmd: ['sleep', '1000'], ...options });
  await container.start();
  return container;
}

beforeAll(async () => {
  node = await startNode({ hosts: ['a', 'b'] });
  await addTenant(node, 'acme');
  docker = clientOf('acme');
  const imported = await docker.importImage(Readable.from([await busyboxTar(node.dataDir)]), { repo: 'bb', tag: 'latest' });
  expect(await progressOf(imported)).toEqual([{ status: matching(IMAGE_ID) }]);
});

afterAll(async () => {
  await node[Symbol.asyncDispose]();
});

describe('the engine', () => {
  test.each([undefined, 'v1.24', 'v1.41', 'v1.44'])('answers ping, info, version and df at %s', async (version) => {
    const client = clientOf('acme', version === undefined ? {} : { version });
    expect(String(await client.ping())).toBe('OK');
    expect(await client.version()).toMatchObject({ ApiVersion: '1.44', MinAPIVersion: '1.24', Os: 'linux' });
    expect(await client.info()).toMatchObject({ OSType: 'linux', Images: 1, IndexServerAddress: containing('https://') });
    expect(await client.df()).toMatchObject({ Images: [{ RepoTags: ['bb:latest'] }], Containers: [], Volumes: [] });
  });

  test('refuses credentials and pulls with errors that name the cause', async () => {
    const account = { username: 'xpto', password: 'dang', email: 'xpto@pxpto.pt', serveraddress: 'registry.invalid' };
    expect((await refusal(docker.checkAuth(account))).message).toContain('registry.invalid');
    expect(await refusal(docker.pull('registry.invalid/none:latest'))).toMatchObject({
      statusCode: 500,
      message: containing('registry.invalid'),
    });
    expect(await refusal(docker.getImage('never').inspect())).toMatchObject({
      statusCode: 404,
      message: containing('No such image: never'),
    });
  });

  test('lists plugins and refuses swarms as an engine without them', async () => {
    expect(await docker.listPlugins()).toEqual([]);
    expect(await refusal(docker.listServices())).toMatchObject({ message: containing('not a swarm manager') });
  });
});

describe('images', () => {
  test('are listed, tagged, inspected, saved, loaded and removed', async () => {
    const image = docker.getImage('bb');
    const { Id } = await image.inspect();
    await image.tag({ repo: 'acme/tagged', tag: 'v1' });
    const listed = await docker.listImages({ filters: { reference: ['acme/*'] } });
    expect(listed).toMatchObject([{ Id, RepoTags: ['bb:latest', 'acme/tagged:v1'].filter((tag) => tag.startsWith('acme')) }]);
    expect(await image.history()).toMatchObject([{ Id, Comment: containing('Imported') }]);

    const saved = await buffer(await docker.getImage('acme/tagged:v1').get());
    expect(await docker.getImage('acme/tagged:v1').remove()).toEqual([{ Untagged: 'acme/tagged:v1' }]);
    const lines = await progressOf(await docker.loadImage(Readable.from([saved])));
    expect(lines).toContainEqual({ stream: 'Loaded image: acme/tagged:v1\n' });
    expect((await docker.getImage('acme/tagged:v1').inspect()).Id).toBe(Id);
    await docker.getImage('acme/tagged:v1').remove({ force: true });
  });

  test('are built from a tar and from a folder, and pruned', async () => {
    const dockerfile = 'FROM bb\nARG WORD=none\nLABEL made.by=dockerode\nCOPY said.txt /said.txt\nRUN echo $WORD >> /said.txt\n';
    const context = await tarOf({ Dockerfile: dockerfile, 'said.txt': 'copied\n' });
    const build = await docker.buildImage(Readable.from([context]), {
      t: 'built:tar',
      buildargs: { WORD: 'argued' },
      labels: { from: 'tar' },
      nocache: true,
    });
    expect(await progressOf(build)).toContainEqual({ stream: 'Successfully tagged built:tar\n' });
    expect((await docker.getImage('built:tar').inspect()).Config.Labels).toEqual({ 'made.by': 'dockerode', from: 'tar' });
    const said = new PassThrough();
    const [, container] = ranSchema.parse(await docker.run('built:tar', ['cat', '/said.txt'], said));
    await container.remove();
    expect(await text(said)).toBe('copied\r\nargued\r\n');

    const folder = join(node.dataDir, 'context');
    await mkdir(folder);
    await writeFile(join(folder, 'Dockerfile'), 'FROM bb\nCOPY . /all\n');
    await writeFile(join(folder, '.dockerignore'), 'secret\n');
    await writeFile(join(folder, 'secret'), 'x');
    const again = await docker.buildImage(
      { context: folder, src: ['Dockerfile', '.dockerignore', 'secret'] },
      { t: 'built:folder' },
    );
    expect(await progressOf(again)).toContainEqual({ stream: 'Successfully tagged built:folder\n' });
    await docker.getImage('built:folder').remove();
    await docker.getImage('built:tar').remove({ noprune: true });
    const pruned = await docker.pruneImages({ filters: { dangling: { false: true }, label: { 'made.by=dockerode': true } } });
    expect(pruned.SpaceReclaimed).toBeGreaterThanOrEqual(0);
    expect((await docker.listImages()).map(({ RepoTags }) => RepoTags)).toEqual([['bb:latest']]);
  });

  test('a failing build reports the step’s error in its stream', async () => {
    const context = await tarOf({ Dockerfile: 'FROM bb\nRUN exit 3\n' });
    const build = await docker.buildImage(Readable.from([context]));
    expect(await progressOf(build)).toContainEqual({
      error: containing('returned a non-zero code: 3'),
      errorDetail: { code: 3, message: containing('returned a non-zero code: 3') },
    });
  });
});

describe('containers', () => {
  test('docker.run attaches before it starts, and tells the exit code', async () => {
    const output = new PassThrough();
    const [result, container] = ranSchema.parse(await docker.run('bb', ['sh', '-c', 'echo one; echo two >&2; exit 7'], output));
    expect(result.StatusCode).toBe(7);
    expect(await text(output)).toBe('one\r\ntwo\r\n'); // A terminal, by default.
    expect(await container.inspect()).toMatchObject({ State: { Status: 'exited', ExitCode: 7 }, Config: { Tty: true } });
    await container.remove();
    expect(await refusal(container.inspect())).toMatchObject({ statusCode: 404, message: containing('No such container') });
  });

  test('docker.run demuxes where there is no terminal, and emits its steps', async () => {
    const [stdout, stderr] = [new PassThrough(), new PassThrough()];
    const seen: string[] = [];
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const command = ['sh', '-c', 'echo one; echo two >&2'];
    const hub: NodeJS.EventEmitter = docker.run(
      'bb',
      command,
      [stdout, stderr],
      { Tty: false },
      {},
      (error: Error | null, data: unknown) => {
        if (error === null) resolve(data);
        else reject(error);
      },
    );
    for (const name of ['container', 'stream', 'start', 'data']) hub.on(name, () => seen.push(name));
    let id = '';
    hub.on('container', (container: Dockerode.Container) => {
      id = container.id;
    });
    expect(await promise).toMatchObject({ StatusCode: 0 });
    await docker.getContainer(id).remove();
    expect(await Promise.all([text(stdout), text(stderr)])).toEqual(['one\n', 'two\n']);
    expect(seen).toEqual(['container', 'stream', 'start', 'data']);
  });

  test('attach with hijack carries stdin to its end', async () => {
    const streams = { OpenStdin: true, StdinOnce: true, AttachStdin: true, AttachStdout: true, AttachStderr: true };
    const container = await made({ Cmd: ['wc', '-c'], ...streams });
    const stream = await container.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true });
    const said = demuxed(stream);
    await container.start();
    stream.end(Buffer.alloc(300_000, 'x'));
    expect(await container.wait()).toMatchObject({ StatusCode: 0 });
    expect(await said).toEqual({ stdout: '300000\n', stderr: '' });
  });

  test('attach and exec without hijack carry stdin behind the request', async () => {
    const container = await made({ Cmd: ['sh'], OpenStdin: true, AttachStdin: true, AttachStdout: true, AttachStderr: true });
    const stream = await container.attach({ stream: true, stdin: true, stdout: true, stderr: true });
    const said = demuxed(stream);
    await container.start();
    const exec = await container.exec({ Cmd: ['sh'], AttachStdin: true, AttachStdout: true, AttachStderr: true });
    const inner = await exec.start({ stdin: true });
    const innerSaid = demuxed(inner);
    inner.write('GET /_ping HTTP/1.1\n'); // Input, and no request to us.
    inner.write('echo inner; exit 4\n');
    expect(await innerSaid).toEqual({ stdout: 'inner\n', stderr: containing('GET: not found') });
    stream.write('echo said; exit 6\n');
    expect(await container.wait()).toMatchObject({ StatusCode: 6 });
    expect((await said).stdout).toBe('said\n');
    expect(String(await docker.ping())).toBe('OK');
  });

  test('attach to a terminal echoes, and follows its size', async () => {
    const container = await made({ Cmd: ['sh'], Tty: true, OpenStdin: true, AttachStdin: true, AttachStdout: true });
    const stream = await container.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true });
    const said = text(stream);
    await container.start();
    await container.resize({ h: 10, w: 33 });
    stream.write('stty size; exit 4\n');
    expect(await container.wait()).toMatchObject({ StatusCode: 4 });
    expect(await said).toMatch(/stty size; exit 4[^]*10 33\r\n/);
  });

  test('logs come as a buffer and as a stream that follows', async () => {
    const container = await running({ Cmd: ['sh', '-c', 'echo one; echo two >&2; sleep 2; echo three; sleep 1000'] });
    const followed = await container.logs({ follow: true, stdout: true, stderr: true, timestamps: true });
    const lines: string[] = [];
    docker.modem.demuxStream(
      followed,
      new PassThrough().on('data', (chunk: Buffer) => lines.push(chunk.toString())),
      new PassThrough().on('data', (chunk: Buffer) => lines.push(chunk.toString())),
    );
    await vi.waitUntil(() => lines.join('').includes('three'), { timeout: 20_000 });
    expect(lines.join('')).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z (?:one|two)\n/);
    const tail = await container.logs({ stdout: true, stderr: false, tail: 1 });
    expect(tail.subarray(8).toString()).toBe('three\n');
    await container.kill();
  });

  test('exec streams both ways, in a terminal and without, and tells its code', async () => {
    const container = await running();
    const cat = await container.exec({ Cmd: ['cat'], AttachStdin: true, AttachStdout: true, AttachStderr: true });
    const duplex = await cat.start({ hijack: true, stdin: true });
    const echoed = demuxed(duplex);
    duplex.end('echo\nall\nof\nme\n');
    expect(await echoed).toEqual({ stdout: 'echo\nall\nof\nme\n', stderr: '' });
    expect(await cat.inspect()).toMatchObject({ ExitCode: 0, Running: false, ContainerID: container.id });

    const shell = await container.exec({ Cmd: ['sh'], AttachStdin: true, AttachStdout: true, Tty: true, Env: ['WORD=said'] });
    const terminal = await shell.start({ hijack: true, stdin: true, Tty: true });
    const said = text(terminal);
    await shell.resize({ h: 20, w: 44 });
    terminal.write('stty size; echo $WORD; exit 5\n');
    expect(await said).toMatch(/20 44\r\n[^]*said\r\n/);
    expect(await shell.inspect()).toMatchObject({ ExitCode: 5 });

    const detached = await container.exec({ Cmd: ['touch', '/tmp/detached'] });
    await detached.start({ Detach: true });
    await vi.waitUntil(async () => !(await detached.inspect()).Running, { timeout: 20_000 });
    expect(await container.infoArchive({ path: '/tmp/detached' })).toBeDefined();
    expect(await refusal(docker.getExec('0'.repeat(64)).inspect())).toMatchObject({ statusCode: 404 });
  });

  test('archives go in and out, and changes are seen', async () => {
    const container = await running();
    await container.putArchive(await tarOf({ 'dir/put.txt': 'put\n' }), { path: '/tmp' });
    expect(await filesOf(await container.getArchive({ path: '/tmp/dir' }))).toEqual({ 'dir/': '', 'dir/put.txt': 'put\n' });
    const info = z.instanceof(Readable).parse(await container.infoArchive({ path: '/tmp/dir/put.txt' }));
    const headers = z.looseObject({ headers: z.looseObject({ 'x-docker-container-path-stat': z.string() }) }).parse(info).headers;
    const stat: unknown = JSON.parse(Buffer.from(headers['x-docker-container-path-stat'], 'base64').toString());
    expect(stat).toMatchObject({ name: 'put.txt', size: 4, linkTarget: '' });
    expect(await container.changes()).toContainEqual({ Path: '/tmp/dir/put.txt', Kind: 1 });
    expect(Object.keys(await filesOf(await container.export()))).toContain('tmp/dir/put.txt');
    expect(await refusal(container.getArchive({ path: '/none' }))).toMatchObject({ statusCode: 404 });
  });

  test('commit keeps the files, with a comment and a name', async () => {
    const container = await running({ Env: ['KEPT=1'] });
    await container.putArchive(await tarOf({ 'kept.txt': 'kept\n' }), { path: '/' });
    const options = { repo: 'committed', tag: 'v1', comment: 'dockerode commit test', author: 'me', changes: 'LABEL a=b' };
    expect(await container.commit(options)).toEqual({ Id: matching(IMAGE_ID) });
    expect(await docker.getImage('committed:v1').inspect()).toMatchObject({
      Comment: 'dockerode commit test',
      Author: 'me',
      Config: { Labels: { a: 'b' } },
    });
    await docker.getImage('committed:v1').remove();
    expect(await container.commit({ comment: 'unnamed' })).toEqual({ Id: matching(IMAGE_ID) });
    expect((await docker.pruneImages()).ImagesDeleted).toHaveLength(2);
  });

  test('stats come once and as a stream, top shows the sandbox’s processes', async () => {
    const container = await running();
    const once = await container.stats({ stream: false });
    expect(once).toMatchObject({ name: containing('/'), memory_stats: { limit: 512 * 1024 ** 2 } });
    expect(once.cpu_stats.cpu_usage.total_usage).toBeGreaterThanOrEqual(once.precpu_stats.cpu_usage.total_usage);
    const stream = Readable.from(await container.stats({ stream: true }));
    const lines: unknown[] = await stream.take(1).toArray();
    expect(JSON.parse(String(lines[0]))).toMatchObject({ read: matching(/^\d{4}-/), networks: { eth0: {} } });
    expect(await container.top({ ps_args: '-ef' })).toMatchObject({ Processes: [expect.arrayContaining(['sleep 1000'])] });
  });

  test('rename, update, pause, restart, stop, kill and prune change its state', async () => {
    const container = await running({ name: 'before', Labels: { pruned: 'yes' } });
    await container.rename({ name: 'after' });
    await container.update({ Memory: 128 * 1024 ** 2, MemorySwap: 128 * 1024 ** 2, RestartPolicy: { Name: 'on-failure' } });
    await container.pause();
    expect(await container.inspect()).toMatchObject({
      Name: '/after',
      State: { Status: 'paused', Paused: true },
      HostConfig: { Memory: 128 * 1024 ** 2, RestartPolicy: { Name: 'on-failure' } },
    });
    await container.unpause();
    await container.restart({ t: 1 });
    expect(await refusal(container.remove())).toMatchObject({ statusCode: 409 });
    const ended = container.wait({ condition: 'next-exit' });
    await container.kill({ signal: 'SIGKILL' });
    expect(await ended).toMatchObject({ StatusCode: 137 });
    expect(await refusal(container.kill())).toMatchObject({ statusCode: 409 });
    await container.start();
    await container.stop({ t: 1 });
    expect(await refusal(container.stop())).toMatchObject({ statusCode: 304 });
    const pruned = await docker.pruneContainers({ filters: { label: ['pruned=yes'] } });
    expect(pruned.ContainersDeleted).toEqual([container.id]);
  });

  test('a wait that is given up leaves the container as it is', async () => {
    const container = await made({ Cmd: ['sleep', '1000'] });
    const giveUp = new AbortController();
    const waiting = container.wait({ condition: 'next-exit', abortSignal: giveUp.signal });
    setTimeout(() => {
      giveUp.abort();
    }, 200);
    await expect(waiting).rejects.toMatchObject({ code: 'ABORT_ERR' });
    expect(await container.inspect()).toMatchObject({ State: { Status: 'created' } });
  });

  test('labels, filters and limits choose what is listed', async () => {
    const first = await made({ name: 'first', Cmd: ['true'], Labels: { 'sdk-label': '' } });
    const second = await made({ name: 'second', Cmd: ['true'], Labels: { 'sdk-label': '', 'sdk-value': 'set' } });
    const ids = async (filters: string | Record<string, string[]>): Promise<readonly string[]> =>
      (await docker.listContainers({ all: true, limit: 3, filters })).map(({ Id }) => Id);
    expect(await ids('{"label": ["sdk-label"]}')).toEqual([second.id, first.id]);
    expect(await ids({ label: ['sdk-label', 'sdk-value=set'] })).toEqual([second.id]);
    expect(await ids({ name: ['fir'], status: ['created'] })).toEqual([first.id]);
    const clash = await refusal(docker.createContainer({ Image: 'bb', name: 'first' }));
    expect(clash).toMatchObject({ statusCode: 409, message: containing('is already in use by container') });
  });

  test('a published port reaches the container', async () => {
    const container = await running({
      Cmd: ['sh', '-c', 'while true; do echo reached | nc -l -p 80; done'],
      ExposedPorts: { '80/tcp': {} },
      HostConfig: { PortBindings: { '80/tcp': [{ HostIp: '127.0.0.1', HostPort: '' }] } },
    });
    const port = Number((await container.inspect()).NetworkSettings.Ports['80/tcp']?.[0]?.HostPort);
    expect(port).toBeGreaterThan(0);
    await vi.waitFor(
      async () => {
        expect(await text(createConnection(port, '127.0.0.1'))).toBe('reached\n');
      },
      { timeout: 20_000, interval: 300 },
    );
  });
});

describe('networks, volumes and events', () => {
  test('a network is created, connected, inspected, disconnected and removed', async () => {
    const network = await docker.createNetwork({ Name: 'back', Driver: 'bridge', Labels: { of: 'sdk' }, CheckDuplicate: true });
    const container = await running({ name: 'joins' });
    await network.connect({ Container: container.id, EndpointConfig: { Aliases: ['also'] } });
    const inspected = await docker.getNetwork('back').inspect();
    expect(inspected).toMatchObject({ Name: 'back', Driver: 'bridge', Containers: { [container.id]: { Name: 'joins' } } });
    expect((await container.inspect()).NetworkSettings.Networks['back']).toMatchObject({ NetworkID: network.id });
    expect(await refusal(network.remove())).toMatchObject({ statusCode: 403, message: containing('has active endpoints') });
    await network.disconnect({ Container: container.id, Force: true });
    expect((await docker.listNetworks({ filters: { label: ['of=sdk'] } })).map(({ Id }) => Id)).toEqual([network.id]);
    await network.remove();
    await docker.createNetwork({ Name: 'unused' });
    expect(await docker.pruneNetworks()).toEqual({ NetworksDeleted: ['unused'] });
    expect(await refusal(network.inspect())).toMatchObject({ statusCode: 404 });
  });

  test('a volume outlives its containers', async () => {
    const volume = await docker.createVolume({ Name: 'tardis', Labels: { of: 'sdk' } });
    expect(await volume.inspect()).toMatchObject({ Name: 'tardis', Driver: 'local', Labels: { of: 'sdk' } });
    const once = async (command: string): Promise<string> => {
      const output = new PassThrough();
      const options = { HostConfig: { Binds: ['tardis:/data'] } };
      const [, container] = ranSchema.parse(await docker.run('bb', ['sh', '-c', command], output, options));
      await container.remove();
      return await text(output);
    };
    await once('echo kept > /data/file');
    expect(await once('cat /data/file')).toBe('kept\r\n');
    const { Volumes } = await docker.listVolumes({ filters: { label: ['of=sdk'] } });
    expect(Volumes.map(({ Name }) => Name)).toEqual(['tardis']);
    await volume.remove();
    // What dockerode's own tests send: Docker takes no notice of the path.
    const again: object = { Name: 'tardis', Driver: 'local', Mountpoint: '/var/lib/docker/volumes/tardis' };
    await docker.createVolume(again);
    expect(await docker.pruneVolumes({ filters: { all: ['true'] } })).toMatchObject({ VolumesDeleted: ['tardis'] });
    const unnamed = await docker.createVolume();
    expect(unnamed.name).toMatch(ID);
    await unnamed.remove();
  });

  test('events are streamed by their filters', async () => {
    const stream = await docker.getEvents({ filters: { type: ['container'], event: ['create', 'start', 'die', 'destroy'] } });
    const seen: { readonly Action: string; readonly id: string }[] = [];
    const event = z.object({ Action: z.string(), Actor: z.object({ ID: z.string() }) });
    stream.on('data', (chunk: Buffer) => {
      for (const line of chunk.toString().trim().split('\n')) {
        const { Action, Actor } = event.parse(JSON.parse(line));
        seen.push({ Action, id: Actor.ID });
      }
    });
    const container = await made({ Cmd: ['true'] });
    await container.start();
    await container.wait();
    await container.remove();
    await vi.waitUntil(() => seen.at(-1)?.Action === 'destroy', { timeout: 10_000 });
    expect(seen).toEqual(['create', 'start', 'die', 'destroy'].map((Action) => ({ Action, id: container.id })));
    Readable.from(stream).destroy();
  });
});

describe('in a container of the tenant', () => {
  test('dockerode finds the mounted socket by itself, and works through it', async () => {
    const image = await clientImage(
      ['dockerode', 'zod'],
      join(import.meta.dirname, 'programs', 'dockerode-inside.ts'),
      node.dataDir,
    );
    await progressOf(await docker.importImage(image, { repo: 'inside' }));
    const [stdout, stderr] = [new PassThrough(), new PassThrough()];
    const options = { Tty: false, Env: ['PATH=/bin'], HostConfig: { Binds: ['/var/run/docker.sock:/var/run/docker.sock'] } };
    const [result, container] = ranSchema.parse(
      await docker.run('inside', ['node', '/app/program.ts'], [stdout, stderr], options),
    );
    await container.remove();
    expect({ ...result, stderr: await text(stderr) }).toEqual({ StatusCode: 0, stderr: '' });
    expect(JSON.parse(await text(stdout))).toEqual({
      ping: 'OK',
      image: 'bb:latest',
      exitCode: 3,
      output: 'from inside\n',
      echoed: 'through exec\n',
      read: 'through exec\n',
      events: ['create', 'start', 'die', 'destroy'],
    });
  });
});
