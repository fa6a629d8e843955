/** What a tenant can do to a container and see of it, beyond its life: files, processes, numbers, limits. A real node, the real client. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { pack } from 'tar-stream';
import { buffer } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import * as z from 'zod';
import { busyboxTar, callApi, connectTls, credentialsOf } from '../../support/docker-api.ts';
import type { ApiAnswer, ApiCall, Credentials } from '../../support/docker-api.ts';
import { matching } from '../../support/matchers.ts';
import { addTenant, startNode } from '../../support/node.ts';
import type { TestNode } from '../../support/node.ts';

const MIB = 1024 * 1024;
const BUSYBOX = '/bin/busybox';

let node: TestNode;
let acme: Credentials;
let globex: Credentials;
let folder: string;

beforeAll(async () => {
  node = await startNode({ hosts: ['a'] });
  await addTenant(node, 'acme', '--memory', '512MiB');
  await addTenant(node, 'globex');
  acme = await credentialsOf(node, 'acme');
  globex = await credentialsOf(node, 'globex');
  const rootFs = await busyboxTar(node.dataDir);
  for (const tenant of ['acme', 'globex']) await node.docker(tenant, ['import', '-', 'bb'], rootFs);
  folder = join(node.dataDir, 'files');
  await mkdir(folder);
});

afterAll(async () => {
  await node[Symbol.asyncDispose]();
});

afterEach(async () => {
  const ids = (await node.docker('acme', ['ps', '-aq'])).stdout.split('\n').filter((id) => id !== '');
  if (ids.length > 0) await node.docker('acme', ['rm', '-f', ...ids]);
});

async function out(...args: readonly string[]): Promise<string> {
  const answer = await node.docker('acme', args);
  expect(answer, args.join(' ')).toMatchObject({ exitCode: 0 });
  return answer.stdout;
}

async function errorOf(...args: readonly string[]): Promise<string> {
  const answer = await node.docker('acme', args);
  expect(answer.exitCode, `${args.join(' ')}: ${answer.stdout}`).not.toBe(0);
  return answer.stderr;
}

async function api(call: ApiCall): Promise<ApiAnswer> {
  return await callApi(node, acme, call);
}

function messageOf(answer: ApiAnswer): string {
  return z.strictObject({ message: z.string() }).parse(JSON.parse(answer.text)).message;
}

async function startBox(name: string, ...flags: readonly string[]): Promise<string> {
  return (await out('run', '-d', '--name', name, '-m', '64m', ...flags, 'bb', BUSYBOX, 'sleep', '1000')).trim();
}

/** Whether the sandbox answers: a paused one does not. */
async function expectAwake(name: string): Promise<void> {
  expect(await out('exec', name, BUSYBOX, 'echo', 'awake')).toBe('awake\n');
}

