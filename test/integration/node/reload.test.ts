/** `ecluse reload` and SIGHUP on a whole node: what is applied, what is named, what is refused, and what clients notice of it. */
import { appendFile, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { once } from 'node:events';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import * as z from 'zod';
import { createAdminClient } from '#admin/client.ts';
import { entityTagOf } from '#admin/entity-tag.ts';
import type { ReloadReport } from '#admin/node-control.ts';
import { ADMIN_ROUTES } from '#admin/routes.ts';
import { adminSocketOf } from '#node-paths';
import { AdminOpenApi, mapping } from '../../support/admin-openapi.ts';
import { writeBusyboxImage } from '../../support/busybox-image.ts';
import { eventually } from '../../support/edge.ts';
import { ask } from '../../support/http-client.ts';
import { startKeptLoad } from '../../support/kept-load.ts';
import { expectNothingLeft } from '../../support/leftovers.ts';
import { freePorts, freshDataDir, run, startNode } from '../../support/node.ts';
import type { NodePorts, TestNode } from '../../support/node.ts';
import { bodyOf, startUpstream } from '../../support/upstream.ts';
import type { HttpUpstream } from '../../support/upstream.ts';

const containersSchema = z.array(z.object({ routes: z.array(z.string()) }));

describe('a node that reads its configuration again', () => {
  let dataDir: string;
  let ports: NodePorts;
  let node: TestNode;
  let app: HttpUpstream;

  const base = { hosts: [{ name: 'a', engine: 'managed' }], domain: 'localhost', workers: 2 };
  const write = async (keys: Readonly<Record<string, unknown>>): Promise<void> => {
    await writeFile(join(dataDir, 'ecluse.yaml'), JSON.stringify({ ...base, ...keys }));
  };
  const reload = async (): Promise<ReloadReport> => await createAdminClient(adminSocketOf(dataDir)).reload();
  const post = async (bytes: number): Promise<number> =>
    (await ask({ port: ports.http, method: 'POST', body: 'x'.repeat(bytes) })).status;
  const limited = (size: string): Readonly<Record<string, unknown>> => ({ edge: { limits: { requestBodySize: size } } });

  beforeAll(async () => {
    dataDir = await freshDataDir();
    ports = await freePorts();
    node = await startNode({ dataDir, ports });
    app = await startUpstream((request, response) => {
      void bodyOf(request).then(() => response.end('ok'));
    });
    const client = createAdminClient(adminSocketOf(dataDir));
    const service = { endpoints: [`http://127.0.0.1:${String(app.port)}`] };
    const document = { services: { app: service }, routes: [{ match: { host: 'app.test' }, service: 'app' }] };
    await client.edge.apply(document, { ifVersion: undefined, dryRun: false, note: '' });
  });

  afterAll(async () => {
    await node.stop();
    await expectNothingLeft(dataDir);
    await app[Symbol.asyncDispose]();
  });

  test('applies what can change, under requests of kept connections, and fails none of them', async () => {
    const load = startKeptLoad(ports.http, { host: 'app.test', connections: 8 });
    for (let round = 0; round < 10; round += 1) {
      const isOdd = round % 2 === 1;
      await write({
        edge: {
          limits: { headSize: isOdd ? '32KiB' : '24KiB', requestBodySize: isOdd ? '1MiB' : '2KiB' },
          timeouts: { idle: `${String(40 + round)}s` },
        },
        trustedProxies: isOdd ? [] : ['192.0.2.0/24'],
        accessLog: isOdd ? 'logs/odd.jsonl' : 'logs/even.jsonl',
        logLevel: isOdd ? 'info' : 'warn',
      });
      const report = await reload();
      const keys = [
        'accessLog',
        'edge.limits.headSize',
        'edge.limits.requestBodySize',
        'edge.timeouts.idle',
        'logLevel',
        'trustedProxies',
      ];
      expect(report.applied.toSorted()).toEqual(keys);
      expect(report).toMatchObject({ needsRestart: [], file: join(dataDir, 'ecluse.yaml') });
      expect(report.workers).toHaveLength(2);
      for (let turn = 0; turn < 4; turn += 1) expect(await post(4096)).toBe(isOdd ? 200 : 413);
    }
    expect(await load.stop()).toEqual([]);
    expect(new Set(load.statuses)).toEqual(new Set([200]));
    expect(load.statuses.length).toBeGreaterThan(100);
    await eventually(async () => ((await readFile(join(dataDir, 'logs', 'odd.jsonl'), 'utf8')) === '' ? undefined : true));
  });

  test('names what cannot change, key by key, each time, and says that nothing changed where that is so', async () => {
    await write({ workers: 3, migration: { concurrency: 5 }, edge: { timeouts: { tlsHandshake: '7s', firstByte: '50s' } } });
    await reload(); // What the test before left.
    await write({ workers: 3, migration: { concurrency: 5 }, edge: { timeouts: { tlsHandshake: '7s', firstByte: '51s' } } });
    const first = await node.ecluse('reload', '--json');
    expect(first).toMatchObject({ exitCode: 0, stderr: '' });
    const fixed = ['edge.timeouts.tlsHandshake', 'migration.concurrency', 'workers'];
    const report = mapping(JSON.parse(first.stdout));
    expect(report).toMatchObject({ applied: ['edge.timeouts.firstByte'] });
    expect(z.array(z.string()).parse(report['needsRestart']).toSorted()).toEqual(fixed);
    const second = await node.ecluse('reload');
    expect(second).toMatchObject({ exitCode: 0, stderr: '' });
    for (const key of fixed) expect(second.stdout).toMatch(new RegExp(`^${key} +not applied: it needs a restart`, 'm'));
    await write({ edge: { timeouts: { firstByte: '51s' } } });
    expect((await node.ecluse('reload')).stdout).toBe(`${join(dataDir, 'ecluse.yaml')} was read again: nothing changed\n`);
  });

  test('proxies are trusted with their PROXY headers, or neither: one key waits for the other', async () => {
    await write({ trustedProxies: ['192.0.2.1'], proxyProtocol: true, edge: { timeouts: { firstByte: '51s' } } });
    expect(await reload()).toMatchObject({ applied: [], needsRestart: ['trustedProxies', 'proxyProtocol'] });
    await write({ edge: { timeouts: { firstByte: '51s' } } });
    expect(await reload()).toMatchObject({ applied: [], needsRestart: [] });
  });

  test('refuses a file that is not in order as a whole, with the path, and changes nothing', async () => {
    await write(limited('2KiB'));
    await reload();
    await writeFile(
      join(dataDir, 'ecluse.yaml'),
      'hosts: [{ name: a, engine: managed }]\nworkers: 2\nedge:\n  limits: { requestBodySize: 4KiB, lineSize: 1 }\n',
    );
    const refused = await node.ecluse('reload', '--json');
    expect(refused).toMatchObject({ exitCode: 1, stdout: '' });
    expect(refused.stderr).toMatch(/ecluse\.yaml:4: edge\.limits\.lineSize: /);
    expect(await post(3000)).toBe(413);
    await write({ ...limited('1MiB'), accessLog: '/proc/nowhere/access.jsonl' });
    const unwritable = await node.ecluse('reload');
    expect(unwritable.exitCode).toBe(1);
    expect(unwritable.stderr).toMatch(/accessLog: \/proc\/nowhere\/access\.jsonl cannot be written: .*; name another file/);
    expect(await post(3000)).toBe(413);
  });

  test('SIGHUP does the same, and says in the log what became of it', async () => {
    await write(limited('1MiB'));
    await reload();
    await write({ ...limited('2KiB'), logLevel: 'info', workers: 3 });
    node.process.kill('SIGHUP');
    await eventually(async () => ((await post(3000)) === 413 ? true : undefined));
    await eventually(() =>
      /"needsRestart":\["workers"\],"msg":"keys changed that need a restart/.test(node.output()) ? true : undefined,
    );
    await appendFile(join(dataDir, 'ecluse.yaml'), 'nonsense');
    node.process.kill('SIGHUP');
    await eventually(() =>
      node.output().includes('the configuration was not taken, and nothing was changed') ? true : undefined,
    );
    expect(await post(3000)).toBe(413);
    for (let times = 0; times < 200; times += 1) node.process.kill('SIGHUP');
    await write(limited('1MiB'));
    await reload();
    expect(await post(3000)).toBe(200);
    expect((await node.ecluse('events', '--last', '5')).stdout).toContain('node.reloaded');
  });

  test('a domain changes the names of containers, their routes, and the certificate of the Docker endpoint', async () => {
    await write({});
    await reload();
    const client = createAdminClient(adminSocketOf(dataDir));
    await client.addTenant({ name: 'acme' });
    await client.tenantEnv('acme');
    const rootFs = join(dataDir, 'busybox.tar');
    await writeBusyboxImage(rootFs);
    const serve = 'mkdir /tmp/www; echo served > /tmp/www/index.html; exec busybox httpd -f -p 8080 -h /tmp/www';
    const flags = ['--detach', '--name', 'web', '--label', 'ecluse.http.port=8080'];
    expect(await node.docker('acme', ['import', rootFs, 'app'])).toMatchObject({ exitCode: 0 });
    expect(await node.docker('acme', ['run', ...flags, 'app', '/bin/busybox', 'sh', '-c', serve])).toMatchObject({ exitCode: 0 });
    const get = async (domain: string): Promise<number> => (await ask({ port: ports.http, host: `web-acme.${domain}` })).status;
    await eventually(async () => ((await get('localhost')) === 200 ? true : undefined), 30_000);

    await write({ domain: 'apps.test' });
    expect(await reload()).toMatchObject({ applied: ['domain'], needsRestart: [] });
    expect([await get('localhost'), await get('apps.test')]).toEqual([404, 200]);
    const listed = containersSchema.parse(JSON.parse((await node.ecluse('ps', '--json')).stdout));
    expect(listed.flatMap(({ routes }) => routes)).toEqual([`https://web-acme.apps.test:${String(ports.https)}/`]);
    const served = await run('curl', [
      '-s',
      '--cacert',
      node.caFile,
      '--resolve',
      `web-acme.apps.test:${String(ports.https)}:127.0.0.1`,
      `https://web-acme.apps.test:${String(ports.https)}/`,
    ]);
    expect(served).toMatchObject({ exitCode: 0, stdout: 'served\n' });
    const socket = connect({ host: '127.0.0.1', port: ports.docker, rejectUnauthorized: false });
    await once(socket, 'secureConnect');
    expect(socket.getPeerCertificate().subjectaltname).toContain('DNS:docker.apps.test');
    socket.destroy();
    expect(await node.docker('acme', ['ps', '--quiet'])).toMatchObject({ exitCode: 0, stderr: '' });
  });

  test('of changes of a tenant that were made for the same ETag one is made, and none undoes another', async () => {
    const client = createAdminClient(adminSocketOf(dataDir));
    await client.addTenant({ name: 'busy' });
    for (let round = 0; round < 5; round += 1) {
      const tag = entityTagOf(await client.tenant('busy'));
      const outcomes = await Promise.allSettled(
        Array.from(
          { length: 20 },
          async (_, index) => await client.setTenant('busy', { quota: { containersMax: 100 * (round + 2) + index } }, [tag]),
        ),
      );
      expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
      const reasons = outcomes.flatMap((outcome): unknown[] => (outcome.status === 'rejected' ? [outcome.reason] : []));
      const changed = { code: 'ECLUSE_PRECONDITION_FAILED', status: 412 };
      expect(reasons).toMatchObject(reasons.map(() => changed));
    }
    const keys = ['containersMax', 'imagesMax', 'networksMax', 'volumesMax', 'portsMax'] as const;
    await Promise.all(keys.map(async (key, index) => await client.setTenant('busy', { quota: { [key]: 50 + index } })));
    expect((await client.tenant('busy')).quota).toMatchObject(Object.fromEntries(keys.map((key, index) => [key, 50 + index])));
    const host = entityTagOf(await client.host('a'));
    const order = { dryRun: false, endSessions: false };
    await expect(client.drainHost('a', { ...order, ifMatch: ['"other"'] }, () => undefined)).rejects.toMatchObject({
      status: 412,
    });
    expect(entityTagOf(await client.host('a'))).toBe(host);
    const placement = entityTagOf(await client.explainContainer('acme/web'));
    const move = async (tag: string): Promise<unknown> =>
      await client
        .migrate('acme/web', { to: 'a', endSessions: false, ifMatch: [tag] }, () => undefined)
        .catch((error: unknown) => error);
    expect(await move('"other"')).toMatchObject({ code: 'ECLUSE_PRECONDITION_FAILED', status: 412 });
    expect(await move(placement)).toMatchObject({ code: 'ECLUSE_MIGRATION_REFUSED' }); // It is there already.
  });

  test('what it answers to every question is what its OpenAPI document says', async () => {
    const socket = adminSocketOf(dataDir);
    const get = async (path: string): Promise<{ readonly status: number; readonly text: string }> => {
      const answer = await run('curl', ['-s', '-w', '\n%{http_code}', '--unix-socket', socket, `http://node/v1/${path}`]);
      const lines = answer.stdout.split('\n');
      return { status: Number(lines.pop()), text: lines.join('\n') };
    };
    const judge = new AdminOpenApi(mapping(JSON.parse((await get('openapi.json')).text)));
    const queries: Readonly<Record<string, string>> = {
      'config/diff': '?since=0',
      explain: '?host=app.test&target=/x',
      containers: '?all=1',
      changes: '?latest=1&limit=200',
      'tenants/{name}': 'acme',
    };
    // They are about what this node has not: snapshots, prices, a ledger. `admin/answers.test.ts` asks them.
    const needMore = new Set(['snapshots/{ref}', 'prices/{version}', 'invoices/{tenant}', 'ledger/export', 'ledger/rows']);
    for (const { method, path, answer } of ADMIN_ROUTES) {
      if (method !== 'GET' || answer.kind !== 'json' || needMore.has(path)) continue;
      const filled = path
        .replace('tenants/{name}', 'tenants/acme')
        .replace('hosts/{name}', 'hosts/a')
        .replace('{ref}', 'acme%2Fweb');
      const got = await get(`${filled}${queries[path]?.startsWith('?') === true ? queries[path] : ''}`);
      expect(got.status, `${path}: ${got.text}`).toBe(200);
      expect(judge.faultsOf({ method, path: `/v1/${path}` }, got), path).toEqual([]);
    }
  });
});
