/** Images through real clients and two engines: save and load, import, tags, lists, removal and what engines keep, events. */
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { request as httpRequest } from 'node:http';
import { join } from 'node:path';
import { json } from 'node:stream/consumers';
import type { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { extract } from 'tar-stream';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import * as z from 'zod';
import { buffer } from 'node:stream/consumers';
import { EngineClient } from '#caas/engine/engine-client.ts';
import { ImageCollector } from '#caas/images/image-collector.ts';
import { ImageEngines, listOn } from '#caas/images/image-engines.ts';
import { ImageHoldings } from '#caas/images/image-holdings.ts';
import { createLog } from '#log';
import { openSqlite } from '#state/sqlite.ts';
import { busyboxTar, callApi, connectTls, credentialsOf } from '../../support/docker-api.ts';
import type { ApiAnswer, ApiCall, Credentials } from '../../support/docker-api.ts';
import { imageArchive } from '../../support/image-archive.ts';
import { containing } from '../../support/matchers.ts';
import { addTenant, run, startNode } from '../../support/node.ts';
import type { TestNode } from '../../support/node.ts';

let node: TestNode;
let rootFs: Buffer;
let acme: Credentials;
let archive: Buffer;

async function call(request: ApiCall): Promise<ApiAnswer> {
  return await callApi(node, acme, request);
}

async function docker(tenant: string, ...args: readonly string[]): Promise<string> {
  const answer = await node.docker(tenant, args);
  expect(answer, `${args.join(' ')}: ${answer.stderr}`).toMatchObject({ exitCode: 0 });
  return answer.stdout.trim();
}

/** Binary output of a Docker client, which must not pass as text. */
async function saved(tenant: string, ...names: readonly string[]): Promise<Buffer> {
  const file = join(node.dataDir, 'saved.tar');
  await docker(tenant, 'save', '-o', file, ...names);
  return await readFile(file);
}

async function filesOf(bytes: Buffer): Promise<ReadonlyMap<string, string>> {
  const reader = extract();
  reader.end(bytes);
  const files = new Map<string, string>();
  for await (const entry of reader) files.set(entry.header.name, (await buffer(entry)).toString('utf8'));
  return files;
}

/** Names of images on an engine itself, asked behind the node's back. */
async function engineNames(host: string): Promise<readonly string[]> {
  const { promise, resolve, reject } = Promise.withResolvers<Readable>();
  const socketPath = join(node.dataDir, 'hosts', host, 'docker.sock');
  httpRequest({ socketPath, path: '/images/json' }, resolve).once('error', reject).end();
  const images = z.array(z.object({ RepoTags: z.array(z.string()).nullish() })).parse(await json(await promise));
  return images.flatMap((image) => image.RepoTags ?? []).toSorted();
}

const OWN_NAME = /^ecluse\/[0-9a-f]{40}:held$/;

beforeAll(async () => {
  node = await startNode({ hosts: ['a', 'b'] });
  await addTenant(node, 'acme');
  await addTenant(node, 'globex');
  await addTenant(node, 'small', '--images', '2');
  acme = await credentialsOf(node, 'acme');
  rootFs = await busyboxTar(node.dataDir);
  archive = await imageArchive({
    repoTags: ['app:1', 'app:2', 'other/x:9'],
    rootFs,
    config: { Cmd: ['true'], Labels: { own: 'yes' } },
  });
  await node.docker('acme', ['load'], archive);
});

afterAll(async () => {
  await node[Symbol.asyncDispose]();
});

describe('archives', () => {
  test('what is saved has the tenant’s names and nothing of the engine’s, and loads elsewhere', async () => {
    const single = await filesOf(await saved('acme', 'app:1'));
    expect(JSON.parse(single.get('manifest.json') ?? '')).toMatchObject([{ RepoTags: ['app:1'] }]);
    expect(Object.keys(z.record(z.string(), z.unknown()).parse(JSON.parse(single.get('repositories') ?? '')))).toEqual(['app']);
    await node.docker('acme', ['import', '-', 'second'], rootFs);
    const several = await saved('acme', 'app', 'other/x:9', 'second');
    const files = await filesOf(several);
    const entries = z.array(z.object({ RepoTags: z.array(z.string()) })).parse(JSON.parse(files.get('manifest.json') ?? ''));
    expect(entries.map(({ RepoTags }) => RepoTags).toSorted((one, other) => other.length - one.length)).toEqual([
      ['app:1', 'app:2', 'other/x:9'],
      ['second:latest'],
    ]);
    const texts = [...files].filter(([name]) => /\.json$|repositories$/.test(name)).map(([, text]) => text);
    for (const text of texts) expect(text).not.toContain('ecluse/');
    const loaded = await node.docker('globex', ['load'], several);
    expect(loaded.stdout.trim().split('\n').toSorted()).toEqual(
      ['app:1', 'app:2', 'other/x:9', 'second:latest'].map((name) => `Loaded image: ${name}`),
    );
    expect(await docker('globex', 'run', '--rm', 'second', 'echo', 'runs')).toBe('runs');
    await docker('globex', 'rmi', 'app:1', 'app:2', 'other/x:9', 'second');
    const missing = await node.docker('acme', ['save', '-o', join(node.dataDir, 'none.tar'), 'app:1', 'none:1']);
    expect(missing).toMatchObject({ exitCode: 1, stderr: containing('reference does not exist') });
    for (const host of ['a', 'b']) for (const name of await engineNames(host)) expect(name).toMatch(OWN_NAME);
  });

  test('load takes gzip and zstd, and says what it does not take', async () => {
    for (const bytes of [gzipSync(archive), zstdCompressSync(archive)]) {
      expect(await node.docker('globex', ['load', '-q'], bytes)).toMatchObject({
        exitCode: 0,
        stdout: containing('Loaded image: app:1'),
      });
    }
    const xz = await call({ method: 'POST', path: '/images/load', body: Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0, 0, 0]) });
    expect([xz.status, xz.text]).toEqual([400, containing('xz -dc FILE')]);
    const untagged = await imageArchive({ repoTags: [], rootFs, config: { Env: ['UNTAGGED=1'] } });
    const loaded = await node.docker('globex', ['load'], untagged);
    const id = /Loaded image ID: (sha256:[0-9a-f]{64})/.exec(loaded.stdout)?.[1] ?? '';
    expect(await docker('globex', 'run', '--rm', id, 'sh', '-c', 'echo $UNTAGGED')).toBe('1');
    expect(await docker('globex', 'images', '-q', '--no-trunc', '--filter', 'dangling=true')).toBe(id);
    await docker('globex', 'image', 'prune', '-af');
    expect(await docker('globex', 'images', '-q')).toBe('');
  });

  test('a name that is loaded again moves, and Docker’s words say so', async () => {
    const newer = await imageArchive({ repoTags: ['moving:1'], rootFs, config: { Env: ['V=2'] } });
    const older = await imageArchive({ repoTags: ['moving:1'], rootFs, config: { Env: ['V=1'] } });
    await node.docker('globex', ['load'], older);
    const id = await docker('globex', 'images', '-q', '--no-trunc', 'moving:1');
    const loaded = await node.docker('globex', ['load'], newer);
    expect(loaded.stdout).toContain(`The image moving:1 already exists, renaming the old one with ID ${id} to empty string`);
    expect(await docker('globex', 'image', 'prune', '-f')).toContain(`deleted: ${id}`);
    await docker('globex', 'rmi', 'moving:1');
  });

  test('a client that leaves in the middle leaves nothing', async () => {
    const before = await engineNames('a');
    for (const [path, bytes] of [['/images/load', archive] as const, ['/images/create?fromSrc=-&repo=half', rootFs] as const]) {
      const socket = await connectTls(node, acme);
      socket.write(`POST ${path} HTTP/1.1\r\nhost: a\r\ncontent-length: ${String(bytes.length)}\r\n\r\n`);
      socket.write(bytes.subarray(0, bytes.length / 2));
      await delay(500);
      socket.destroy();
    }
    await delay(1500);
    expect(await engineNames('a')).toEqual(before);
    expect(await docker('acme', 'images', '-q', 'half')).toBe('');
    // A save that is not read to its end.
    const socket = await connectTls(node, acme);
    socket.write('GET /images/app:1/get HTTP/1.1\r\nhost: a\r\n\r\n');
    await once(socket, 'data');
    socket.destroy();
    await delay(1500);
    expect(await engineNames('a')).toEqual(before);
  });

  test('quotas end at the tenant’s number of images', async () => {
    const credentials = await credentialsOf(node, 'small');
    for (const name of ['one', 'two']) {
      const image = await imageArchive({ repoTags: [`${name}:1`], rootFs, config: { Env: [`N=${name}`] } });
      await node.docker('small', ['load'], image);
    }
    for (const path of ['/images/load', '/images/create?fromSrc=-', '/images/create?fromImage=busybox&tag=1']) {
      const answer = await callApi(node, credentials, { method: 'POST', path, body: archive });
      expect([answer.status, answer.text], path).toEqual([403, containing('holds 2 images, its quota is 2')]);
    }
  });
});

