/** Volumes through the Docker endpoint: data in sandboxes, what Docker says about them, hosts, and what no tenant reaches. */
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import * as z from 'zod';
import { scopeOf } from '#caas/host.ts';
import { busyboxTar, callApi, credentialsOf } from '../../support/docker-api.ts';
import type { ApiAnswer, Credentials } from '../../support/docker-api.ts';
import { containing, matching } from '../../support/matchers.ts';
import { addTenant, freshDataDir, run, startNode } from '../../support/node.ts';
import type { CommandAnswer, TestNode } from '../../support/node.ts';

let node: TestNode;
let acme: Credentials;
let globex: Credentials;

async function tried(tenant: string, ...args: readonly string[]): Promise<CommandAnswer> {
  return await node.docker(tenant, args);
}

async function docker(tenant: string, ...args: readonly string[]): Promise<string> {
  const answer = await tried(tenant, ...args);
  expect(answer, `docker ${args.join(' ')}: ${answer.stderr}`).toMatchObject({ exitCode: 0 });
  return answer.stdout.trim();
}

async function api(method: string, path: string, body?: unknown, credentials = acme): Promise<ApiAnswer> {
  return await callApi(node, credentials, { method, path, ...(body === undefined ? {} : { body }) });
}

function messageOf(answer: ApiAnswer): string {
  return z.object({ message: z.string() }).parse(JSON.parse(answer.text)).message;
}

async function names(tenant: string): Promise<readonly string[]> {
  return (await docker(tenant, 'volume', 'ls', '-q')).split('\n').filter((name) => name !== '');
}

/** Names of the volumes that an engine has. */
async function engineVolumes(host: string): Promise<readonly string[]> {
  const entries = await readdir(join(node.dataDir, 'hosts', host, 'docker', 'volumes'), { withFileTypes: true });
  return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
}

async function hostOf(tenant: string, name: string): Promise<string> {
  const { stdout } = await node.ecluse('ps', '-a', '--json');
  const rows = z.array(z.object({ tenant: z.string(), name: z.string(), host: z.string() })).parse(JSON.parse(stdout));
  return rows.find((row) => row.tenant === tenant && row.name === name)?.host ?? '';
}

beforeAll(async () => {
  node = await startNode({ hosts: ['a', 'b'], dataDir: await freshDataDir() });
  await addTenant(node, 'acme', '--containers', '30');
  await addTenant(node, 'globex');
  acme = await credentialsOf(node, 'acme');
  globex = await credentialsOf(node, 'globex');
  const tar = await busyboxTar(node.dataDir);
  for (const tenant of ['acme', 'globex']) await node.docker(tenant, ['import', '-', 'bb'], tar);
}, 120_000);

afterAll(async () => {
  await node[Symbol.asyncDispose]();
  await rm(node.dataDir, { recursive: true, force: true });
});

