/** A change of routes in which something dies: store and workers are of one version afterwards, and nothing that was acknowledged is lost. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { STEPS, TransactionScene, VICTIMS } from '../../support/transaction-round.ts';

describe('a change in which something is killed leaves one version', () => {
  let scene: TransactionScene;

  beforeAll(async () => {
    scene = await TransactionScene.open();
  });

  afterAll(async () => {
    await scene[Symbol.asyncDispose]();
  });

  const blows = VICTIMS.flatMap((victim) => STEPS.map((step) => ({ victim, step })));
  test.each(blows)('$step: kill $victim', { timeout: 60_000 }, async (blow) => {
    const { violations, answers } = await scene.round(blow, 5, 5);
    expect(violations).toEqual([]);
    expect(answers).toBeGreaterThan(0);
  });
});