describe('docker cp', () => {
  test.each([['running'], ['stopped']])('copies both ways, %s', async (state) => {
    await startBox('box');
    await out('exec', 'box', BUSYBOX, 'sh', '-c', 'mkdir /d; echo inside > /d/file; ln -s file /d/link; chmod 640 /d/file');
    if (state === 'stopped') await out('stop', '-t', '0', 'box');
    await out('cp', 'box:/d/file', join(folder, `from-${state}`));
    expect(await readFile(join(folder, `from-${state}`), 'utf8')).toBe('inside\n');
    await writeFile(join(folder, 'to'), 'outside\n');
    await out('cp', join(folder, 'to'), 'box:/d/new');
    expect((await out('diff', 'box')).trim().split('\n').toSorted()).toEqual(['A /d', 'A /d/file', 'A /d/link', 'A /d/new']);
    if (state === 'stopped') await out('start', 'box');
    expect(await out('exec', 'box', BUSYBOX, 'cat', '/d/new')).toBe('outside\n');
    await expectAwake('box');
  });

  test('tells what is at a path, and nothing of the host', async () => {
    await startBox('box');
    await out('exec', 'box', BUSYBOX, 'sh', '-c', 'mkdir /d; ln -s ../../../../etc/shadow /d/out');
    for (const method of ['HEAD', 'GET']) {
      const answer = await api({ method, path: '/v1.41/containers/box/archive?path=/d/out' });
      expect(answer.status).toBe(200);
      const header = Buffer.from(String(answer.headers['x-docker-container-path-stat']), 'base64').toString('utf8');
      expect(JSON.parse(header)).toEqual({
        name: 'out',
        size: matchingNumber(),
        mode: matchingNumber(),
        mtime: matching(/^2/),
        linkTarget: '/etc/shadow',
      });
    }
    await expectAwake('box');
  });

  test('takes compressed archives and refuses what would be dangerous or damaged', async () => {
    await startBox('box');
    const put = async (body: Buffer, query = 'path=/'): Promise<ApiAnswer> =>
      await api({ method: 'PUT', path: `/v1.41/containers/box/archive?${query}`, body });
    const writer = pack();
    writer.entry({ name: 'new' }, 'content');
    writer.finalize();
    const archive = await buffer(writer);
    expect(await put(gzipSync(archive))).toMatchObject({ status: 200, text: '' });
    expect(await out('exec', 'box', BUSYBOX, 'cat', '/new')).toBe('content');
    const devices = pack();
    devices.entry({ name: 'sda', type: 'block-device', devmajor: 8, devminor: 0 });
    devices.finalize();
    const device = await put(await buffer(devices));
    expect([device.status, messageOf(device)]).toEqual([403, matching(/^ecluse: sda in the archive is a device/)]);
    const cut = await put(archive.subarray(0, 700));
    expect([cut.status, messageOf(cut)]).toEqual([400, matching(/^Error processing tar file/)]);
    const nowhere = await put(archive, 'path=/nowhere');
    expect([nowhere.status, messageOf(nowhere)]).toEqual([404, 'Could not find the file /nowhere in container box']);
    expect((await put(archive, '')).status).toBe(400);
    expect(await out('diff', 'box')).toBe('A /new\n');
    await expectAwake('box');
  });

  test('leaves nothing behind and the container awake where the client goes away', async () => {
    await startBox('box');
    const socket = await connectTls(node, acme);
    const head = ['PUT /v1.41/containers/box/archive?path=/ HTTP/1.1', 'Host: x', 'Content-Length: 1000000', '', ''].join('\r\n');
    socket.write(head);
    socket.write(Buffer.alloc(100_000));
    await delay(200);
    socket.destroy();
    await expectAwake('box');
    expect(await out('diff', 'box')).toBe('');
  });

  test('moves large files', async () => {
    await startBox('box');
    const size = 30 * MIB;
    await out('exec', 'box', BUSYBOX, 'sh', '-c', `head -c ${String(size)} /dev/urandom > /large`);
    const sum = (await out('exec', 'box', BUSYBOX, 'md5sum', '/large')).slice(0, 32);
    await out('cp', 'box:/large', join(folder, 'large'));
    await out('cp', join(folder, 'large'), 'box:/copy');
    expect((await out('exec', 'box', BUSYBOX, 'md5sum', '/copy')).slice(0, 32)).toBe(sum);
  });
});

