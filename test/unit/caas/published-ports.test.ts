/** Who gets which port: on a real store, with real ports of this machine. */
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { Server } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { systemClock } from '#clock';
import { createLog } from '#log';
import { PublishedPorts, sharedAddress } from '#caas/ports/published-ports.ts';
import type { PublishedPortsDeps } from '#caas/ports/published-ports.ts';
import { exposedKeys, parsePorts } from '#caas/spec/spec-ports.ts';
import type { PortsOfSpec } from '#caas/spec/spec-ports.ts';
import { insertContainer } from '#state/containers.ts';
import type { ContainerRow } from '#state/containers.ts';
import { openSqlite } from '#state/sqlite.ts';
import type { Sql } from '#state/sql.ts';
import { addTenant } from '#state/tenants.ts';
import { rowOf, tenantNamed } from '../../support/caas-data.ts';
import { freePort } from '../../support/node.ts';

let folder: string;
let sql: Sql;

beforeEach(async () => {
  folder = await mkdtemp('/tmp/ecl-ports-');
  sql = openSqlite(join(folder, 'db'));
  await addTenant(sql, tenantNamed('acme'));
  await addTenant(sql, tenantNamed('globex', { address: '127.0.0.3' }));
});

afterEach(async () => {
  await sql[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

function portsWith(change: Partial<PublishedPortsDeps> = {}): PublishedPorts {
  const docker = { host: '127.0.0.1', port: 2376 };
  return new PublishedPorts({
    log: createLog('silent'),
    clock: systemClock,
    sql,
    docker,
    reserved: [docker],
    publish: async () => undefined,
    ...change,
  });
}

async function container(name: string, tenant = 'acme'): Promise<ContainerRow> {
  const row = rowOf({ id: Buffer.from(name.padEnd(32, '_')).toString('hex'), name, tenant, state: 'created', engineId: '' });
  expect((await insertContainer(sql, row)).kind).toBe('done');
  return row;
}

function published(...bindings: readonly { readonly HostPort?: string; readonly HostIp?: string }[]): PortsOfSpec {
  const parsed = parsePorts({ PortBindings: { '80/tcp': bindings } });
  if (parsed.kind === 'refused') throw new Error(parsed.reason);
  return { ...parsed, exposedPorts: exposedKeys(parsed.ports) };
}

async function occupy(port: number, host = '127.0.0.1'): Promise<Server> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, resolve);
  });
  return server;
}

async function closed(server: Server): Promise<void> {
  await new Promise((resolve) => server.close(resolve));
}

