/**
 * A quarter of a year of ACME in simulated time: three nodes over one store, and a CA that has bad days. `npm run bench -- acme-quarter` does the same with
 * more hosts, and with nodes that look around every minute.
 */
import { expect, test } from 'vitest';
import { liveAcmeQuarter } from '../../support/acme-quarter.ts';

test('nothing expires, no limit is broken, no nonce is used twice, nothing is ordered twice', { timeout: 900_000 }, async () => {
  const hosts = 36;
  const quarter = await liveAcmeQuarter({ ofOneDomain: 24, others: 12, nodes: 3, ordersAtATime: 4, idleFactor: 30, seed: 7 });
  // It was as bad as it should be.
  expect(quarter.madeUp.badNonces).toBeGreaterThan(50);
  expect(quarter.madeUp.serverErrors).toBeGreaterThan(20);
  expect(quarter.madeUp.tooMany).toBeGreaterThan(5);
  expect(quarter.madeUp.unavailable).toBeGreaterThan(3);
  expect(quarter.failedValidations).toBeGreaterThan(5);

  expect(quarter.expired).toEqual([]);
  expect(quarter.overLimit).toEqual({ newOrders: 0, domainCertificates: 0, sameNames: 0, failedValidations: 0, newAccounts: 0 });
  expect({ reused: quarter.noncesReused, unknown: quarter.noncesUnknown }).toEqual({ reused: 0, unknown: 0 });
  expect(quarter.duplicates).toEqual([]);
  expect(quarter.accounts).toBe(1);
  // Each is renewed every four weeks, and a third once more; a renewal says what it replaces.
  expect(quarter.certificates).toBeGreaterThanOrEqual(hosts * 3);
  expect(quarter.renewalsWithoutReplaces).toEqual([]);
});