describe('what is inside', () => {
  test('top shows the sandbox’s processes and no other', async () => {
    await startBox('box');
    await out('exec', '-d', 'box', BUSYBOX, 'sleep', '77');
    const listed = (await out('top', 'box'))
      .trim()
      .split('\n')
      .map((line) => line.split(/\s+/));
    expect(listed[0]).toEqual(['UID', 'PID', 'PPID', 'C', 'STIME', 'TTY', 'TIME', 'CMD']);
    expect(listed.slice(1).map((row) => row.slice(7).join(' '))).toEqual([`${BUSYBOX} sleep 1000`, `${BUSYBOX} sleep 77`]);
    expect(await out('top', 'box', '-o', 'pid,comm')).toMatch(/^PID\s+COMMAND\n1\s+busybox\n/);
    expect(await errorOf('top', 'box', '-o', 'comm')).toContain("Couldn't find PID field in ps output");
    expect(await errorOf('top', 'box', '-o', 'pid,environ')).toContain('unknown user-defined format specifier');
    const id = (await out('ps', '-q', '--no-trunc')).trim();
    await out('stop', '-t', '0', 'box');
    expect(await errorOf('top', 'box')).toContain(`Container ${id} is not running`);
  });

  test('stats has the container’s numbers', async () => {
    const id = await startBox('box');
    const line = await out('stats', '--no-stream', '--format', '{{.Name}} {{.ID}} {{.MemUsage}} {{.PIDs}}');
    expect(line).toMatch(new RegExp(`^box ${id.slice(0, 12)} .*MiB / 64MiB [1-9]`));
    const answer = await api({ path: '/v1.41/containers/box/stats?stream=false&one-shot=true' });
    expect(JSON.parse(answer.text)).toMatchObject({ id, name: '/box', memory_stats: { limit: 64 * MIB } });
    expect(answer.text).not.toContain('ecluse');
    await out('stop', '-t', '0', 'box');
    expect(JSON.parse((await api({ path: '/v1.41/containers/box/stats?stream=false' })).text)).toMatchObject({
      read: '0001-01-01T00:00:00Z',
      memory_stats: {},
    });
    const both = await api({ path: '/v1.41/containers/box/stats?stream=1&one-shot=1' });
    expect([both.status, messageOf(both)]).toEqual([400, 'cannot have stream=true and one-shot=true']);
  });

  test('a stream of stats ends with its container', async () => {
    await startBox('box');
    const streaming = api({ path: '/v1.41/containers/box/stats' });
    setTimeout(() => void node.docker('acme', ['rm', '-f', 'box']), 1500);
    expect((await streaming).text.trim().split('\n').length).toBeGreaterThanOrEqual(1);
  });

  test('export and commit have what the container wrote', async () => {
    await startBox('box', '-e', 'A=b', '-l', 'own=1');
    await out('exec', 'box', BUSYBOX, 'sh', '-c', 'echo kept > /kept');
    await out('export', '-o', join(folder, 'export.tar'), 'box');
    expect((await readFile(join(folder, 'export.tar'))).includes('kept\n')).toBe(true);
    for (const pause of ['true', 'false']) {
      const change = ['-c', 'CMD ["/bin/busybox","cat","/kept"]', '-c', 'LABEL more=2'];
      const made = await out('commit', '-m', 'note', '-a', 'me', `--pause=${pause}`, ...change, 'box', `made:${pause}`);
      expect(made).toMatch(/^sha256:[0-9a-f]{64}\n$/);
      expect(await out('run', '--rm', '-m', '64m', `made:${pause}`)).toBe('kept\n');
      expect(await out('image', 'inspect', '--format', '{{.Author}} {{.Comment}} {{json .Config.Labels}}', `made:${pause}`)).toBe(
        'me note {"more":"2","own":"1"}\n',
      );
      await expectAwake('box');
    }
    expect(await node.docker('globex', ['image', 'inspect', 'made:true'])).toMatchObject({ exitCode: 1 });
    expect((await api({ method: 'POST', path: '/v1.41/commit?container=box', body: { Volumes: 7 } })).status).toBe(400);
    const bad = await api({ method: 'POST', path: '/v1.41/commit?container=box&repo=UPPER' });
    expect([bad.status, messageOf(bad)]).toEqual([400, 'invalid reference format']);
    expect(await errorOf('commit', '-c', 'RUN id', 'box')).toContain('not a valid change command');
  });

  test('nobody else’s: every endpoint is as for a container that is not there', async () => {
    const id = await startBox('box');
    const strange = 'f'.repeat(64);
    const calls: readonly ApiCall[] = [
      { path: '/v1.41/containers/ID/top' },
      { path: '/v1.41/containers/ID/stats?stream=0' },
      { path: '/v1.41/containers/ID/changes' },
      { path: '/v1.41/containers/ID/export' },
      { path: '/v1.41/containers/ID/archive?path=/' },
      { method: 'PUT', path: '/v1.41/containers/ID/archive?path=/', body: Buffer.alloc(1024) },
      { method: 'POST', path: '/v1.41/containers/ID/update', body: { Memory: 64 * MIB } },
      { method: 'POST', path: '/v1.41/containers/ID/resize?h=1&w=1' },
      { method: 'POST', path: '/v1.41/containers/ID/exec', body: { Cmd: ['id'] } },
      { method: 'POST', path: '/v1.41/commit?container=ID' },
      { method: 'DELETE', path: '/v1.41/containers/ID?force=1' },
    ];
    for (const call of calls) {
      const ask = async (of: string): Promise<ApiAnswer> =>
        await callApi(node, globex, { ...call, path: call.path.replace('ID', of) });
      const [theirs, none] = [await ask(id), await ask(strange)];
      expect(none.status, call.path).toBe(404);
      expect([theirs.status, theirs.text], call.path).toEqual([404, none.text.replaceAll(strange, id)]);
    }
  });
});