describe('data', () => {
  test('is seen by every container that mounts it, and outlives them', async () => {
    await docker(
      'acme',
      'run',
      '-d',
      '--name',
      'writer',
      '-v',
      'shared:/data',
      'bb',
      'sh',
      '-c',
      'echo one >/data/file && sleep 1000',
    );
    expect(await docker('acme', 'run', '--rm', '-v', 'shared:/in', 'bb', 'cat', '/in/file')).toBe('one');
    await docker('acme', 'run', '--rm', '-v', 'shared:/in', 'bb', 'sh', '-c', 'echo two >>/in/file');
    expect(await docker('acme', 'exec', 'writer', 'cat', '/data/file')).toBe('one\ntwo');
    await docker('acme', 'rm', '-fv', 'writer');
    expect(await docker('acme', 'run', '--rm', '-v', 'shared:/in:ro', 'bb', 'cat', '/in/file')).toBe('one\ntwo');
  });

  test('read-only is enforced', async () => {
    const answer = await tried('acme', 'run', '--rm', '-v', 'shared:/in:ro', 'bb', 'sh', '-c', 'echo x >/in/file');
    expect(answer).toMatchObject({ exitCode: 1, stderr: containing('Read-only file system') });
    const mounted = await tried('acme', 'run', '--rm', '--mount', 'type=volume,src=shared,dst=/in,ro', 'bb', 'touch', '/in/x');
    expect(mounted).toMatchObject({ exitCode: 1, stderr: containing('Read-only file system') });
    // gVisor 20240729 truncates before it refuses, where the host's kernel lets it.
    expect(await docker('acme', 'run', '--rm', '-v', 'shared:/in', 'bb', 'cat', '/in/file')).toBe('one\ntwo');
  });

  test('what the image has at the destination is copied into an empty volume, unless told not to', async () => {
    const passwd = ['bb', 'cat', '/etc/passwd'];
    expect(await docker('acme', 'run', '--rm', '-v', 'etc:/etc', ...passwd)).toContain('root:');
    expect(await docker('acme', 'run', '--rm', '-v', 'etc:/copied', 'bb', 'ls', '/copied')).toContain('passwd');
    expect(await tried('acme', 'run', '--rm', '-v', 'bare:/etc:nocopy', ...passwd)).toMatchObject({ exitCode: 1 });
    const mounted = await tried('acme', 'run', '--rm', '--mount', 'type=volume,src=bare2,dst=/etc,volume-nocopy', ...passwd);
    expect(mounted).toMatchObject({ exitCode: 1, stderr: containing('No such file') });
  });

  test('docker cp reaches a volume', async () => {
    await docker('acme', 'run', '-d', '--name', 'copying', '-v', 'shared:/data', 'bb', 'sleep', '1000');
    await node.docker('acme', ['cp', '-', 'copying:/data'], await busyboxTar(node.dataDir));
    expect(await docker('acme', 'run', '--rm', '-v', 'shared:/data', 'bb', 'cat', '/data/etc/passwd')).toContain('root:');
    const out = join(node.dataDir, 'copied');
    await docker('acme', 'cp', 'copying:/data/file', out);
    expect(await readFile(out, 'utf8')).toBe('one\ntwo\n');
    await docker('acme', 'rm', '-f', 'copying');
  });
});

describe('names', () => {
  test('an anonymous volume goes with rm -v and --rm, a named one stays', async () => {
    const before = await names('acme');
    await docker('acme', 'create', '--name', 'anon', '-v', '/x', '--mount', 'type=volume,dst=/y', '-v', 'kept:/z', 'bb', 'true');
    const made = (await names('acme')).filter((name) => !before.includes(name));
    expect(made.toSorted()).toEqual([expect.stringMatching(/^[0-9a-f]{64}$/), expect.stringMatching(/^[0-9a-f]{64}$/), 'kept']);
    await docker('acme', 'rm', '-v', 'anon');
    expect(await names('acme')).toEqual([...before, 'kept'].toSorted());
    await docker('acme', 'run', '--rm', '-v', '/x', 'bb', 'touch', '/x/file');
    expect(await names('acme')).toEqual([...before, 'kept'].toSorted());
    await docker('acme', 'create', '--name', 'anon', '-v', '/x', 'bb', 'true');
    await docker('acme', 'rm', 'anon');
    expect(await names('acme')).toHaveLength(before.length + 2);
  });

  test('an image’s volumes are made, and its files are in them', async () => {
    const tar = await busyboxTar(node.dataDir);
    await node.docker('acme', ['import', '-c', 'VOLUME /etc', '-c', 'VOLUME /data', '-', 'declaring'], tar);
    const before = await names('acme');
    await docker('acme', 'create', '--name', 'declared', '-v', 'mine:/data', 'declaring', 'cat', '/etc/passwd');
    expect(await names('acme')).toHaveLength(before.length + 2);
    expect(await docker('acme', 'start', '-a', 'declared')).toContain('root:');
    const inspected = await docker('acme', 'inspect', '--format', '{{json .Mounts}} {{json .Config.Volumes}}', 'declared');
    expect(inspected).toContain('"Destination":"/etc"');
    expect(inspected).toContain('{"/data":{},"/etc":{}}');
    await docker('acme', 'rm', '-v', 'declared');
  });

  test('VolumesFrom copies the mounts of a container of the tenant, by name, id or prefix', async () => {
    const id = await docker('acme', 'create', '--name', 'donor', '-v', 'shared:/data', '-v', '/anonymous', 'bb', 'true');
    for (const reference of ['donor', id, id.slice(0, 12)]) {
      expect(await docker('acme', 'run', '--rm', '--volumes-from', reference, 'bb', 'cat', '/data/file')).toBe('one\ntwo');
    }
    const answer = await tried('acme', 'run', '--rm', '--volumes-from', 'donor:ro', 'bb', 'touch', '/anonymous/x');
    expect(answer.stderr).toContain('Read-only file system');
    await docker('acme', 'create', '--name', 'heir', '--volumes-from', 'donor:ro', 'bb', 'true');
    const view = z
      .object({ Mounts: z.array(z.unknown()), HostConfig: z.object({ VolumesFrom: z.array(z.string()), Binds: z.null() }) })
      .parse(JSON.parse((await api('GET', '/v1.41/containers/heir/json')).text));
    expect(view.HostConfig.VolumesFrom).toEqual(['donor:ro']);
    expect(view.Mounts).toContainEqual({
      Type: 'volume',
      Name: 'shared',
      Source: '/var/lib/docker/volumes/shared/_data',
      Destination: '/data',
      Driver: 'local',
      Mode: '',
      RW: false,
      Propagation: '',
    });
    await docker('acme', 'rm', '-v', 'donor');
    await docker('acme', 'rm', '-v', 'heir');
  });
});

