/** The admin API on its socket, as a client and as raw HTTP see it. */
import { existsSync, statSync } from 'node:fs';
import { chmod, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { request as startRequest } from 'node:http';
import { createServer } from 'node:net';
import type { Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { AdminApi } from '#admin/api.ts';
import { createAdminClient } from '#admin/client.ts';
import { EVENT_STREAMS_MAX } from '#admin/limits.ts';
import type { MigrationProgress } from '#caas/migration/move-times.ts';
import { systemClock, waitFor } from '#clock';
import { createLog } from '#log';
import type { Change } from '#state/change-log.ts';
import { CONTAINER, HUGE, startAdmin } from '../../support/admin.ts';

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly text: string;
}

async function call(socketPath: string, method: string, path: string, body?: string): Promise<Answer> {
  return await new Promise((resolve, reject) => {
    const request = startRequest({ socketPath, method, path, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        text += chunk;
      });
      response.on('end', () => {
        resolve({ status: response.statusCode ?? 0, headers: response.headers, text });
      });
      response.on('error', reject);
    });
    request.on('error', reject);
    request.end(body);
  });
}

async function listening(server: Server, path: string): Promise<void> {
  await new Promise<void>((resolve) => {
    server.listen(path, resolve);
  });
}

describe('AdminClient', () => {
  test('sees what the node says', async () => {
    await using admin = await startAdmin();
    const client = createAdminClient(admin.socketPath);
    expect(await client.status()).toMatchObject({ configVersion: 7, hosts: [{ name: 'a' }, { name: 'b', state: 'down' }] });
    expect((await client.status()).listen.docker).toBeUndefined();
    expect(await client.containers({ all: false, tenant: undefined })).toEqual([CONTAINER]);
    expect(await client.containers({ all: true, tenant: 'acme' })).toHaveLength(2);
    expect(await client.containers({ all: true, tenant: 'other' })).toEqual([]);
    expect(await client.readings()).toMatchObject([{ name: 'web', cpuNs: 250_000_000 }]);
  });

  test('adds, changes and removes tenants', async () => {
    await using admin = await startAdmin();
    const client = createAdminClient(admin.socketPath);
    const added = await client.addTenant({ name: 'acme', quota: { containersMax: 3 }, domains: ['shop.example.com'] });
    expect(added).toMatchObject({ name: 'acme', quota: { containersMax: 3, imagesMax: 100 }, domains: ['shop.example.com'] });
    await expect(client.addTenant({ name: 'acme' })).rejects.toMatchObject({ code: 'ECLUSE_EXISTS', status: 409 });
    expect(await client.setTenant('acme', { state: 'suspended', domains: [] })).toMatchObject({
      state: 'suspended',
      domains: [],
    });
    expect(await client.tenants()).toMatchObject([{ name: 'acme', state: 'suspended', containers: 0 }]);
    expect(await client.tenantEnv('acme')).toEqual({ dockerHost: 'tcp://[::1]:2376', certPath: "/tmp/it's acme" });
    await client.removeTenant('acme');
    await expect(client.removeTenant('acme')).rejects.toMatchObject({
      code: 'ECLUSE_NOT_FOUND',
      mend: 'see: ecluse tenant ls',
      status: 404,
    });
    expect((await client.changes(0, 10)).map(({ kind }) => kind)).toEqual(['tenant.added', 'tenant.changed', 'tenant.removed']);
    expect((await client.latestChanges(2)).map(({ kind }) => kind)).toEqual(['tenant.changed', 'tenant.removed']);
  });

  test('gets sums beyond 64 bits to the last digit', async () => {
    await using admin = await startAdmin();
    const usage = await createAdminClient(admin.socketPath).usage({ tenant: 'x', sinceMs: 5, untilMs: 9, by: 'container' });
    expect(usage).toMatchObject([{ tenant: 'x', fromMs: 5, toMs: 9, memoryByteMs: HUGE, requests: 3n }]);
    expect((await call(admin.socketPath, 'GET', '/v1/usage')).text).toContain(`"memoryByteMs":${HUGE.toString()},`);
  });

  test('hears of a migration line by line, of its end, and of what went wrong', async () => {
    await using admin = await startAdmin();
    const client = createAdminClient(admin.socketPath);
    const heard: MigrationProgress[] = [];
    const report = await client.migrate('acme/web', { to: 'b', endSessions: false }, (progress) => heard.push(progress));
    expect(report).toMatchObject({ to: 'b', pausedMs: 312 });
    expect(heard.map(({ phase }) => phase)).toEqual(['copy', 'restore']);
    await expect(client.migrate('nobody/web', { to: 'b', endSessions: false }, () => undefined)).rejects.toMatchObject({
      code: 'ECLUSE_NOT_FOUND',
      status: 404,
    });
    await expect(client.migrate('acme/web', { to: 'broken', endSessions: false }, () => undefined)).rejects.toMatchObject({
      code: 'ECLUSE_MIGRATION_FAILED',
      mend: 'try again',
    });
    const raw = await call(admin.socketPath, 'POST', '/v1/containers/acme%2Fweb/migrate', '{"to":"broken"}');
    expect(
      raw.text
        .trim()
        .split('\n')
        .map((line) => /^\{"(\w+)":/.exec(line)?.[1]),
    ).toEqual(['progress', 'error']);
  });

  test('drains a host line by line, plans without it, and gives it back', async () => {
    await using admin = await startAdmin();
    const client = createAdminClient(admin.socketPath);
    const heard: string[] = [];
    const report = await client.drainHost('a', { dryRun: false, endSessions: false }, ({ text }) => heard.push(text));
    expect(report).toMatchObject({ host: 'a', state: 'draining', left: [{ container: 'acme/db', runs: true }] });
    expect(heard).toEqual(['acme/web: a to b: host a is drained']);
    expect(await client.drainHost('a', { dryRun: true, endSessions: false }, () => undefined)).toMatchObject({
      moves: [{ outcome: 'planned' }],
    });
    await expect(client.drainHost('x', { dryRun: false, endSessions: false }, () => undefined)).rejects.toMatchObject({
      status: 404,
    });
    expect(await client.undrainHost('a')).toEqual({ host: 'a', state: 'active' });
    expect(await client.rebalance({ dryRun: true }, () => undefined)).toMatchObject({
      moves: [],
      hostsWanted: 0,
    });
  });

  test('says so when the daemon dies in the middle of a migration', async () => {
    const dying: Server = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n', () => socket.destroy());
    });
    const folder = await mkdtemp(join(tmpdir(), 'ecluse-admin-'));
    const socketPath = join(folder, 's');
    await listening(dying, socketPath);
    await expect(
      createAdminClient(socketPath).migrate('x', { to: 'b', endSessions: false }, () => undefined),
    ).rejects.toMatchObject({
      code: 'ECLUSE_ADMIN_CONNECTION',
    });
    dying.close();
    await rm(folder, { recursive: true });
  });

  test('says what is wrong when nothing, or nobody of ours, answers', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'ecluse-admin-'));
    const socketPath = join(folder, 'admin.sock');
    const client = createAdminClient(socketPath);
    await expect(client.status()).rejects.toMatchObject({
      code: 'ECLUSE_NO_DAEMON',
      message: `no ecluse daemon answers at ${socketPath}`,
      mend: expect.stringContaining('ecluse up') as unknown,
    });
    const foreign = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.end('HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello');
    });
    await listening(foreign, socketPath);
    await expect(client.status()).rejects.toThrow(/what answers there is no ecluse daemon/);
    foreign.close();
    await rm(folder, { recursive: true });
  });

  test('says so when this user may not open the socket', async () => {
    await using admin = await startAdmin();
    await chmod(admin.folder, 0o711);
    process.seteuid?.(65_534);
    const refused: unknown = await createAdminClient(admin.socketPath)
      .status()
      .catch((error: unknown) => error)
      .finally(() => process.seteuid?.(0));
    expect(refused).toMatchObject({ code: 'ECLUSE_NO_PERMISSION', mend: expect.stringContaining('sudo') as unknown });
  });
});

