/** What the nodes think that a CA has counted, and what it has: neither more, which keeps hosts waiting, nor less, which the CA refuses. */
import { describe, expect, test } from 'vitest';
import type { Outage } from '../../support/acme-ca/faults.ts';
import { startAcmeCa } from '../../support/acme-ca/acme-ca.ts';
import type { AcmeCa } from '../../support/acme-ca/acme-ca.ts';
import { caSettings, startAcmeFleet } from '../../support/acme-fleet.ts';
import { startAcmeResponder } from '../../support/acme-responder.ts';
import { SimulatedClock } from '../../support/simulated-clock.ts';

const START_MS = Date.UTC(2028, 2, 1);
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

interface Scene extends AsyncDisposable {
  readonly ca: AcmeCa;
  readonly clock: SimulatedClock;
  /** From now on these are to have a certificate. */
  readonly want: (count: number) => void;
  readonly issued: () => number;
}

/** Hosts of one domain, of which a week has fifty. One has its certificate when it begins. */
async function openScene({ nodes, pollSeconds }: { readonly nodes: number; readonly pollSeconds: number }): Promise<Scene> {
  await using stack = new AsyncDisposableStack();
  const clock = stack.use(new SimulatedClock(START_MS));
  const responder = stack.use(await startAcmeResponder());
  const ca = stack.use(await startAcmeCa({ clock, resolver: responder.resolver, pollSeconds }));
  let names = ['h0.many.test'];
  const fleet = stack.use(
    await startAcmeFleet({ clock, nodes, responder, ordersMax: 16, idleFactor: 1, hosts: () => names, cas: [caSettings(ca)] }),
  );
  await clock.advance(10 * MINUTE_MS);
  expect(ca.record.certificates.length).toBe(1);
  const open = stack.move();
  return {
    ca,
    clock,
    want: (count) => {
      names = Array.from({ length: count }, (_, index) => `h${String(index)}.many.test`);
      for (const engine of fleet.engines()) engine.nudge();
    },
    issued: () => ca.record.certificates.length,
    [Symbol.asyncDispose]: async () => {
      await open.disposeAsync();
    },
  };
}

function outage({ clock }: Scene, afterMs: number, hours: number): Outage {
  const fromMs = clock.nowMs() + afterMs;
  return { fromMs, untilMs: fromMs + hours * HOUR_MS, kind: 'cut' };
}

describe('what is spent', () => {
  test.each([1, 3])(
    'of %i nodes that order many at once is as much as there is, and not more',
    { timeout: 300_000 },
    async (nodes) => {
      await using scene = await openScene({ nodes, pollSeconds: 1 });
      scene.want(105);
      await scene.clock.advance(2 * HOUR_MS);
      expect(scene.issued()).toBe(50);
      expect(scene.ca.record.overLimit.domainCertificates).toBe(0);
    },
  );

  test('by orders that an outage let nobody make is given back', { timeout: 300_000 }, async () => {
    await using scene = await openScene({ nodes: 3, pollSeconds: 1 });
    scene.ca.faults.outages = [outage(scene, 0, 48)];
    scene.want(45);
    await scene.clock.advance(52 * HOUR_MS);
    expect(scene.issued()).toBe(45);
  });

  test('by failed validations is given back to every node', { timeout: 300_000 }, async () => {
    await using scene = await openScene({ nodes: 3, pollSeconds: 1 });
    scene.ca.faults.challengesFail = true;
    scene.want(45);
    await scene.clock.advance(8 * HOUR_MS);
    expect(scene.ca.record.failedValidations).toBeGreaterThan(50);
    scene.ca.faults.challengesFail = false;
    await scene.clock.advance(10 * HOUR_MS);
    expect(scene.issued()).toBe(45);
    expect(scene.ca.record.overLimit.failedValidations).toBe(0);
  });

  test(
    'by orders that an outage interrupts is theirs when it is over, and counts from when the CA counts it',
    { timeout: 300_000 },
    async () => {
      await using scene = await openScene({ nodes: 1, pollSeconds: 60 });
      scene.want(110);
      await scene.clock.advance(MINUTE_MS / 2);
      const begun = scene.ca.record.orders.length;
      expect(begun).toBeGreaterThan(scene.issued());
      scene.ca.faults.outages = [outage(scene, 0, 30)];
      await scene.clock.advance(34 * HOUR_MS);
      expect(scene.issued()).toBe(50);
      await scene.clock.advance(9 * DAY_MS);
      expect(scene.issued()).toBeGreaterThanOrEqual(99);
      expect(scene.ca.record.overLimit.domainCertificates).toBe(0);
    },
  );
});