describe('/volumes', () => {
  test('create, inspect, list, remove', async () => {
    const wish = { Name: 'plain', Labels: { tier: 'db' } };
    const created = await api('POST', '/v1.41/volumes/create', wish);
    expect(created.status).toBe(201);
    const view = { Name: 'plain', Driver: 'local', Labels: { tier: 'db' }, Options: null, Scope: 'local' };
    expect(JSON.parse(created.text)).toEqual({
      ...view,
      Mountpoint: '/var/lib/docker/volumes/plain/_data',
      CreatedAt: matching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/),
    });
    const again = await api('POST', '/v1.41/volumes/create', { name: 'plain', labels: { other: 'x' } });
    expect([again.status, again.text]).toEqual([201, created.text]);
    expect((await api('GET', '/v1.41/volumes/plain')).text).toBe(created.text);
    const listed = async (filters: Readonly<Record<string, readonly string[]>>): Promise<readonly string[]> => {
      const answer = await api('GET', `/v1.41/volumes?filters=${encodeURIComponent(JSON.stringify(filters))}`);
      const parsed = z
        .object({ Volumes: z.array(z.object({ Name: z.string() })), Warnings: z.null() })
        .parse(JSON.parse(answer.text));
      return parsed.Volumes.map(({ Name }) => Name);
    };
    expect(await listed({ label: ['tier=db'] })).toEqual(['plain']);
    expect(await listed({ label: ['tier', 'tier=web'] })).toEqual([]);
    expect(await listed({ name: ['^plai'] })).toEqual(['plain']);
    expect(await listed({ driver: ['other'] })).toEqual([]);
    await docker('acme', 'create', '--name', 'user', '-v', 'plain:/p', 'bb', 'true');
    expect(await listed({ dangling: ['true'] })).not.toContain('plain');
    expect(await listed({ dangling: ['0'] })).toContain('plain');
    const id = await docker('acme', 'inspect', '--format', '{{.Id}}', 'user');
    const refused = await api('DELETE', '/v1.41/volumes/plain?force=1');
    expect([refused.status, messageOf(refused)]).toEqual([409, `remove plain: volume is in use - [${id}]`]);
    await docker('acme', 'rm', 'user');
    expect((await api('DELETE', '/v1.41/volumes/plain')).status).toBe(204);
    const gone = await api('DELETE', '/v1.41/volumes/plain');
    expect([gone.status, messageOf(gone)]).toEqual([404, 'get plain: no such volume']);
    expect((await api('DELETE', '/v1.41/volumes/plain?force=1')).status).toBe(204);
  });

  test.each([
    ['', 400, 'got EOF while reading request body'],
    [{ Name: 'a b' }, 400, 'create a b: "a b" includes invalid characters'],
    [{ Name: '../../etc' }, 400, 'create ../../etc: "../../etc" includes invalid characters'],
    [{ Name: 'xx', Driver: 'foo' }, 404, 'create xx: error looking up volume plugin foo: plugin "foo" not found'],
    [{ Name: 'xx', DriverOpts: { type: 'none', o: 'bind', device: '/etc' } }, 403, 'only a tmpfs can be mounted'],
    [{ Name: 'xx', driverOPTS: { type: 'none', o: 'bind', device: '/etc' } }, 403, 'only a tmpfs can be mounted'],
    [{ Name: 'xx', ['DriverOpt\u017F']: { type: 'none', o: 'bind', device: '/etc' } }, 403, 'only a tmpfs can be mounted'],
    [{ Name: 'xx', DriverOpts: {}, driveropts: { type: 'none' } }, 400, 'given twice in different spellings'],
    [{ Name: 'xx', ClusterVolumeSpec: { Group: 'g' } }, 400, 'ClusterVolumeSpec is not supported'],
  ])('refuses %j', async (body, status, message) => {
    const answer = await api('POST', '/v1.44/volumes/create', body);
    expect([answer.status, messageOf(answer)]).toEqual([status, expect.stringContaining(message)]);
    expect(await names('acme')).not.toContain('xx');
  });

  test('prune removes all that nothing uses before API 1.42, and only anonymous ones from then on', async () => {
    const spare = ['volume', 'prune', '-f'];
    const body = { Labels: { prunable: '' } };
    const labels = encodeURIComponent(JSON.stringify({ label: ['prunable'] }));
    await api('POST', '/v1.44/volumes/create', { ...body, Name: 'named-one' });
    const anonymous = z
      .object({ Name: z.string() })
      .parse(JSON.parse((await api('POST', '/v1.44/volumes/create', body)).text)).Name;
    const newer = await api('POST', `/v1.44/volumes/prune?filters=${labels}`);
    expect(JSON.parse(newer.text)).toEqual({ VolumesDeleted: [anonymous], SpaceReclaimed: 0 });
    await docker('acme', 'run', '--rm', '-v', 'named-one:/d', 'bb', 'sh', '-c', 'head -c 5000 /dev/zero >/d/x');
    const older = await api('POST', `/v1.41/volumes/prune?filters=${labels}`);
    expect(JSON.parse(older.text)).toEqual({ VolumesDeleted: ['named-one'], SpaceReclaimed: 5000 });
    const invalid = await api('POST', `/v1.41/volumes/prune?filters=${encodeURIComponent('{"all":["1"]}')}`);
    expect([invalid.status, messageOf(invalid)]).toEqual([400, "Invalid filter 'all'"]);
    await docker('globex', 'volume', 'create', 'theirs');
    await docker('acme', ...spare, '--all');
    expect(await names('globex')).toContain('theirs');
  });

  test('a tmpfs volume is bounded and empty again when nobody has it', async () => {
    const options = ['--opt', 'type=tmpfs', '--opt', 'device=tmpfs'];
    await docker('acme', 'volume', 'create', 'quick', ...options, '--opt', 'o=size=1m');
    const full = await tried('acme', 'run', '--rm', '-v', 'quick:/q', 'bb', 'sh', '-c', 'head -c 2000000 /dev/zero >/q/x');
    expect(full).toMatchObject({ exitCode: 1, stderr: matching(/No space left|I\/O error/) });
    expect(await docker('acme', 'run', '--rm', '-v', 'quick:/q', 'bb', 'ls', '/q')).toBe('');
  });

  test('events tell what happens to volumes', async () => {
    const since = String(Date.now() / 1000 - 0.001);
    await docker('acme', 'volume', 'create', 'told');
    await docker('acme', 'volume', 'rm', 'told');
    const heard = await docker(
      'acme',
      'events',
      '--since',
      since,
      '--until',
      String(Date.now() / 1000 + 0.5),
      '--filter',
      'type=volume',
      '--format',
      '{{.Action}} {{.Actor.ID}} {{.Actor.Attributes.driver}}',
    );
    expect(heard.split('\n')).toEqual(['create told local', 'destroy told local']);
  });

  test('the quota counts volumes, named and anonymous', async () => {
    await addTenant(node, 'small');
    const set = await node.ecluse('tenant', 'set', 'small', '--volumes', '2');
    expect(set).toMatchObject({ exitCode: 0 });
    await node.docker('small', ['import', '-', 'bb'], await busyboxTar(node.dataDir));
    await docker('small', 'volume', 'create', 'one');
    const answer = await tried('small', 'create', '-v', '/x', '-v', '/y', 'bb', 'true');
    expect(answer.stderr).toContain('ecluse: tenant small has 1 volumes, its quota is 2');
    expect(await names('small')).toEqual(['one']);
    await docker('small', 'create', '-v', '/x', '-v', 'one:/y', 'bb', 'true');
    const third = await tried('small', 'volume', 'create', 'three');
    expect(third.stderr).toContain('its quota is 2');
  });
});