describe('docker update', () => {
  test('changes limits of a container that runs, within the quota', async () => {
    await startBox('box');
    await startBox('other');
    await out('update', '-m', '128m', '--cpus', '0.5', '--restart', 'on-failure:2', 'box');
    expect(JSON.parse(await out('inspect', '--format', '{{json .HostConfig}}', 'box'))).toMatchObject({
      Memory: 128 * MIB,
      NanoCpus: 5e8,
      RestartPolicy: { Name: 'on-failure', MaximumRetryCount: 2 },
    });
    const line = await out('stats', '--no-stream', '--format', '{{.MemUsage}}', 'box');
    expect(line).toContain('/ 128MiB');
    expect(await errorOf('update', '-m', '500m', 'box')).toContain('its quota is');
    expect(await errorOf('update', '-m', '10m', 'box')).toContain('Minimum memory limit allowed is 64MB');
    expect(await errorOf('update', '--cpuset-cpus', '0', 'box')).toContain('CpusetCpus is not supported');
    expect(await out('inspect', '--format', '{{.HostConfig.Memory}}', 'box')).toBe(`${String(128 * MIB)}\n`);
  });
});

describe('lists', () => {
  test('filters, sizes and prune', async () => {
    await startBox('web', '-l', 'tier=front');
    await out('exec', 'web', BUSYBOX, 'sh', '-c', 'head -c 5000 /dev/zero > /grown');
    await out('create', '--name', 'db', '-l', 'tier=back', '-m', '64m', 'bb', BUSYBOX, 'true');
    await out('run', '--name', 'job', '-m', '64m', 'bb', BUSYBOX, 'sh', '-c', 'exit 7').catch(() => '');
    const names = async (...flags: readonly string[]): Promise<readonly string[]> =>
      (await out('ps', '-a', '--format', '{{.Names}}', ...flags))
        .trim()
        .split('\n')
        .filter((name) => name !== '');
    expect(await names()).toEqual(['job', 'db', 'web']);
    expect(await names('-f', 'exited=7')).toEqual(['job']);
    expect(await names('-f', 'name=^(web|db)$')).toEqual(['db', 'web']);
    expect(await names('-f', 'label=tier', '-f', 'status=created')).toEqual(['db']);
    expect(await names('-f', 'ancestor=bb', '-f', 'before=db')).toEqual(['web']);
    expect(await names('-f', 'network=bridge', '-n', '1')).toEqual(['job']);
    expect(await names('-f', 'health=none', '-f', 'volume=none')).toEqual([]);
    expect(await errorOf('ps', '-f', 'nonsense=1')).toContain("Invalid filter 'nonsense'");
    expect(await errorOf('ps', '-f', 'status=foo')).toContain("Invalid filter 'status=foo'");
    expect(await out('ps', '-s', '--format', '{{.Size}}')).toMatch(/^5kB \(virtual /);
    const old = await api({ path: `/v1.24/containers/json?all=1&filters=${encodeURIComponent('{"status":{"exited":true}}')}` });
    expect(JSON.parse(old.text)).toMatchObject([{ Names: ['/job'], Status: matching(/^Exited \(7\)/) }]);
    expect(await out('container', 'prune', '-f', '--filter', 'label!=tier')).toMatch(/^Deleted Containers:\n[0-9a-f]{64}\n/);
    expect(await out('container', 'prune', '-f', '--filter', 'until=1h')).toBe('Total reclaimed space: 0B\n');
    expect(await names()).toEqual(['db', 'web']);
    expect(await errorOf('container', 'prune', '-f', '--filter', 'name=x')).toContain("Invalid filter 'name'");
  });

  test('shows the id of an image whose name means another by now', async () => {
    await startBox('box');
    const id = (await out('image', 'inspect', '--format', '{{.Id}}', 'bb')).trim();
    await out('tag', 'bb', 'keep');
    await out('commit', 'box', 'bb');
    expect(JSON.parse((await api({ path: '/v1.41/containers/json' })).text)).toMatchObject([{ Image: id, ImageID: id }]);
    expect(await out('ps', '-q', '-f', 'ancestor=bb')).toBe('');
    await out('tag', 'keep', 'bb');
    expect(JSON.parse((await api({ path: '/v1.41/containers/json' })).text)).toMatchObject([{ Image: 'bb' }]);
  });
});

describe('refusals', () => {
  test('have Docker’s words', async () => {
    const id = await startBox('box');
    expect(await errorOf('rm', 'box')).toContain(
      `You cannot remove a running container ${id}. Stop the container before attempting removal or force remove`,
    );
    await out('pause', 'box');
    expect(await errorOf('exec', 'box', 'true')).toContain('Container box is paused, unpause the container before exec');
    expect(await errorOf('attach', 'box')).toContain('You cannot attach to a paused container');
    const attach = await api({ method: 'POST', path: '/v1.41/containers/box/attach?stdout=1' });
    expect(messageOf(attach)).toBe('container box is paused, unpause the container before attach');
    await out('unpause', 'box');
    await out('stop', '-t', '0', 'box');
    expect(await errorOf('kill', 'box')).toContain(`Cannot kill container: box: Container ${id} is not running`);
    expect(await errorOf('exec', 'box', 'true')).toContain(`Container ${id} is not running`);
    for (const [call, status, message] of [
      [
        { method: 'POST', path: '/v1.41/containers/box/start?checkpoint=x' },
        400,
        'checkpoint is only supported in experimental mode',
      ],
      [{ method: 'GET', path: '/v1.41/containers/box/checkpoints' }, 404, 'page not found'],
      [{ method: 'POST', path: '/v1.41/containers/box/resize?h=x&w=1' }, 400, 'strconv.Atoi: parsing "x": invalid syntax'],
      [{ method: 'GET', path: '/v1.41/containers/box/logs' }, 400, 'Bad parameters: you must choose at least one stream'],
      [
        { method: 'DELETE', path: '/v1.41/containers/box?link=1' },
        500,
        'Conflict, cannot remove the default link name of the container',
      ],
      [
        { method: 'POST', path: '/v1.41/containers/create', body: '{}', headers: { 'content-type': 'text/plain' } },
        400,
        "Content-Type specified (text/plain) must be 'application/json'",
      ],
    ] as const) {
      const answer = await api(call);
      expect([answer.status, messageOf(answer)], call.path).toEqual([status, message]);
    }
    const huge = await api({
      method: 'POST',
      path: '/v1.41/containers/create',
      headers: { 'content-type': 'application/json', 'content-length': String(2 ** 30) },
      body: '{',
    }).catch((error: unknown) => error);
    expect(huge).toMatchObject({ status: 413 });
  });
});

function matchingNumber(): unknown {
  return expect.any(Number);
}