describe('AdminApi', () => {
  test('keeps its socket from others, and removes it at the end', async () => {
    const admin = await startAdmin();
    expect(statSync(admin.socketPath).mode & 0o777).toBe(0o600);
    expect(statSync(join(admin.socketPath, '..')).mode & 0o777).toBe(0o711);
    await admin.api[Symbol.asyncDispose]();
    expect(existsSync(admin.socketPath)).toBe(false);
    await admin[Symbol.asyncDispose]();
  });

  test('refuses to start where another answers, takes over what a killed one left, and leaves foreign files alone', async () => {
    await using admin = await startAdmin();
    const deps = { control: admin.control, log: createLog('silent') };
    await expect(AdminApi.open(deps, { socketPath: admin.socketPath })).rejects.toMatchObject({ code: 'ECLUSE_ALREADY_RUNS' });
    expect(await createAdminClient(admin.socketPath).status()).toMatchObject({ configVersion: 7 });

    const stale = join(admin.folder, 'stale.sock');
    const killed = createServer();
    await listening(killed, join(admin.folder, 'other'));
    await rename(join(admin.folder, 'other'), stale); // Closing removes the file by its first name, so this one stays behind.
    await new Promise((resolve) => killed.close(resolve));
    expect(existsSync(stale)).toBe(true);
    await using api = await AdminApi.open(deps, { socketPath: stale });
    expect(api).toBeDefined();
    expect(await createAdminClient(stale).status()).toMatchObject({ configVersion: 7 });

    const file = join(admin.folder, 'notes.txt');
    await writeFile(file, 'mine');
    await expect(AdminApi.open(deps, { socketPath: file })).rejects.toThrow(/not a socket/);
    await expect(AdminApi.open(deps, { socketPath: `/${'x'.repeat(110)}` })).rejects.toThrow(/Linux takes 107/);
  });

  test.each([
    ['GET', '/', undefined, 404, 'ECLUSE_NO_ROUTE'],
    ['GET', '/v1/nothing', undefined, 404, 'ECLUSE_NO_ROUTE'],
    ['GET', '/v1/tenants/%zz/env', undefined, 404, 'ECLUSE_NO_ROUTE'],
    ['PUT', '/v1/tenants', undefined, 405, 'ECLUSE_METHOD_NOT_ALLOWED'],
    ['POST', '/v1/tenants', undefined, 400, 'no body'],
    ['POST', '/v1/tenants', '{', 400, 'not JSON'],
    ['POST', '/v1/tenants', '[]', 400, 'not valid'],
    ['POST', '/v1/tenants', '{"nam":"x"}', 400, 'name'],
    ['POST', '/v1/tenants', '{"name":"x","qouta":{}}', 400, 'did you mean quota?'],
    ['POST', '/v1/tenants', '{"name":"x","quota":{"containersMax":-1}}', 400, 'quota.containersMax'],
    ['POST', '/v1/tenants', '{"name":"x","quota":{"memoryBytesMax":1.5}}', 400, 'quota.memoryBytesMax'],
    ['POST', '/v1/containers/x/migrate', '{}', 400, 'to'],
    ['GET', '/v1/containers?every', undefined, 400, 'every'],
    ['GET', '/v1/containers?all=maybe', undefined, 400, 'all'],
    ['GET', '/v1/usage?since=yesterday', undefined, 400, 'is no time'],
    ['GET', '/v1/usage?by=day', undefined, 400, 'by'],
    ['GET', '/v1/changes?limit=0', undefined, 400, 'limit'],
    ['GET', '/v1/changes?after=-1', undefined, 400, 'after'],
    ['GET', '/v1/events?after=x', undefined, 400, 'after'],
  ] as const)('%s %s %s is refused with a reason', async (...[method, path, body, status, said]) => {
    await using admin = await startAdmin();
    const answer = await call(admin.socketPath, method, path, body);
    expect(answer.status).toBe(status);
    expect(JSON.parse(answer.text)).toMatchObject({ error: { code: expect.stringMatching(/^ECLUSE_/) as unknown } });
    expect(answer.text).toContain(said);
  });

  test('refuses a body over the limit', async () => {
    await using admin = await startAdmin();
    const answer = await call(admin.socketPath, 'POST', '/v1/tenants', `{"name":"${'x'.repeat(1024 * 1024)}"}`);
    expect(answer).toMatchObject({ status: 413, headers: { connection: 'close' } });
  });

  test('an unexpected error is a 500 without a stack', async () => {
    await using admin = await startAdmin({
      status: async () => {
        throw new TypeError('x is not\n a function');
      },
    });
    const { status, text } = await call(admin.socketPath, 'GET', '/v1/status');
    expect(status).toBe(500);
    expect(JSON.parse(text)).toEqual({
      error: { code: 'ECLUSE_INTERNAL', message: 'unexpected error: x is not a function', mend: 'see the log of the daemon' },
    });
  });

  test('takes times as milliseconds and as ISO 8601', async () => {
    await using admin = await startAdmin();
    const { text } = await call(admin.socketPath, 'GET', '/v1/usage?since=2026-01-01T00:00:00Z&until=1893456000000');
    expect(JSON.parse(text)).toMatchObject({ usage: [{ fromMs: Date.UTC(2026, 0, 1), toMs: 1_893_456_000_000 }] });
  });
});