describe('hosts', () => {
  test('a container goes where its volume is', async () => {
    await docker('acme', 'run', '-d', '--name', 'first', '-v', 'anchored:/d', 'bb', 'sleep', '1000');
    const host = await hostOf('acme', 'first');
    for (const name of ['second', 'third', 'fourth']) {
      await docker('acme', 'run', '-d', '--name', name, '-v', 'anchored:/d', 'bb', 'sleep', '1000');
      expect(await hostOf('acme', name)).toBe(host);
    }
    await docker('acme', 'rm', '-f', 'second', 'third', 'fourth');
  });

  test('containers that are made at the same time with the same new volume are on one host', async () => {
    const numbers = ['one', 'two', 'three', 'four'];
    await Promise.all(
      numbers.map(async (number) => await docker('acme', 'create', '--name', `at-${number}`, '-v', 'sudden:/d', 'bb', 'true')),
    );
    const hosts = await Promise.all(numbers.map(async (number) => await hostOf('acme', `at-${number}`)));
    expect(new Set(hosts).size).toBe(1);
    await docker('acme', 'rm', ...numbers.map((number) => `at-${number}`));
  });

  test('data that nothing uses follows a container to another host; data in use keeps it from being made', async () => {
    const anchor = await hostOf('acme', 'first');
    await docker('acme', 'volume', 'create', 'other');
    // A second container spreads to the other host, where nothing is yet.
    let elsewhere = '';
    for (let attempt = 0; attempt < 6 && elsewhere === ''; attempt += 1) {
      const name = `spread${String(attempt)}`;
      await docker(
        'acme',
        'run',
        '-d',
        '--name',
        name,
        '-v',
        `far${String(attempt)}:/d`,
        'bb',
        'sh',
        '-c',
        'echo far >/d/file; ln -s file /d/link; sleep 1000',
      );
      if ((await hostOf('acme', name)) !== anchor) elsewhere = String(attempt);
    }
    expect(elsewhere).not.toBe('');
    const both = ['-v', 'anchored:/d', '-v', `far${elsewhere}:/far`, 'bb', 'cat', '/far/link'];
    const refused = await tried('acme', 'run', '--rm', ...both);
    expect(refused.stderr).toMatch(/ecluse: volumes \S+ and \S+ are on different hosts and containers use them/);
    await docker('acme', 'rm', '-f', `spread${elsewhere}`);
    expect(await docker('acme', 'run', '--rm', ...both)).toBe('far');
    const volumes = await Promise.all(['a', 'b'].map(engineVolumes));
    const all = volumes.flat();
    expect(new Set(all).size).toBe(all.length);
  });
});