describe('lists', () => {
  test('differ by version as Docker’s', async () => {
    const rows = z.array(z.looseObject({ RepoTags: z.array(z.string()).nullable(), SharedSize: z.number() }));
    const list = async (path: string) => rows.parse(JSON.parse((await call({ path })).text));
    const old = (await list('/v1.41/images/json')).find((row) => row.RepoTags?.includes('app:1') === true);
    expect(old).toMatchObject({ RepoTags: ['app:1', 'app:2', 'other/x:9'], RepoDigests: null, SharedSize: -1, Containers: -1 });
    expect(old).toHaveProperty('VirtualSize');
    const recent = (await list('/v1.44/images/json?shared-size=1')).find((row) => row.RepoTags?.includes('app:1') === true);
    expect(recent).not.toHaveProperty('VirtualSize');
    expect(recent?.SharedSize).toBeGreaterThan(1_000_000);
    expect(await list('/v1.40/images/json?filter=app:1')).toHaveLength(1);
    expect(await list('/v1.41/images/json?filter=nothing')).not.toHaveLength(0);
  });

  test('history has no id of others', async () => {
    const answer = JSON.parse((await call({ path: '/images/app:1/history' })).text) as unknown;
    expect(answer).toMatchObject([{ Tags: ['app:1', 'app:2', 'other/x:9'], CreatedBy: 'test/support/image-archive.ts' }]);
  });
});

