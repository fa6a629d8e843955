/**
 * A few of the rounds of `npm run bench -- migration-faults`: each kind of fault once, at a step where it hurts. What must hold afterwards is in
 * `test/support/fault-checks.ts`.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Fault } from '../../support/fault-kinds.ts';
import { faultRound } from '../../support/fault-round.ts';
import type { RoundResult, Step } from '../../support/fault-round.ts';
import { openFaultScene } from '../../support/fault-scene.ts';
import type { FaultScene } from '../../support/fault-scene.ts';
import { leftoversOf } from '../../support/leftovers.ts';

const DELAY_MS = 10;
const LASTS_MS = 1_000;

const ONLY_STAYED = ['stayed'] as const;
const ONLY_MOVED = ['moved'] as const;
/** As the blow falls before or after the step is over. */
const EITHER = ['stayed', 'moved'] as const;

describe('a move during which something breaks leaves one running copy, whole, and nothing else', () => {
  let scene: FaultScene;

  beforeAll(async () => {
    scene = await openFaultScene();
  });

  afterAll(async () => {
    await scene[Symbol.asyncDispose]();
    expect(await leftoversOf(scene.dataDir)).toEqual([]);
  });

  const cases: readonly (readonly [Step, Fault, readonly RoundResult['outcome'][], number])[] = [
    ['prestart', 'kill target engine', ONLY_STAYED, DELAY_MS],
    ['prestart', 'full image folder', ONLY_STAYED, DELAY_MS],
    // What was taken to be warm is given back then, and may be room enough.
    ['freeze', 'full image folder', EITHER, DELAY_MS],
    ['restore', 'kill node', EITHER, DELAY_MS],
    ['restore', 'kill source sandbox', EITHER, DELAY_MS],
    ['probe', 'kill target sandbox', EITHER, DELAY_MS],
    ['warm', 'cancel', ONLY_STAYED, DELAY_MS],
    // A command takes longer than the rest of the move.
    ['pause', 'cancel', EITHER, DELAY_MS],
    ['pause', 'full disk', EITHER, DELAY_MS],
    ['thaw', 'kill source engine', ONLY_MOVED, DELAY_MS],
    ['suspend', 'kill source engine', ONLY_STAYED, DELAY_MS],
    ['suspend', 'full disk', ONLY_STAYED, DELAY_MS],
    // About when the program has begun to run.
    ['wake', 'kill source engine', ONLY_STAYED, 210],
    ['wake', 'full disk', ONLY_STAYED, 280],
  ];
  test.each(cases)('%s: %s', { timeout: 180_000 }, async (step, fault, outcomes, delayMs) => {
    // Until the save, which comes a second or two after a prestart begins.
    const lastsMs = step === 'prestart' && fault === 'full image folder' ? 10 * LASTS_MS : LASTS_MS;
    const result = await faultRound(scene, { step, fault, delayMs, lastsMs });
    expect(result.violations, result.said).toEqual([]);
    expect(outcomes).toContain(result.outcome);
  });
});
