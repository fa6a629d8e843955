/** Pull, push, login, search and distribution against real registries on loopback, as two tenants: whose credentials open what, and what engines keep. */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { Server } from 'node:http';
import { request as httpRequest } from 'node:http';
import { join } from 'node:path';
import { json } from 'node:stream/consumers';
import type { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import * as z from 'zod';
import { busyboxTar, callApi, credentialsOf } from '../../support/docker-api.ts';
import type { ApiAnswer, ApiCall, Credentials } from '../../support/docker-api.ts';
import { imageArchive } from '../../support/image-archive.ts';
import { anyText, containing, matching } from '../../support/matchers.ts';
import { addTenant, freePort, run, startNode } from '../../support/node.ts';
import type { CommandAnswer, TestNode } from '../../support/node.ts';
import { REGISTRY_PASSWORD, REGISTRY_USER, startRegistry } from '../../support/registry.ts';

let node: TestNode;
let registry: string;
let rootFs: Buffer;
let acme: Credentials;
let globex: Credentials;
let evil: EvilRegistry;
const stack = new AsyncDisposableStack();

/** A registry that says what a test wants it to say. */
class EvilRegistry implements AsyncDisposable {
  readonly server: Server;
  readonly seen: string[] = [];
  readonly manifests = new Map<string, { readonly type: string; readonly body: string }>();
  readonly blobs = new Map<string, Buffer>();
  /** Where blobs are said to be. */
  redirectTo: string | undefined;
  /** Where tokens are said to be. */
  realm: string | undefined;
  uploadsAt: string | undefined;

  constructor() {
    this.server = createServer((incoming, response) => {
      const url = incoming.url ?? '';
      this.seen.push(`${incoming.method ?? ''} ${url}`);
      incoming.resume();
      if (this.realm !== undefined && incoming.headers.authorization === undefined) {
        response.writeHead(401, { 'www-authenticate': `Bearer realm="${this.realm}",service="evil"` }).end();
        return;
      }
      if (url.includes('/v1/search')) {
        response.end(JSON.stringify({ results: [{ name: 'thing', description: 'd', star_count: 3, is_official: false }] }));
        return;
      }
      if (url.includes('/uploads/') && this.uploadsAt !== undefined) {
        response.writeHead(202, { location: this.uploadsAt }).end();
        return;
      }
      const manifest = this.manifests.get(/manifests\/(.+)$/.exec(url)?.[1] ?? '');
      const blob = this.blobs.get(/blobs\/(.+)$/.exec(url)?.[1] ?? '');
      if (manifest !== undefined) response.writeHead(200, { 'content-type': manifest.type }).end(manifest.body);
      else if (url.includes('/blobs/') && this.redirectTo !== undefined)
        response.writeHead(307, { location: this.redirectTo }).end();
      else if (blob !== undefined) response.writeHead(200).end(blob);
      else if (url === '/v2/') response.writeHead(200).end('{}');
      else response.writeHead(404).end(JSON.stringify({ errors: [{ code: 'BLOB_UNKNOWN', message: 'no' }] }));
    });
  }

  put(name: string, config: string, layers: readonly string[]): void {
    const manifest = JSON.stringify({
      schemaVersion: 2,
      mediaType: MANIFEST,
      config: { mediaType: 'application/vnd.docker.container.image.v1+json', size: 1, digest: config },
      layers: layers.map((digest) => ({ mediaType: 'application/vnd.docker.image.rootfs.diff.tar.gzip', size: 1, digest })),
    });
    for (const key of [name, digestOf(manifest)]) this.manifests.set(key, { type: MANIFEST, body: manifest });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.server.closeAllConnections();
    this.server.close();
    await Promise.resolve();
  }
}

const MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';

function digestOf(content: string | Buffer): string {
  return `sha256:${createHash('sha256').update(content).digest('hex')}`;
}

async function call(credentials: Credentials, request: ApiCall): Promise<ApiAnswer> {
  return await callApi(node, credentials, request);
}

/** `docker ARGS` with a client configuration of the tenant's own, where its logins are. */
async function docker(tenant: string, ...args: readonly string[]): Promise<CommandAnswer> {
  return await run('docker', args, { env: { ...node.dockerEnv(tenant), DOCKER_CONFIG: join(node.dataDir, `client-${tenant}`) } });
}

async function ok(tenant: string, ...args: readonly string[]): Promise<string> {
  const answer = await docker(tenant, ...args);
  expect(answer, `${args.join(' ')}: ${answer.stderr}`).toMatchObject({ exitCode: 0 });
  return answer.stdout.trim();
}

/** Names of images on the engine itself, asked behind the node's back. */
async function engineNames(): Promise<readonly string[]> {
  const { promise, resolve, reject } = Promise.withResolvers<Readable>();
  const socketPath = join(node.dataDir, 'hosts', 'a', 'docker.sock');
  httpRequest({ socketPath, path: '/images/json' }, resolve).once('error', reject).end();
  const schema = z.array(z.object({ RepoTags: z.array(z.string()).nullish(), RepoDigests: z.array(z.string()).nullish() }));
  const images = schema.parse(await json(await promise));
  return images.flatMap((image) => [...(image.RepoTags ?? []), ...(image.RepoDigests ?? [])]);
}

beforeAll(async () => {
  const port = await freePort();
  registry = `127.0.0.1:${String(port)}`;
  stack.use(await startRegistry(port));
  evil = stack.use(new EvilRegistry());
  evil.server.listen(0, '127.0.0.1');
  await once(evil.server, 'listening');
  node = stack.use(await startNode({ hosts: ['a', 'b'], config: { registries: ['*', registry, evilHost()] } }));
  await addTenant(node, 'acme');
  await addTenant(node, 'globex');
  acme = await credentialsOf(node, 'acme');
  globex = await credentialsOf(node, 'globex');
  rootFs = await busyboxTar(node.dataDir);
  const archive = await imageArchive({ repoTags: ['app:1'], rootFs, config: { Cmd: ['true'], Labels: { own: 'yes' } } });
  const loaded = await run('docker', ['load'], { env: node.dockerEnv('acme'), input: archive });
  expect(loaded).toMatchObject({ exitCode: 0 });
});

afterAll(async () => {
  await stack.disposeAsync();
});

function evilHost(): string {
  const address = evil.server.address();
  return `127.0.0.1:${String(typeof address === 'object' && address !== null ? address.port : 0)}`;
}

describe('a registry with accounts', () => {
  test('login tells right from wrong', async () => {
    const wrong = await docker('acme', 'login', '-u', REGISTRY_USER, '-p', 'wrong', registry);
    expect(wrong).toMatchObject({ exitCode: 1, stderr: containing('401 Unauthorized') });
    expect(await ok('acme', 'login', '-u', REGISTRY_USER, '-p', REGISTRY_PASSWORD, registry)).toContain('Login Succeeded');
  });

  test('push needs credentials, and says what it did', async () => {
    await ok('acme', 'tag', 'app:1', `${registry}/team/app:1`);
    await ok('globex', 'version');
    const pushed = await ok('acme', 'push', `${registry}/team/app:1`);
    expect(pushed).toContain(`The push refers to repository [${registry}/team/app]`);
    expect(pushed).toMatch(/1: digest: sha256:[0-9a-f]{64} size: \d+/);
    const again = await ok('acme', 'push', `${registry}/team/app:1`);
    expect(again).toContain('Layer already exists');
    expect(await ok('acme', 'image', 'inspect', '--format', '{{index .RepoDigests 0}}', 'app:1')).toMatch(
      new RegExp(`^${registry}/team/app@sha256:[0-9a-f]{64}$`),
    );
    await ok('acme', 'tag', 'app:1', `${registry}/team/app:2`);
    expect(await ok('acme', 'push', '--all-tags', `${registry}/team/app`)).toMatch(/2: digest: sha256/);
    expect((await engineNames()).filter((name) => !/^ecluse\/[0-9a-f]{40}:held$/.test(name))).toEqual([]);
  });

  test('a private image is nobody’s without credentials, also when an engine has it', async () => {
    const without = await docker('globex', 'pull', `${registry}/team/app:1`);
    expect(without).toMatchObject({ exitCode: 1, stderr: containing('no basic auth credentials') });
    const digest = (await ok('acme', 'image', 'inspect', '--format', '{{index .RepoDigests 0}}', 'app:1')).split('@')[1] ?? '';
    const byDigest = await docker('globex', 'pull', `${registry}/team/app@${digest}`);
    expect(byDigest).toMatchObject({ exitCode: 1, stderr: containing('no basic auth credentials') });
    expect(await ok('globex', 'images', '-q')).toBe('');
    await ok('globex', 'login', '-u', REGISTRY_USER, '-p', REGISTRY_PASSWORD, registry);
    const pulled = await ok('globex', 'pull', `${registry}/team/app:1`);
    expect(pulled.split('\n').slice(-3)).toEqual([
      `Digest: ${digest}`,
      `Status: Downloaded newer image for ${registry}/team/app:1`,
      `${registry}/team/app:1`,
    ]);
    expect(pulled).toContain('1: Pulling from team/app');
    expect(await ok('globex', 'pull', `${registry}/team/app:1`)).toContain(
      `Status: Image is up to date for ${registry}/team/app:1`,
    );
    expect(await ok('globex', 'run', '--rm', `${registry}/team/app@${digest}`, 'sh', '-c', 'echo runs')).toBe('runs');
    expect((await engineNames()).filter((name) => !/^ecluse\/[0-9a-f]{40}:held$/.test(name))).toEqual([]);
  });

  test('all tags at once, by digest, and what there is not', async () => {
    await ok('globex', 'rmi', `${registry}/team/app:1`);
    expect(await ok('globex', 'images', '-q')).toBe('');
    expect(await ok('globex', 'pull', '--all-tags', `${registry}/team/app`)).toContain('2: Pulling from team/app');
    expect((await ok('globex', 'images', '--format', '{{.Tag}}')).split('\n').toSorted()).toEqual(['1', '2']);
    const missing = await docker('globex', 'pull', `${registry}/team/app:none`);
    expect(missing.stderr.trim()).toBe(
      `Error response from daemon: manifest for ${registry}/team/app:none not found: manifest unknown: manifest unknown`,
    );
    const noTag = await docker('globex', 'push', `${registry}/team/other:1`);
    expect(noTag).toMatchObject({
      exitCode: 1,
      stderr: containing(`An image does not exist locally with the tag: ${registry}/team/other`),
    });
  });

  test('a pull of another tenant at the same time is its own', async () => {
    for (const tenant of ['acme', 'globex'])
      await docker(tenant, 'rmi', '-f', `${registry}/team/app:1`, `${registry}/team/app:2`);
    const pulls = ['acme', 'globex', 'acme', 'globex'].map(
      async (tenant) => await docker(tenant, 'pull', '-q', `${registry}/team/app:2`),
    );
    for (const pulled of await Promise.all(pulls)) expect(pulled).toEqual({ exitCode: 0, stdout: anyText(), stderr: '' });
    for (const tenant of ['acme', 'globex']) expect(await ok(tenant, 'images', '-q', `${registry}/team/app:2`)).not.toBe('');
  });

  test('distribution tells digest and platforms', async () => {
    const path = `/distribution/${registry}/team/app:1/json`;
    const refused = await call(globex, { path });
    expect([refused.status, refused.text]).toEqual([500, containing('no basic auth credentials')]);
    const auth = Buffer.from(JSON.stringify({ username: REGISTRY_USER, password: REGISTRY_PASSWORD })).toString('base64url');
    const answer = await call(globex, { path, headers: { 'x-registry-auth': auth } });
    expect(JSON.parse(answer.text)).toEqual({
      Descriptor: {
        mediaType: MANIFEST,
        digest: matching(/^sha256:[0-9a-f]{64}$/),
        size: z
          .number()
          .parse(z.object({ Descriptor: z.object({ size: z.number() }) }).parse(JSON.parse(answer.text)).Descriptor.size),
      },
      Platforms: [{ architecture: 'amd64', os: 'linux' }],
    });
  });
});

describe('a registry of an attacker', () => {
  const pullEvil = async (name: string): Promise<CommandAnswer> => await docker('globex', 'pull', `${evilHost()}/${name}`);

  test('does not hand out what an engine has, by naming its digests', async () => {
    const secret = await imageArchive({ repoTags: ['vault:1'], rootFs, config: { Env: ['SECRET=1'] } });
    await run('docker', ['load'], { env: node.dockerEnv('acme'), input: secret });
    const imageId = await ok('acme', 'image', 'inspect', '--format', '{{.Id}}', 'vault:1');
    await ok('acme', 'tag', 'vault:1', `${registry}/vault:1`);
    await ok('acme', 'push', `${registry}/vault:1`);
    const headers = {
      authorization: `Basic ${Buffer.from(`${REGISTRY_USER}:${REGISTRY_PASSWORD}`).toString('base64')}`,
      accept: MANIFEST,
    };
    const manifest = await fetch(`http://${registry}/v2/vault/manifests/1`, { headers });
    const layer =
      z.object({ layers: z.array(z.object({ digest: z.string() })) }).parse(await manifest.json()).layers[0]?.digest ?? '';
    // Config and layer are on the engine; the attacker knows their digests only.
    evil.put('known', imageId, [layer]);
    expect(await pullEvil('x:known')).toMatchObject({ exitCode: 1, stderr: containing('blob unknown') });
    // The config is the attacker's own, the layer is not.
    const diffId = await ok('acme', 'image', 'inspect', '--format', '{{index .RootFS.Layers 0}}', 'vault:1');
    const config = JSON.stringify({
      architecture: 'amd64',
      os: 'linux',
      config: {},
      rootfs: { type: 'layers', diff_ids: [diffId] },
    });
    evil.blobs.set(digestOf(config), Buffer.from(config));
    evil.put('layer', digestOf(config), [layer]);
    await docker('globex', 'rmi', '-f', `${registry}/team/app:2`); // It has the same layer.
    expect(await pullEvil('x:layer')).toMatchObject({ exitCode: 1, stderr: containing('blob unknown') });
    expect(await ok('globex', 'images', '-q')).toBe('');
    expect((await engineNames()).filter((name) => !/^ecluse\/[0-9a-f]{40}:held$/.test(name))).toEqual([]);
  });

  test('does not lead anywhere else: blobs, tokens, uploads', async () => {
    const inside = createServer((_incoming, response) => {
      hits += 1;
      response.end('{"token":"x"}');
    });
    let hits = 0;
    inside.listen(0, '127.0.0.1');
    await once(inside, 'listening');
    const address = inside.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    const config = JSON.stringify({ architecture: 'amd64', os: 'linux', rootfs: { type: 'layers', diff_ids: [] } });
    evil.put('away', digestOf(`${config} `), []);
    for (const target of [
      `http://127.0.0.1:${String(port)}/`,
      `http://localhost:${String(port)}/`,
      'http://169.254.169.254/',
      'https://10.0.0.1/',
      'http://[::1]:80/',
    ]) {
      evil.redirectTo = target;
      expect(await pullEvil('x:away'), target).toMatchObject({
        exitCode: 1,
        stderr: containing('is not reached from this node'),
      });
    }
    evil.redirectTo = undefined;
    evil.realm = `http://127.0.0.1:${String(port)}/token`;
    expect(await pullEvil('x:away')).toMatchObject({ exitCode: 1, stderr: containing('is not reached from this node') });
    evil.realm = undefined;
    evil.uploadsAt = `http://127.0.0.1:${String(port)}/upload`;
    await ok('acme', 'tag', 'app:1', `${evilHost()}/x:1`);
    expect(await docker('acme', 'push', `${evilHost()}/x:1`)).toMatchObject({
      exitCode: 1,
      stderr: containing('is not reached from this node'),
    });
    expect(hits).toBe(0);
    inside.close();
  });

  test('schema 1, and what is no manifest, is refused', async () => {
    evil.manifests.set('one', { type: 'application/vnd.docker.distribution.manifest.v1+prettyjws', body: '{}' });
    expect(await pullEvil('x:one')).toMatchObject({ exitCode: 1, stderr: containing('schema 1') });
    evil.manifests.set('text', { type: 'text/html', body: '<html>' });
    expect(await pullEvil('x:text')).toMatchObject({ exitCode: 1 });
    evil.manifests.set('broken', { type: MANIFEST, body: '{' });
    expect(await pullEvil('x:broken')).toMatchObject({ exitCode: 1 });
  });
});

describe('which registries', () => {
  test('private addresses are refused in any spelling, before anything is asked', async () => {
    const port = String(node.ports.metrics);
    const names = [
      '10.0.0.1/x',
      'localhost/x',
      `localhost:${port}/x`,
      `127.0.0.1:${port}/x`,
      `127.1:${port}/x`,
      `2130706433:${port}/x`,
      `0x7f000001:${port}/x`,
      `0177.0.0.1:${port}/x`,
      '169.254.169.254/latest/meta-data',
      '192.168.1.1:5000/x',
      '0.0.0.0:80/x',
      '100.64.0.1/x',
      '198.18.0.1/x',
      '172.16.0.1/x',
      '224.0.0.1/x',
      '255.255.255.255/x',
      'a.localhost/x',
      '0x7f.1/x',
    ];
    for (const name of names) {
      const answer = await call(acme, {
        method: 'POST',
        path: `/images/create?fromImage=${encodeURIComponent(name)}&tag=latest`,
      });
      expect([answer.status, JSON.parse(answer.text)], name).toEqual([
        403,
        { message: containing('is not reached from this node') },
      ]);
      const push = await call(acme, { method: 'POST', path: `/images/${name}/push?tag=1` });
      expect(push.text, name).toContain('An image does not exist locally with the tag');
      const asked = await call(acme, { path: `/distribution/${name}/json` });
      expect(asked.status, name).toBe(403);
      const login = await call(acme, {
        method: 'POST',
        path: '/auth',
        body: { username: 'a', password: 'b', serveraddress: name },
      });
      expect(login.status, name).toBe(403);
    }
    await ok('acme', 'tag', 'app:1', `127.1:${port}/x:1`);
    expect(await docker('acme', 'push', `127.1:${port}/x:1`)).toMatchObject({
      exitCode: 1,
      stderr: containing('is not reached from this node'),
    });
    for (const name of ['[::1]/x', '[::1]:80/x', '[fd00::1]/x']) {
      const answer = await call(acme, {
        method: 'POST',
        path: `/images/create?fromImage=${encodeURIComponent(name)}&tag=latest`,
      });
      expect([answer.status, JSON.parse(answer.text)], name).toEqual([400, { message: 'invalid reference format' }]);
    }
  });

  test('a name without a public address is one that does not exist', async () => {
    const answer = await call(acme, { method: 'POST', path: '/images/create?fromImage=metadata.google.internal/x&tag=latest' });
    expect(answer.status).toBe(500);
    expect(JSON.parse(answer.text)).toEqual({ message: containing('lookup metadata.google.internal: no such host') });
  });

  test('a named one that is down is told as Docker tells it', async () => {
    const answer = await docker('acme', 'pull', `${evilHost().replace(/:\d+$/, '')}:1/x`);
    expect(answer).toMatchObject({ exitCode: 1, stderr: anyText() });
  });

  test('search asks the registry that is named', async () => {
    const path = `/images/search?term=${encodeURIComponent(`${evilHost()}/thing`)}`;
    const answer = await call(acme, { path });
    expect(JSON.parse(answer.text)).toEqual([
      { star_count: 3, is_official: false, name: 'thing', is_automated: false, description: 'd' },
    ]);
    expect((await call(acme, { path: `${path}&limit=101` })).status).toBe(400);
    expect(JSON.parse((await call(acme, { path: `${path}&filters=${encodeURIComponent('{"stars":["4"]}')}` })).text)).toEqual([]);
  });
});

test('a host whose engine hangs does not stop a pull, nor a push of what another host has', async () => {
  const pid = Number(await readFile(join(node.dataDir, 'hosts', 'a', 'dockerd.pid'), 'utf8'));
  await docker('acme', 'rmi', '-f', `${registry}/team/app:1`, `${registry}/team/app:2`);
  process.kill(pid, 'SIGSTOP');
  try {
    expect(await ok('acme', 'pull', '-q', `${registry}/team/app:1`)).toBe(`${registry}/team/app:1`);
  } finally {
    process.kill(pid, 'SIGCONT');
  }
  expect(await ok('acme', 'run', '--rm', `${registry}/team/app:1`, 'sh', '-c', 'echo runs')).toBe('runs');
});

test('credentials are in no log', async () => {
  const auth = Buffer.from(JSON.stringify({ username: REGISTRY_USER, password: REGISTRY_PASSWORD })).toString('base64url');
  await call(acme, {
    method: 'POST',
    path: `/images/create?fromImage=${registry}/none&tag=1`,
    headers: { 'x-registry-auth': auth },
  });
  const log = (await run('cat', [join(node.dataDir, 'hosts', 'a', 'dockerd.log')])).stdout;
  for (const text of [log, node.output()]) for (const secret of [REGISTRY_PASSWORD, auth]) expect(text).not.toContain(secret);
});
