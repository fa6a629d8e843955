import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { PRE_COPY_LIMITS, decidePreCopy } from '#isolation/pages/pre-copy.ts';
import type { PreCopyRound } from '#isolation/pages/pre-copy.ts';

const MIB = 1024 * 1024;

function round(newBytes: number, tookMs: number): PreCopyRound {
  return { newBytes, sentBytes: newBytes, tookMs };
}

test('rounds go on while the rest gets smaller, and stop when it is small', () => {
  const rounds = [round(512 * MIB, 1000), round(50 * MIB, 120), round(6 * MIB, 70)];
  for (const count of [0, 1, 2, 3]) expect(decidePreCopy(rounds.slice(0, count), PRE_COPY_LIMITS)).toEqual({ kind: 'again' });
  expect(decidePreCopy([...rounds, round(MIB, 60)], PRE_COPY_LIMITS)).toEqual({ kind: 'stop', why: 'small' });
});

test('a first round that was small is followed by one that tells what changes', () => {
  expect(decidePreCopy([round(MIB, 5)], PRE_COPY_LIMITS)).toEqual({ kind: 'again' });
});

test('memory that changes as fast as it is sent is not chased', () => {
  expect(decidePreCopy([round(512 * MIB, 1000), round(512 * MIB, 1000)], PRE_COPY_LIMITS)).toEqual({
    kind: 'stop',
    why: 'dirty-faster-than-sent',
  });
});

test('a rest that stays as it is ends the rounds', () => {
  const rounds = [round(512 * MIB, 1000), round(20 * MIB, 100), round(19 * MIB, 100)];
  expect(decidePreCopy(rounds, PRE_COPY_LIMITS)).toEqual({ kind: 'stop', why: 'not-shrinking' });
});

test('the time of all rounds together is limited', () => {
  expect(decidePreCopy([round(512 * MIB, 60_000)], PRE_COPY_LIMITS)).toEqual({ kind: 'stop', why: 'time' });
});

const anyRound = fc.record({
  newBytes: fc.nat(2 ** 40),
  sentBytes: fc.nat(2 ** 40),
  tookMs: fc.double({ min: 0, max: 1e6, noNaN: true }),
});

test('whatever the rounds are like, they end within the limits, and going on always pays', () => {
  fc.assert(
    fc.property(fc.array(anyRound, { minLength: 12, maxLength: 12 }), fc.nat(12), (stream, roundsMax) => {
      const limits = { ...PRE_COPY_LIMITS, roundsMax };
      const rounds: PreCopyRound[] = [];
      while (decidePreCopy(rounds, limits).kind === 'again') {
        const next = stream[rounds.length];
        if (next === undefined) throw new Error('more rounds than the limit');
        rounds.push(next);
        expect(rounds.length).toBeLessThanOrEqual(roundsMax);
        const spentBeforeMs = rounds.slice(0, -1).reduce((sum, { tookMs }) => sum + tookMs, 0);
        expect(spentBeforeMs).toBeLessThan(limits.timeMaxMs);
      }
      // All but the last two of the rounds after the first were each smaller than the one before: else they had ended it.
      for (let index = 2; index < rounds.length - 1; index += 1) {
        expect(rounds[index]?.newBytes).toBeLessThanOrEqual((rounds[index - 1]?.newBytes ?? 0) * limits.shrinkTo);
      }
    }),
    { numRuns: 40 },
  );
});

test('a smaller rest never makes a decision to stop into one to go on for its size', () => {
  fc.assert(
    fc.property(fc.array(anyRound, { minLength: 2, maxLength: 7 }), (rounds) => {
      const last = rounds.at(-1);
      if (last === undefined) return;
      const small = [...rounds.slice(0, -1), { ...last, newBytes: Math.min(last.newBytes, PRE_COPY_LIMITS.smallBytes) }];
      expect(decidePreCopy(small, PRE_COPY_LIMITS)).toEqual({ kind: 'stop', why: 'small' });
    }),
    { numRuns: 40 },
  );
});