describe('tenants', () => {
  test('the same name is another volume', async () => {
    await docker('acme', 'run', '--rm', '-v', 'common:/d', 'bb', 'sh', '-c', 'echo secret >/d/file');
    expect(await docker('globex', 'run', '--rm', '-v', 'common:/d', 'bb', 'ls', '-a', '/d')).not.toContain('file');
    expect(await docker('acme', 'run', '--rm', '-v', 'common:/d', 'bb', 'cat', '/d/file')).toBe('secret');
  });

  test('another tenant’s volume is as one that does not exist', async () => {
    await docker('acme', 'volume', 'create', 'only-acme');
    for (const [method, path] of [
      ['GET', '/v1.41/volumes/only-acme'],
      ['DELETE', '/v1.41/volumes/only-acme'],
    ] as const) {
      const answer = await api(method, path, undefined, globex);
      const random = await api(method, path.replace('only-acme', 'never-was'), undefined, globex);
      expect([answer.status, answer.text]).toEqual([random.status, random.text.replace('never-was', 'only-acme')]);
    }
    expect(await names('globex')).not.toContain('only-acme');
    expect(await names('acme')).toContain('only-acme');
  });

  test('VolumesFrom of another tenant’s container is refused like that of none, by name, id and prefix', async () => {
    const id = await docker('acme', 'create', '--name', 'vault', '-v', 'common:/d', 'bb', 'true');
    for (const reference of ['vault', '/vault', id, id.slice(0, 12), id.slice(0, 3)]) {
      const body = { Image: 'bb', HostConfig: { VolumesFrom: [reference] } };
      const answer = await api('POST', '/v1.41/containers/create', body, globex);
      expect([answer.status, messageOf(answer)]).toEqual([400, `No such container: ${reference}`]);
    }
    await docker('acme', 'rm', 'vault');
  });

  test('no engine’s name of a volume leads to it', async () => {
    for (const name of (await engineVolumes('a')).filter((engineName) => engineName.startsWith('ecluse-'))) {
      expect((await api('GET', `/v1.41/volumes/${name}`, undefined, globex)).status).toBe(404);
      const listed = await docker('globex', 'run', '--rm', '-v', `${name}:/d`, 'bb', 'ls', '-A', '/d');
      expect(listed).toBe('');
      await docker('globex', 'volume', 'rm', name);
    }
  });

  test('a tenant that is removed leaves no volume behind; named ones it must remove itself', async () => {
    await addTenant(node, 'brief');
    await node.docker('brief', ['import', '-', 'bb'], await busyboxTar(node.dataDir));
    await docker('brief', 'run', '--name', 'toucher', '-v', '/d', '-v', 'named:/n', 'bb', 'touch', '/d/x', '/n/x');
    await docker('brief', 'rm', 'toucher');
    const before = (await Promise.all(['a', 'b'].map(engineVolumes))).flat().length;
    const refused = await node.ecluse('tenant', 'rm', 'brief');
    expect(refused).toMatchObject({ exitCode: 1, stderr: containing('still has 1 volumes with data') });
    await docker('brief', 'volume', 'rm', 'named');
    expect(await node.ecluse('tenant', 'rm', 'brief')).toMatchObject({ exitCode: 0 });
    expect((await Promise.all(['a', 'b'].map(engineVolumes))).flat()).toHaveLength(before - 2);
  });
});