test('events tell what happened, with Docker’s attributes', async () => {
  const since = String(Math.floor(Date.now() / 1000));
  const image = await imageArchive({ repoTags: ['seen:1'], rootFs, config: { Labels: { colour: 'blue' }, Env: ['E=1'] } });
  await node.docker('acme', ['load'], image);
  await docker('acme', 'tag', 'seen:1', 'seen:2');
  await saved('acme', 'seen:1');
  await docker('acme', 'rmi', 'seen:1', 'seen:2');
  await node.docker('acme', ['import', '-', 'seen:3'], rootFs);
  await docker('acme', 'rmi', 'seen:3');
  const until = String(Math.ceil(Date.now() / 1000) + 1);
  const format = '{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.colour}}';
  const text = await docker('acme', 'events', '--since', since, '--until', until, '--filter', 'type=image', '--format', format);
  const told = text.split('\n').map((line) =>
    line
      .replaceAll(/sha256:[0-9a-f]{64}/g, 'ID')
      .replace('<no value>', '')
      .trim(),
  );
  expect(told).toEqual([
    'load ID blue',
    'tag seen:2 blue',
    'save ID blue',
    'untag ID blue',
    'untag ID blue',
    'delete ID blue',
    'tag seen:3',
    'import ID',
    'untag ID',
    'delete ID',
  ]);
  expect(await docker('globex', 'events', '--since', since, '--until', until, '--filter', 'type=image')).toBe('');
});