describe('take()', () => {
  test('gives a port to one of many who ask at the same time', async () => {
    const ports = portsWith();
    const spec = published({ HostPort: String(await freePort()) });
    const rows = await Promise.all(Array.from({ length: 8 }, async (_, index) => await container(`c${String(index)}`)));
    const outcomes = await Promise.allSettled(rows.map(async (row) => await ports.take(row, spec)));
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    for (const outcome of outcomes) {
      const reason = outcome.status === 'rejected' ? String(outcome.reason) : 'port is already allocated';
      expect(reason).toContain('port is already allocated');
    }
  });

  test('takes all or nothing, and what it has already it keeps', async () => {
    const ports = portsWith();
    const [one, two] = [await freePort(), await freePort()];
    const row = await container('web');
    expect(await ports.take(await container('other'), published({ HostPort: String(two) }))).toBe('taken');
    const both = published({ HostPort: String(one) }, { HostPort: String(two) });
    await expect(ports.take(row, both)).rejects.toMatchObject({ status: 500 });
    expect(await ports.listOf(row.id)).toEqual([]);
    const free = published({}, { HostPort: String(one) });
    expect(await ports.take(row, free)).toBe('taken');
    const held = await ports.listOf(row.id);
    expect(held.map(({ address }) => address)).toEqual(['127.0.0.1', '127.0.0.1']);
    expect(await ports.take(row, free)).toBe('held');
    expect(await ports.listOf(row.id)).toEqual(held);
    expect(await ports.release(row.id)).toBe(true);
    expect(await ports.release(row.id)).toBe(false);
    expect(await ports.take(row, published())).toBe('none');
  });

  test('gives each tenant its own address, and one address to nobody twice', async () => {
    const ports = portsWith();
    const spec = published({ HostPort: String(await freePort()) });
    expect(await ports.take(await container('a'), spec)).toBe('taken');
    expect(await ports.take(await container('b', 'globex'), spec)).toBe('taken');
    // Every address of the node would take both away.
    const everywhere = portsWith({ docker: { host: '0.0.0.0', port: 2376 } });
    await expect(everywhere.take(await container('c'), spec)).rejects.toThrow('port is already allocated');
  });

  test('skips what other programs have, and says so of a port that was named', async () => {
    const ports = portsWith();
    const port = await freePort();
    const other = await occupy(port);
    const range = published({ HostPort: `${String(port)}-${String(port + 50)}` });
    await expect(ports.take(await container('a'), published({ HostPort: String(port) }))).rejects.toThrow(
      `Error starting userland proxy: listen tcp4 0.0.0.0:${String(port)}: bind: address already in use`,
    );
    const row = await container('b');
    expect(await ports.take(row, range)).toBe('taken');
    expect((await ports.listOf(row.id))[0]?.port).toBeGreaterThan(port);
    await closed(other);
  });

  test('waits for a port that the workers are about to close', async () => {
    const port = await freePort();
    const worker = await occupy(port);
    const ports = portsWith({ publish: async () => await closed(worker) });
    expect(await ports.take(await container('a'), published({ HostPort: String(port) }))).toBe('taken');
  });

  test('waits a moment for a container that has just ended', async () => {
    const ports = portsWith();
    const spec = published({ HostPort: String(await freePort()) });
    const [first, second] = [await container('a'), await container('b')];
    expect(await ports.take(first, spec)).toBe('taken');
    const taking = ports.take(second, spec);
    await ports.release(first.id);
    expect(await taking).toBe('taken');
  });

  test('refuses the ports of the node and of the endpoint on every address', async () => {
    const ports = portsWith({ reserved: [{ host: '0.0.0.0', port: 443 }] });
    for (const [tenant, port] of [
      ['acme', 443],
      ['globex', 443],
      ['globex', 2376],
    ] as const) {
      const row = await container(`${tenant}${String(port)}`, tenant);
      await expect(ports.take(row, published({ HostPort: String(port) }))).rejects.toThrow(
        `Bind for 0.0.0.0:${String(port)} failed: port is already allocated`,
      );
    }
  });

  test('knows which addresses a tenant may name', async () => {
    const ports = portsWith();
    const at = async (name: string, tenant: string, HostIp: string): Promise<string> =>
      await ports.take(await container(name, tenant), published({ HostIp }));
    for (const [index, address] of ['', '0.0.0.0', '::', '127.0.0.1'].entries())
      expect(await at(`a${String(index)}`, 'acme', address)).toBe('taken');
    expect(await at('b', 'globex', '127.0.0.3')).toBe('taken');
    await expect(at('c', 'globex', '127.0.0.4')).rejects.toThrow('127.0.0.4 is not an address of yours');
    const remote = portsWith({ docker: { host: '0.0.0.0', port: 2376 } });
    await expect(remote.take(await container('d'), published({ HostIp: '127.0.0.1' }))).rejects.toThrow(
      'could be reached on the node alone',
    );
  });

  test('keeps to the quota', async () => {
    await addTenant(sql, tenantNamed('small', { quota: { ...tenantNamed('x').quota, portsMax: 2 } }));
    const ports = portsWith();
    expect(await ports.take(await container('a', 'small'), published({}, {}))).toBe('taken');
    await expect(ports.take(await container('b', 'small'), published({}))).rejects.toThrow('its quota is 2');
  });
});

test('sharedAddress() is what the Docker endpoint’s host stands for', () => {
  const shared = (host: string): string => sharedAddress({ host, port: 2376 });
  expect(['127.0.0.1', 'localhost', '0.0.0.0', '::', '203.0.113.7', 'node.example.com'].map(shared)).toEqual([
    '127.0.0.1',
    '127.0.0.1',
    '0.0.0.0',
    '0.0.0.0',
    '203.0.113.7',
    '0.0.0.0',
  ]);
  expect(sharedAddress(undefined)).toBe('0.0.0.0');
});