test('a create that fails leaves no volume', async () => {
  const before = await names('acme');
  const engine = (await Promise.all(['a', 'b'].map(engineVolumes))).flat();
  const body = { Image: 'bb', Entrypoint: ['x'], WorkingDir: 'relative', HostConfig: { Binds: ['half-made:/d', '/anonymous'] } };
  const answer = await api('POST', '/v1.41/containers/create', body);
  expect(answer.status).toBeGreaterThanOrEqual(400);
  expect(await names('acme')).toEqual(before);
  expect((await Promise.all(['a', 'b'].map(engineVolumes))).flat().toSorted()).toEqual(engine.toSorted());
});

test('volumes and their data are there after a restart, and what no row knows is removed', async () => {
  const { ports, dataDir } = node;
  await docker('acme', 'run', '--rm', '-v', 'lasting:/d', 'bb', 'sh', '-c', 'echo still >/d/file');
  const kept = await names('acme');
  const engine = ['-H', `unix://${join(dataDir, 'hosts', 'a', 'docker.sock')}`, 'volume'];
  const stray = `ecluse-${scopeOf(dataDir)}-${'0'.repeat(16)}`;
  for (const name of [stray, 'of-somebody'])
    expect(await run('docker', [...engine, 'create', name])).toMatchObject({ exitCode: 0 });
  await node.stop('SIGTERM');
  node = await startNode({ hosts: ['a', 'b'], dataDir, ports });
  expect(await engineVolumes('a')).toContain('of-somebody');
  expect(await engineVolumes('a')).not.toContain(stray);
  expect(await names('acme')).toEqual(kept);
  expect(await docker('acme', 'run', '--rm', '-v', 'lasting:/d', 'bb', 'cat', '/d/file')).toBe('still');
}, 60_000);