describe('removal', () => {
  test('the last holder’s takes an image from all engines; a container keeps it', async () => {
    const image = await imageArchive({ repoTags: ['gone:1'], rootFs, config: { Env: ['GONE=1'] } });
    for (const tenant of ['acme', 'globex']) await node.docker(tenant, ['load'], image);
    const id = await docker('acme', 'images', '-q', '--no-trunc', 'gone:1');
    const name = `ecluse/${id.slice(7, 47)}:held`;
    expect([...(await engineNames('a')), ...(await engineNames('b'))]).toContain(name);
    await docker('acme', 'rmi', 'gone:1');
    expect([...(await engineNames('a')), ...(await engineNames('b'))]).toContain(name);
    await docker('globex', 'create', '--name', 'user', 'gone:1', 'true');
    const used = await node.docker('globex', ['rmi', 'gone:1']);
    expect(used).toMatchObject({ exitCode: 1, stderr: containing('(must force) - container') });
    await docker('globex', 'rm', 'user');
    await docker('globex', 'rmi', 'gone:1');
    expect([...(await engineNames('a')), ...(await engineNames('b'))]).not.toContain(name);
  });

  test('prune tells what it freed', async () => {
    await node.docker('globex', ['load'], await imageArchive({ repoTags: ['p:1'], rootFs, config: { Env: ['P=1'] } }));
    expect(await docker('globex', 'image', 'prune', '-f')).toContain('Total reclaimed space: 0B');
    expect(await docker('globex', 'image', 'prune', '-af', '--filter', 'label=none')).toContain('0B');
    expect(await docker('globex', 'image', 'prune', '-af')).toMatch(/untagged: p:1[\s\S]*Total reclaimed space: [\d.]+MB/);
    expect(await docker('globex', 'images', '-q')).toBe('');
    const two = await Promise.all([1, 2].map(async () => await callApi(node, acme, { method: 'POST', path: '/images/prune' })));
    expect(two.map(({ status }) => status)).toContain(200);
  });
});

test('the other client and the oldest version do the same', async () => {
  const env = { ...node.dockerEnv('acme'), DOCKER_API_VERSION: '1.24' };
  for (const program of ['/usr/bin/docker', 'docker']) {
    const answer = await run(program, ['images', '--format', '{{.Repository}}:{{.Tag}}', 'app'], { env });
    expect(answer, program).toMatchObject({ exitCode: 0, stdout: 'app:1\napp:2\n' });
  }
});

test('what nobody holds goes after a while, and what a container uses stays', async () => {
  await docker('acme', 'create', '--name', 'keeper', 'app:1', 'true');
  const client = new EngineClient(join(node.dataDir, 'hosts', 'a', 'docker.sock'));
  const inUse = await docker('acme', 'images', '-q', '--no-trunc', 'app:1');
  const host = { name: 'a', client, isManaged: true };
  await client.call({ method: 'POST', path: ['images', inUse, 'tag'], query: { repo: 'ecluse/new-left', tag: '0' } });
  await client.call({ method: 'POST', path: ['images', inUse, 'tag'], query: { repo: 'stranger', tag: '0' } });
  // A store of its own in which nobody holds anything: all of the engine's images are left ones.
  await using sql = openSqlite(':memory:');
  let nowMs = 0;
  const clock = { nowMs: () => nowMs, monotonicMs: () => nowMs, sleep: async () => await Promise.resolve() };
  const log = createLog('silent');
  const engines = new ImageEngines(log, new Map([['a', host]]));
  const collector = new ImageCollector({ log, clock, sql, engines, holdings: new ImageHoldings({ clock, sql }, engines) });
  const before = await engineNames('a');
  await collector.round();
  nowMs += 9 * 60_000;
  await collector.round();
  expect(await engineNames('a')).toEqual(before);
  const build = engines.protect(); // Began after the first look: it holds nothing up that was left before.
  nowMs += 2 * 60_000;
  await collector.round();
  build[Symbol.dispose]();
  const left = await engineNames('a');
  const location = await docker('acme', 'inspect', '--format', '{{.Image}}', 'keeper');
  expect(left.filter((name) => !OWN_NAME.test(name))).toEqual(['stranger:0']);
  const listed = await listOn(host);
  expect(listed.map(({ imageId }) => imageId)).toContain(location);
  client[Symbol.dispose]();
});
