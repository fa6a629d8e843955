/** What the admin API answers, judged by its own OpenAPI document; ETags, and conditions that name them. */
import { request as startRequest } from 'node:http';
import { describe, expect, test } from 'vitest';
import { createAdminClient } from '#admin/client.ts';
import { entityTagOf } from '#admin/entity-tag.ts';
import { ADMIN_ROUTES } from '#admin/routes.ts';
import { AdminOpenApi, mapping } from '../../support/admin-openapi.ts';
import { meterOnce, startAdmin } from '../../support/admin.ts';

interface Answer {
  readonly status: number;
  readonly etag: string | undefined;
  readonly text: string;
}

interface Asked {
  readonly method?: string;
  /** After `/v1/`. */
  readonly path: string;
  readonly body?: object;
  readonly headers?: Readonly<Record<string, string>>;
}

async function ask(socketPath: string, { method = 'GET', path, body, headers = {} }: Asked): Promise<Answer> {
  return await new Promise((resolve, reject) => {
    const request = startRequest({ socketPath, method, path: `/v1/${path}`, headers, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        text += chunk;
      });
      response.on('end', () => {
        resolve({ status: response.statusCode ?? 0, etag: response.headers.etag, text });
      });
      response.on('error', reject);
    });
    request.on('error', reject);
    request.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

/** One request for every route but those of the edge, which a node has that serves. */
const REQUESTS: Readonly<Record<string, Omit<Asked, 'method'>>> = {
  'GET status': { path: 'status' },
  'POST upgrade': { path: 'upgrade', body: {} },
  'POST reload': { path: 'reload' },
  'GET hosts': { path: 'hosts' },
  'GET hosts/{name}': { path: 'hosts/a' },
  'POST hosts/{name}/drain': { path: 'hosts/a/drain', body: { dryRun: false } },
  'POST hosts/{name}/undrain': { path: 'hosts/a/undrain' },
  'POST rebalance': { path: 'rebalance', body: { dryRun: true } },
  'GET readings': { path: 'readings' },
  'GET usage': { path: 'usage?by=tenant' },
  'GET changes': { path: 'changes?latest=1' },
  'GET tenants': { path: 'tenants' },
  'POST tenants': { path: 'tenants', body: { name: 'other', quota: { containersMax: 3 } } },
  'GET tenants/{name}': { path: 'tenants/acme' },
  'PATCH tenants/{name}': { path: 'tenants/acme', body: { domains: ['shop.test'] } },
  'DELETE tenants/{name}': { path: 'tenants/other' },
  'GET tenants/{name}/env': { path: 'tenants/acme/env' },
  'GET containers': { path: 'containers?all=1' },
  'GET containers/{ref}': { path: 'containers/acme%2Fweb' },
  'GET containers/{ref}/placement': { path: 'containers/acme%2Fweb/placement' },
  'POST containers/{ref}/migrate': { path: 'containers/acme%2Fweb/migrate', body: { to: 'b' } },
  'DELETE containers/{ref}/migrate': { path: 'containers/acme%2Fweb/migrate' },
  'POST containers/{ref}/suspend': { path: 'containers/acme%2Fweb/suspend' },
  'POST containers/{ref}/wake': { path: 'containers/acme%2Fweb/wake' },
  'POST containers/{ref}/clone': { path: 'containers/acme%2Fweb/clone', body: { count: 2 } },
  'POST containers/{ref}/snapshot': { path: 'containers/acme%2Fweb/snapshot' },
  'GET snapshots': { path: 'snapshots' },
  'GET snapshots/{ref}': { path: 'snapshots/0f3a' },
  'POST snapshots/{ref}/restore': { path: 'snapshots/0f3a/restore', body: {} },
  'DELETE snapshots/{ref}': { path: 'snapshots/0f3a' },
  'GET ledger/keys': { path: 'ledger/keys' },
  'POST ledger/verify': { path: 'ledger/verify?from=2026-11-01' },
  'GET ledger/export': { path: 'ledger/export?tenant=acme' },
  'GET ledger/rows': { path: 'ledger/rows?tenant=acme&after=0&until=9' },
  'POST ledger/end': { path: 'ledger/end', body: { tenant: 'acme', rows: 1, heads: 1, sha256: 'a'.repeat(64) } },
  'POST ledger/corrections': {
    path: 'ledger/corrections',
    body: { container: 'acme/web', reason: 'counted twice', fromMs: 5000, toMs: 6000, cpuNs: -5 },
  },
  'POST prices': {
    path: 'prices?note=first',
    body: { currency: 'EUR', from: '1970-01-01T00:00:00Z', prices: { vcpuHour: '12.5', memoryGibHour: 3 } },
  },
  'GET prices': { path: 'prices' },
  'GET prices/{version}': { path: 'prices/1' },
  'GET invoices/{tenant}': { path: 'invoices/acme?month=1970-01' },
  'POST invoices': { path: 'invoices', body: { month: '1970-01' } },
  'GET invoices': { path: 'invoices?month=1970-01' },
  'GET openapi.json': { path: 'openapi.json' },
};

const OF_THE_EDGE = /^(?:config|tx|explain|services|certs|cert-renewals)/;

describe('what the API answers', () => {
  test('is what its document says, for every route', async () => {
    await using admin = await startAdmin();
    await createAdminClient(admin.socketPath).addTenant({ name: 'acme' });
    await meterOnce(admin.sql);
    const judge = new AdminOpenApi(mapping(JSON.parse((await ask(admin.socketPath, { path: 'openapi.json' })).text)));
    const asked: string[] = [];
    for (const [name, request] of Object.entries(REQUESTS)) {
      const [method = '', path = ''] = name.split(' ');
      const answer = await ask(admin.socketPath, { method, ...request });
      expect(answer.status, `${name}: ${answer.text}`).toBeLessThan(300);
      expect(judge.faultsOf({ method, path: `/v1/${path}` }, answer), name).toEqual([]);
      asked.push(name);
    }
    const left = ADMIN_ROUTES.filter(({ path, answer }) => answer.kind !== 'events' && !OF_THE_EDGE.test(path));
    expect(asked.toSorted()).toEqual(left.map(({ method, path }) => `${method} ${path}`).toSorted());
  });

  test('is what its document says where something is wrong', async () => {
    await using admin = await startAdmin();
    const judge = new AdminOpenApi(mapping(JSON.parse((await ask(admin.socketPath, { path: 'openapi.json' })).text)));
    const wrong: readonly (readonly [status: number, method: string, path: string, request: Omit<Asked, 'method'>])[] = [
      [404, 'GET', 'tenants/{name}', { path: 'tenants/nobody' }],
      [400, 'POST', 'tenants', { path: 'tenants', body: { name: 'x', quota: 3 } }],
      [400, 'GET', 'usage', { path: 'usage?by=day' }],
      [400, 'GET', 'status', { path: 'status?x=1' }],
      [412, 'POST', 'upgrade', { path: 'upgrade', body: {}, headers: { 'if-match': '"x"' } }],
      [404, 'PUT', 'config', { path: 'config', body: {} }],
      [400, 'POST', 'prices', { path: 'prices', body: { currency: 'EUR', from: '2026-01-01', prices: {} } }],
      [404, 'GET', 'prices/{version}', { path: 'prices/7' }],
      [404, 'GET', 'invoices/{tenant}', { path: 'invoices/nobody?month=2026-11' }],
      [404, 'POST', 'invoices', { path: 'invoices', body: { month: '2026-10', tenant: 'nobody' } }],
      [409, 'POST', 'invoices', { path: 'invoices', body: { month: '2999-01' } }],
      [404, 'GET', 'ledger/export', { path: 'ledger/export?tenant=nobody' }],
      [400, 'POST', 'ledger/verify', { path: 'ledger/verify?from=yesterday' }],
    ];
    for (const [status, method, path, request] of wrong) {
      const answer = await ask(admin.socketPath, { method, ...request });
      expect(answer.status, `${method} ${path}: ${answer.text}`).toBe(status);
      expect(judge.faultsOf({ method, path: `/v1/${path}` }, answer)).toEqual([]);
    }
  });

  test('the judge finds what is not in the document', async () => {
    await using admin = await startAdmin();
    const judge = new AdminOpenApi(mapping(JSON.parse((await ask(admin.socketPath, { path: 'openapi.json' })).text)));
    const { text } = await ask(admin.socketPath, { path: 'tenants' });
    const more = JSON.stringify({ ...mapping(JSON.parse(text)), more: 1 });
    expect(judge.faultsOf({ method: 'GET', path: '/v1/tenants' }, { status: 200, text: more })).toHaveLength(1);
    expect(
      judge.faultsOf({ method: 'GET', path: '/v1/tenants' }, { status: 200, text: '{"tenants":[{}]}' }).length,
    ).toBeGreaterThan(3);
  });
});

describe('ETag', () => {
  test('of every GET names what it answers, and who has that gets 304 without a body', async () => {
    await using admin = await startAdmin();
    await createAdminClient(admin.socketPath).addTenant({ name: 'acme' });
    for (const path of [
      'status',
      'tenants',
      'tenants/acme',
      'hosts/a',
      'containers',
      'containers/acme%2Fweb/placement',
      'openapi.json',
    ]) {
      const first = await ask(admin.socketPath, { path });
      expect(first.etag, path).toMatch(/^"[\w-]{22}"$/);
      const tag = first.etag ?? '';
      for (const known of [tag, `"other", W/${tag}`, '*']) {
        const again = await ask(admin.socketPath, { path, headers: { 'if-none-match': known } });
        expect(again, `${path} ${known}`).toEqual({ status: 304, etag: tag, text: '' });
      }
      for (const unknown of ['"other"', 'no tag', '']) {
        const again = await ask(admin.socketPath, { path, headers: { 'if-none-match': unknown } });
        expect(again, `${path} ${unknown}`).toEqual(first);
      }
    }
  });

  test('changes with what it names, and not with what it does not', async () => {
    await using admin = await startAdmin();
    const client = createAdminClient(admin.socketPath);
    await client.addTenant({ name: 'acme' });
    await client.addTenant({ name: 'other' });
    const before = await ask(admin.socketPath, { path: 'tenants/acme' });
    await client.setTenant('other', { domains: ['x.test'] });
    expect((await ask(admin.socketPath, { path: 'tenants/acme' })).etag).toBe(before.etag);
    const changed = await ask(admin.socketPath, { method: 'PATCH', path: 'tenants/acme', body: { domains: ['x.test'] } });
    const after = await ask(admin.socketPath, { path: 'tenants/acme' });
    expect(after.etag).not.toBe(before.etag);
    expect(changed.etag).toBe(after.etag);
    expect(entityTagOf(await client.tenant('acme'))).toBe(after.etag);
  });
});

describe('If-Match', () => {
  test('lets a change of a tenant be made for what it is, and for nothing else', async () => {
    await using admin = await startAdmin();
    const client = createAdminClient(admin.socketPath);
    await client.addTenant({ name: 'acme' });
    const { etag = '' } = await ask(admin.socketPath, { path: 'tenants/acme' });
    await client.setTenant('acme', { state: 'suspended' }, ['"other"', etag]);
    const refused = await ask(admin.socketPath, {
      method: 'PATCH',
      path: 'tenants/acme',
      body: { state: 'active' },
      headers: { 'if-match': etag },
    });
    expect(refused.status).toBe(412);
    expect(JSON.parse(refused.text)).toMatchObject({
      error: { code: 'ECLUSE_PRECONDITION_FAILED', mend: expect.stringContaining('get it again') as unknown },
    });
    expect(await client.tenant('acme')).toMatchObject({ state: 'suspended' });
    await expect(client.removeTenant('acme', [etag])).rejects.toMatchObject({ status: 412 });
    await expect(client.setTenant('acme', {}, [`W/${entityTagOf(await client.tenant('acme'))}`])).rejects.toMatchObject({
      status: 412,
    });
    const kinds = (await client.changes(0, 10)).map(({ kind }) => kind);
    expect(kinds).toEqual(['tenant.added', 'tenant.changed']);
    await client.removeTenant('acme', [entityTagOf(await client.tenant('acme'))]);
    await expect(client.removeTenant('acme', ['"gone"'])).rejects.toMatchObject({ status: 404 });
  });

  test.each([
    ['abc', 400],
    ['"a" "b"', 400],
    ['"a', 400],
    ['', 400],
    [Array.from({ length: 40 }, () => '"a"').join(','), 400],
    ['*', 200],
    [' , "a"  ,, "b" ', 412],
  ])('%s is answered with %i', async (header, status) => {
    await using admin = await startAdmin();
    await createAdminClient(admin.socketPath).addTenant({ name: 'acme' });
    const asked = { method: 'PATCH', path: 'tenants/acme', body: {}, headers: { 'if-match': header } };
    expect((await ask(admin.socketPath, asked)).status).toBe(status);
  });
});
