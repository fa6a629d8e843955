/** What ACME keeps in a real store, as several nodes over one store see it. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readChanges } from '#state/change-log.ts';
import { openSqlite } from '#state/sqlite.ts';
import type { Sql } from '#state/sql.ts';
import type { AcmeStore } from '#tls/acme/acme-store.ts';
import { LIMIT_PRESETS } from '#tls/acme/rate-ledger.ts';
import type { Intent } from '#tls/acme/rate-ledger.ts';
import { Spending } from '#tls/acme/spending.ts';
import { acmeStoreOf } from '../../../src/node-acme.ts';

const CA = 'https://ca.test/dir';
const HOST = 'a.example.com';

let folder = '';
let sql: Sql;
let store: AcmeStore;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ecluse-acme-state-'));
  sql = openSqlite(join(folder, 'state.db'));
  store = acmeStoreOf(sql);
});

afterEach(async () => {
  await sql[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

describe('leases', () => {
  test('one owner at a time; its own again; and anybody’s when its time is over', async () => {
    await store.addHosts([HOST], '{}', 5);
    expect(await store.takeLease({ host: HOST, owner: 'one', untilMs: 100 }, 10)).toBe(true);
    expect(await store.takeLease({ host: HOST, owner: 'two', untilMs: 100 }, 10)).toBe(false);
    expect(await store.takeLease({ host: HOST, owner: 'one', untilMs: 150 }, 20)).toBe(true);
    expect(await store.renewLease({ host: HOST, owner: 'one', untilMs: 200 })).toBe(true);
    expect(await store.takeLease({ host: HOST, owner: 'two', untilMs: 300 }, 201)).toBe(true);
    expect(await store.renewLease({ host: HOST, owner: 'one', untilMs: 400 })).toBe(false);
  });

  test('who has lost one changes nothing, neither an order nor what came of it', async () => {
    await store.addHosts([HOST], '{}', 5);
    await store.takeLease({ host: HOST, owner: 'one', untilMs: 100 }, 10);
    await store.takeLease({ host: HOST, owner: 'two', untilMs: 300 }, 201);
    expect(await store.setOrder({ host: HOST, owner: 'one' }, { ca: CA, url: 'u', sealedKey: 'k' })).toBe(false);
    await store.releaseLease({ host: HOST, owner: 'one' }, '{"late":1}', { kind: 'acme.issued', data: {}, atMs: 1 });
    expect(await store.host(HOST)).toMatchObject({ state: '{}', orderUrl: '', leaseOwner: 'two' });
    expect(await readChanges(sql, 0, 10)).toEqual([]);
  });

  test('what came of one is in the change log, and the order that was begun stays until it is over', async () => {
    await store.addHosts([HOST], '{}', 5);
    const lease = { host: HOST, owner: 'one' };
    await store.takeLease({ ...lease, untilMs: 100 }, 10);
    expect(await store.setOrder(lease, { ca: CA, url: 'u', sealedKey: 'k' })).toBe(true);
    await store.releaseLease(lease, '{"done":1}', { kind: 'acme.failed', data: { ca: CA }, atMs: 7 });
    expect(await store.host(HOST)).toMatchObject({
      wantedMs: 5,
      state: '{"done":1}',
      orderCa: CA,
      orderUrl: 'u',
      leaseOwner: '',
    });
    expect(await readChanges(sql, 0, 10)).toMatchObject([{ kind: 'acme.failed', key: HOST, data: { ca: CA }, atMs: 7 }]);
  });

  test('a host that is known stays as it is', async () => {
    await store.addHosts([HOST], '{}', 5);
    expect(await store.setHostState(HOST, { before: '{}', after: '{"a":1}' })).toBe(true);
    expect(await store.setHostState(HOST, { before: '{}', after: '{"a":2}' })).toBe(false);
    await store.addHosts([HOST, 'b.example.com'], '{}', 9);
    expect((await store.hosts()).map(({ host, state, wantedMs }) => ({ host, state, wantedMs }))).toEqual([
      { host: HOST, state: '{"a":1}', wantedMs: 5 },
      { host: 'b.example.com', state: '{}', wantedMs: 9 },
    ]);
  });
});

describe('Spending', () => {
  const limits = { ...LIMIT_PRESETS['lets-encrypt'], 'orders-per-account': { max: 10, spanMs: 1000 } };
  const order = (host: string): Intent & { readonly kind: 'order' } => ({
    kind: 'order',
    ca: CA,
    account: 'acct',
    names: [host],
    domains: [host],
    renewal: 'none',
  });
  const node = (): Spending => new Spending(store, () => limits);

  test('three nodes at once never spend more than there is', async () => {
    const nodes = [node(), node(), node()];
    const verdicts = await Promise.all(
      Array.from(
        { length: 30 },
        async (_, index) => (await nodes[index % 3]?.spend(order(`h${String(index)}.test`), `o${String(index)}`, 50))?.kind,
      ),
    );
    expect(verdicts.filter((kind) => kind === 'go').length).toBe(10);
    // A node that starts later knows all of it.
    const late = node();
    await late.catchUp();
    expect(late.verdict(order('new.test'), 60)).toMatchObject({ kind: 'wait', limit: 'orders-per-account' });
  });

  test('what failed gives the certificate back, keeps the order, and counts against the host', async () => {
    const [one, other] = [node(), node()];
    const intent = order(HOST);
    for (let index = 0; index < 5; index += 1) {
      const id = `o${String(index)}`;
      expect((await one.spend(intent, id, index)).kind).toBe('go');
      await other.catchUp(); // It has read what is given back then.
      await one.failed({ id, intent }, HOST, index);
    }
    expect(one.verdict(intent, 10)).toMatchObject({ limit: 'failures-per-host' });
    const restarted = node();
    // An hour later the failures are over, and no certificate was counted, whoever asks.
    for (const each of [one, other, restarted]) {
      await each.catchUp();
      expect(each.verdict(intent, 3_700_000)).toEqual({ kind: 'go' });
    }
  });

  test('orders of one node at once are counted once each', async () => {
    const one = node();
    const verdicts = await Promise.all(
      Array.from(
        { length: 16 },
        async (_, index) => (await one.spend(order(`h${String(index)}.test`), `o${String(index)}`, 50)).kind,
      ),
    );
    expect(verdicts.filter((kind) => kind === 'go').length).toBe(10);
    expect((await store.spentAfter(0)).length).toBe(30);
  });

  test('a certificate counts from when it came, on every node', async () => {
    const [one, other] = [node(), node()];
    const week = 7 * 86_400_000;
    for (let index = 0; index < 5; index += 1) {
      const intent = order(HOST);
      expect((await one.spend(intent, 'o', index * 2_000)).kind).toBe('go');
      await other.catchUp();
      await one.issued({ id: 'o', intent }, 3_600_000 + index);
    }
    for (const each of [one, other]) {
      await each.catchUp();
      expect(each.verdict(order(HOST), week + 120_000)).toMatchObject({ kind: 'wait', limit: 'certificates-per-name-set' });
      expect(each.verdict(order(HOST), week + 3_600_000 + 120_000)).toEqual({ kind: 'go' });
    }
  });

  test('forgets what no limit counts, and what comes then is still seen by all', async () => {
    const [one, two] = [node(), node()];
    await one.spend(order('a.test'), 'o1', 0);
    await two.catchUp();
    await one.forget([CA], 8 * 86_400_000);
    expect(await store.spentAfter(0)).toEqual([]);
    const nowMs = 8 * 86_400_000;
    for (let index = 0; index < 10; index += 1) await one.spend(order(`h${String(index)}.test`), 'o2', nowMs);
    await two.catchUp();
    expect(two.verdict(order('b.test'), nowMs)).toMatchObject({ kind: 'wait', limit: 'orders-per-account' });
  });
});
