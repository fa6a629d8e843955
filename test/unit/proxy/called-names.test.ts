import { expect, test } from 'vitest';
import type { Clock } from '#clock';
import { CalledNames } from '#proxy/called-names.ts';

test('a name is told once in a while, and so many in a second', () => {
  let nowMs = 0;
  const clock: Clock = { nowMs: () => nowMs, monotonicMs: () => nowMs, sleep: async () => await Promise.resolve() };
  const told: string[] = [];
  const names = new CalledNames(clock, (some) => told.push(...some));
  for (let turn = 0; turn < 10; turn += 1) names.called('a.test');
  names.called('');
  names.called('x'.repeat(300));
  expect(told).toEqual(['a.test']);
  nowMs = 31_000;
  names.called('a.test');
  expect(told).toEqual(['a.test', 'a.test']);
  for (let index = 0; index < 1000; index += 1) names.called(`h${String(index)}.test`);
  expect(told.length).toBe(51);
  nowMs += 1000;
  names.called('later.test');
  expect(told.at(-1)).toBe('later.test');
});
