/** A CA that lies, or that sends what nobody can use: what it says is wrong is told, and the certificate that there is stays. */
import { describe, expect, test } from 'vitest';
import type { Lie } from '../../support/acme-ca/faults.ts';
import { startAcmeCa } from '../../support/acme-ca/acme-ca.ts';
import { caSettings, startAcmeFleet } from '../../support/acme-fleet.ts';
import { startAcmeResponder } from '../../support/acme-responder.ts';
import { SimulatedClock } from '../../support/simulated-clock.ts';

const START_MS = Date.UTC(2028, 2, 1);
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const HOST = 'shop.test';

/** What each is told as. */
const LIES: readonly { readonly lie: Lie; readonly told: RegExp }[] = [
  { lie: { kind: 'directory-with-foreign-urls', origin: 'https://elsewhere.test' }, told: /leads to .*elsewhere\.test/ },
  { lie: { kind: 'directory-with-foreign-urls', origin: 'http://127.0.0.1:2375' }, told: /leads to .*127\.0\.0\.1:2375/ },
  { lie: { kind: 'directory-without', key: 'newNonce' }, told: /newNonce/ },
  { lie: { kind: 'directory-without', key: 'newOrder' }, told: /newOrder/ },
  { lie: { kind: 'directory-is-html' }, told: /directory/ },
  { lie: { kind: 'huge-body', path: '/acme/directory', bytes: 20_000_000 }, told: /more than \d+ KiB/ },
  { lie: { kind: 'endless-body', path: '/acme/directory' }, told: /more than \d+ KiB/ },
  { lie: { kind: 'huge-body', path: '/acme/cert', bytes: 20_000_000 }, told: /more than \d+ KiB/ },
  { lie: { kind: 'endless-body', path: '/acme/order' }, told: /more than \d+ KiB/ },
  { lie: { kind: 'certificate-of-other-key' }, told: /key/ },
  { lie: { kind: 'certificate-of-other-names', names: ['evil.test'] }, told: /other names: evil\.test/ },
  { lie: { kind: 'certificate-of-other-names', names: [HOST, 'evil.test'] }, told: /other names/ },
  { lie: { kind: 'certificate-expired' }, told: /expired/ },
  { lie: { kind: 'certificate-not-yet-valid' }, told: /not valid before/ },
  { lie: { kind: 'certificate-cut-off' }, told: /block 1 has no end/ },
];

describe('what a CA says wrong is told, what is served stays, and a certificate comes when it is over', () => {
  test.each(LIES)('$lie.kind', { timeout: 60_000 }, async ({ lie, told }) => {
    using clock = new SimulatedClock(START_MS);
    await using responder = await startAcmeResponder();
    await using ca = await startAcmeCa({ clock, resolver: responder.resolver });
    const cas = [caSettings(ca)];
    await using fleet = await startAcmeFleet({
      clock,
      nodes: 1,
      responder,
      ordersMax: 2,
      idleFactor: 1,
      hosts: () => [HOST],
      cas,
    });
    const [engine] = fleet.engines();
    await clock.advance(MINUTE_MS);
    const first = fleet.served.get(HOST);
    expect(first?.hosts).toEqual([HOST]);
    expect(ca.record.certificates.length).toBe(1);

    ca.faults.lie = lie;
    await clock.advance(2 * HOUR_MS); // A directory is kept for an hour.
    await engine?.ask([HOST], true);
    await clock.advance(10 * MINUTE_MS);
    expect(engine?.statusOf(HOST).lastError?.message).toMatch(told);
    expect(fleet.served.get(HOST)).toBe(first);

    ca.faults.lie = undefined;
    await clock.advance(3 * HOUR_MS);
    // The CA has counted what it sent as the one that replaces the first: it says so once, and is then asked for one that replaces nothing.
    for (let asked = 0; asked < 2; asked += 1) {
      await engine?.ask([HOST], true);
      await clock.advance(HOUR_MS);
    }
    expect(fleet.served.get(HOST)?.fingerprint).not.toBe(first?.fingerprint);
    expect([ca.record.noncesReused, ca.record.noncesUnknown]).toEqual([0, 0]);
  });
});
