/**
 * Responses as an endpoint should not send them, over real sockets: the client gets a 502, the response that it is, or sees that it is cut; never a
 * part for the whole. After each of them canaries get their own answers.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { HOSTILE_RESPONSES } from '../../support/hostile-responses.ts';
import { startLanes } from '../../support/raw-lanes.ts';
import type { Lanes } from '../../support/raw-lanes.ts';
import { startRelay } from '../../support/raw-relay.ts';
import { RESPONSE_VARIANTS, createScripts, judgeResponse } from '../../support/raw-response-judge.ts';

const DUE_MS = 2_000;

const scripts = createScripts();
let lanes: Lanes;

beforeAll(async () => {
  lanes = await startLanes(scripts.behaviour);
});

afterAll(async () => {
  await lanes[Symbol.asyncDispose]();
});

describe('a hostile response', () => {
  test.concurrent.for(HOSTILE_RESPONSES.map((row) => [row.name, row] as const))('%s', async ([, row]) => {
    for (const variant of RESPONSE_VARIANTS) {
      if (variant === 'late' && row.surplus === '') continue;
      const faults = await judgeResponse(row, variant, { lanes, scripts, dueMs: DUE_MS });
      expect(faults, faults.join('\n')).toEqual([]);
    }
  });
});

test('the rows are at least 150, all different', () => {
  expect(HOSTILE_RESPONSES.length).toBeGreaterThanOrEqual(150);
  expect(new Set(HOSTILE_RESPONSES.map(({ name }) => name)).size).toBe(HOSTILE_RESPONSES.length);
  expect(new Set(HOSTILE_RESPONSES.map((row) => JSON.stringify({ ...row, name: '' }))).size).toBe(HOSTILE_RESPONSES.length);
});

/** One row of so many, or it would take too long. */
const SAMPLE_EACH = 20;

test('the rows can fail: behind a relay that judges nothing each that is bad or has a surplus is found to be wrong', async () => {
  const rows = HOSTILE_RESPONSES.filter(({ wanted, surplus }) => wanted.kind === 'bad' || surplus !== '');
  const sample = rows.filter((_row, index) => index % SAMPLE_EACH === 0);
  const clean = await Promise.all(
    sample.map(async (row) => {
      const played = createScripts();
      await using relay = await startRelay(played.behaviour);
      const faults = await judgeResponse(row, 'whole', { lanes: relay, scripts: played, dueMs: 150 });
      return faults.length === 0 ? [row.name] : [];
    }),
  );
  expect(sample.length).toBeGreaterThan(10);
  expect(clean.flat()).toEqual([]);
});
