/**
 * Requests that are to make two readers disagree, over real sockets: refused with nothing at the endpoint, or passed on as the one request that
 * they are. After each of them canaries get their own answers, on the same connection where it stays and on a fresh one.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { HOSTILE_REQUESTS } from '../../support/hostile-requests.ts';
import { startLanes } from '../../support/raw-lanes.ts';
import type { Lanes } from '../../support/raw-lanes.ts';
import { startRelay } from '../../support/raw-relay.ts';
import { VARIANTS, judgeRequest } from '../../support/raw-request-judge.ts';

const DUE_MS = 2_000;

let lanes: Lanes;

beforeAll(async () => {
  lanes = await startLanes();
});

afterAll(async () => {
  await lanes[Symbol.asyncDispose]();
});

describe('a hostile request', () => {
  test.concurrent.for(HOSTILE_REQUESTS.map((row) => [row.name, row] as const))('%s', async ([, row]) => {
    for (const variant of VARIANTS) {
      const faults = await judgeRequest(row, variant, { lanes, dueMs: DUE_MS });
      expect(faults, faults.join('\n')).toEqual([]);
    }
  });
});

test('the rows are at least 300, all different', () => {
  expect(HOSTILE_REQUESTS.length).toBeGreaterThanOrEqual(300);
  expect(new Set(HOSTILE_REQUESTS.map(({ bytes, secure, ends }) => `${String(secure)}${String(ends)}${bytes}`)).size).toBe(
    HOSTILE_REQUESTS.length,
  );
});

/** Otherwise canaries would show nothing: they have to come over the connection that the case had. */
test('connections to endpoints were kept: no more of them than requests that had to be given up', () => {
  const late = HOSTILE_REQUESTS.filter((row) => row.late).length * VARIANTS.length;
  const connections = lanes.all.reduce((sum, { a, b }) => sum + a.connections() + b.connections(), 0);
  expect(connections).toBeLessThanOrEqual(late + 2 * lanes.all.length);
});

/** One row of so many that are to be refused, or it would take too long. */
const SAMPLE_EACH = 40;

test('the rows can fail: behind a relay that judges nothing each is found to be wrong', async () => {
  const rows = HOSTILE_REQUESTS.filter(({ refusal, secure }) => refusal.length > 0 && !secure);
  const sample = rows.filter((_row, index) => index % SAMPLE_EACH === 0);
  const clean = await Promise.all(
    sample.map(async (row) => {
      await using relay = await startRelay();
      const faults = await judgeRequest(row, 'whole', { lanes: relay, dueMs: 150 });
      return faults.length === 0 ? [row.name] : [];
    }),
  );
  expect(sample.length).toBeGreaterThan(10);
  expect(clean.flat()).toEqual([]);
});
