import { expect, test } from 'vitest';
import type { TrafficDelta } from '#proxy/protocol.ts';
import { TrafficReports } from '#proxy/traffic-reports.ts';

function delta(requests: number, endpointId = 'c1', tenant = 'acme'): TrafficDelta {
  return {
    tenant,
    endpointId,
    requests,
    heldMs: 1,
    downstreamInBytes: 2,
    downstreamOutBytes: 3,
    upstreamInBytes: 4,
    upstreamOutBytes: 5,
  };
}

test('one report is under way; what moves meanwhile is in the next, added up', () => {
  const reports = new TrafficReports();
  expect(reports.next(0)).toBeUndefined();
  const unanswered = { ...delta(2), endpointId: undefined };
  reports.add([delta(1), unanswered]);
  const first = reports.next(0);
  expect(first).toMatchObject({ number: 1, deltas: [delta(1), unanswered] });
  reports.add([delta(3), delta(7, 'c1', 'other')]);
  reports.add([delta(4)]);
  expect(reports.next(1000)).toBeUndefined();
  reports.kept(1);
  const second = reports.next(1000);
  expect(second).toMatchObject({
    epoch: first?.epoch,
    number: 2,
    deltas: [
      { requests: 7, upstreamOutBytes: 10 },
      { requests: 7, tenant: 'other' },
    ],
  });
  expect(new TrafficReports().next(0)?.epoch).not.toBe(first?.epoch);
});

test('one that is not kept is said again, the same: after a while, and at once to another primary', () => {
  const reports = new TrafficReports();
  reports.add([delta(1)]);
  const first = reports.next(0);
  reports.add([delta(2)]);
  expect(reports.next(4_999)).toBeUndefined();
  expect(reports.next(5_000)).toEqual(first);
  expect(reports.next(5_001)).toBeUndefined();
  reports.forgotten();
  expect(reports.next(5_002)).toEqual(first);
  reports.kept(7); // Of nobody.
  expect(reports.next(5_003)).toBeUndefined();
});

test('is settled when the last of it is kept', async () => {
  const reports = new TrafficReports();
  await reports.settled();
  reports.add([delta(1)]);
  let isSettled = false;
  const settled = reports.settled().then(() => (isSettled = true));
  reports.next(0);
  reports.add([delta(2)]);
  reports.kept(1);
  await Promise.resolve();
  expect(isSettled).toBe(false);
  reports.next(0);
  reports.kept(2);
  await settled;
  expect(isSettled).toBe(true);
});