describe('GET /v1/events', () => {
  test('sends changes as they happen, and resumes without a gap', async () => {
    await using admin = await startAdmin();
    const client = createAdminClient(admin.socketPath);
    await client.addTenant({ name: 'before' });
    const heard: Change[] = [];
    const following = (async () => {
      for await (const change of client.follow(0)) {
        heard.push(change);
        if (heard.length === 3) break;
      }
    })();
    await client.addTenant({ name: 'during' });
    await client.removeTenant('before');
    await following;
    expect(heard.map(({ kind, key }) => `${kind} ${key}`)).toEqual([
      'tenant.added before',
      'tenant.added during',
      'tenant.removed before',
    ]);
    for await (const change of client.follow(heard[1]?.seq)) {
      expect(change).toEqual(heard[2]);
      break;
    }
  });

  test('begins with what happens from now on, and ends with the API', async () => {
    await using admin = await startAdmin();
    const client = createAdminClient(admin.socketPath);
    for (const name of ['a', 'b', 'c', 'd', 'e']) await client.addTenant({ name });
    const heard: string[] = [];
    let isOpen = false;
    const following = (async () => {
      await new Promise<void>((resolve, reject) => {
        const request = startRequest({ socketPath: admin.socketPath, path: '/v1/events', agent: false }, (response) => {
          expect(response.headers['content-type']).toBe('text/event-stream');
          response.setEncoding('utf8');
          response.on('data', (text: string) => {
            isOpen = true;
            heard.push(text);
          });
          response.on('end', resolve);
          response.on('error', reject);
        });
        request.on('error', reject);
        request.end();
      });
    })();
    await waitFor(systemClock, () => (isOpen ? true : undefined), { limitMs: 5000, stepMs: 5 });
    await client.addTenant({ name: 'f' });
    await waitFor(systemClock, () => (heard.join('').includes('id: ') ? true : undefined), { limitMs: 5000, stepMs: 5 });
    await admin.api[Symbol.asyncDispose]();
    await following;
    expect(heard.join('')).toMatch(/^: after 5\n\nid: 6\nevent: tenant\.added\ndata: \{"seq":6,.*"key":"f".*\}\n\n$/);
  });

  test('Last-Event-ID resumes, and the number of streams is bounded', async () => {
    await using admin = await startAdmin();
    const client = createAdminClient(admin.socketPath);
    await client.addTenant({ name: 'a' });
    await client.addTenant({ name: 'b' });
    const requests = Array.from({ length: EVENT_STREAMS_MAX }, () =>
      startRequest({ socketPath: admin.socketPath, path: '/v1/events', headers: { 'last-event-id': '1' }, agent: false }),
    );
    const firsts = await Promise.all(
      requests.map(
        async (request) =>
          await new Promise<string>((resolve) => {
            request.on('error', () => undefined);
            request.end();
            request.on('response', (response) => {
              let text = '';
              response.on('error', () => undefined);
              response.on('data', (chunk: Buffer) => {
                text += chunk.toString();
                if (text.includes('data: ')) resolve(text);
              });
            });
          }),
      ),
    );
    expect(new Set(firsts.map((text) => /id: \d+/.exec(text)?.[0]))).toEqual(new Set(['id: 2']));
    expect(await call(admin.socketPath, 'GET', '/v1/events')).toMatchObject({ status: 429 });
    for (const request of requests) request.destroy();
    const again = await waitFor(
      systemClock,
      async () => {
        try {
          for await (const change of client.follow(1)) return change;
        } catch {
          // Still 429: the daemon has not seen yet that the others left.
        }
        return undefined;
      },
      { limitMs: 5000, stepMs: 50 },
    );
    expect(again).toMatchObject({ key: 'b' });
  });
});
