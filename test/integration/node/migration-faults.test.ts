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

  const cases: readonly (readonly [Step, Fault, readonly RoundResult['outcome'][]])[] = [
    ['prestart', 'kill target engine', ONLY_STAYED],
    ['prestart', 'full image folder', ONLY_STAYED],
    // What was taken to be warm is given back then, and may be room enough.
    ['freeze', 'full image folder', EITHER],
    ['restore', 'kill node', EITHER],
    ['restore', 'kill source sandbox', EITHER],
    ['probe', 'kill target sandbox', EITHER],
    ['warm', 'cancel', ONLY_STAYED],
    // A command takes longer than the rest of the move.
    ['pause', 'cancel', EITHER],
    ['pause', 'full disk', EITHER],
    ['thaw', 'kill source engine', ONLY_MOVED],
    ['suspend', 'kill source engine', ONLY_STAYED],
    ['suspend', 'full disk', ONLY_STAYED],
  ];
  test.each(cases)('%s: %s', { timeout: 180_000 }, async (step, fault, outcomes) => {
    // Until the save, which comes a second or two after a prestart begins.
    const lastsMs = step === 'prestart' && fault === 'full image folder' ? 10 * LASTS_MS : LASTS_MS;
    const result = await faultRound(scene, { step, fault, delayMs: DELAY_MS, lastsMs });
    expect(result.violations, result.said).toEqual([]);
    expect(outcomes).toContain(result.outcome);
  });
});
