import { expect, test } from 'vitest';
import { createRequestId, writeRequestId } from '#proxy/request-id.ts';

const COUNT_AT = 12;
const BITS_24 = 2 ** 24;

test('ids are 24 hexadecimal digits: those of the worker, and a count that grows by one', () => {
  const one = createRequestId();
  const other = createRequestId();
  writeRequestId(one);
  writeRequestId(other);
  expect(one.toString('latin1')).toMatch(/^[\da-f]{24}$/);
  expect(other.toString('latin1', 0, COUNT_AT)).toBe(one.toString('latin1', 0, COUNT_AT));
  expect(countOf(other)).toBe(countOf(one) + 1);
});

test('ids are unique, also where the count goes past 24 bits', { timeout: 20_000 }, () => {
  const id = createRequestId();
  writeRequestId(id);
  const first = countOf(id);
  for (let step = first + 1; step < BITS_24 - 500; step += 1) writeRequestId(id);
  const seen = new Set<string>();
  for (let step = 0; step < 1_000; step += 1) {
    writeRequestId(id);
    seen.add(id.toString('latin1'));
  }
  expect(seen.size).toBe(1_000);
  expect([...seen].toSorted()).toEqual([...seen]);
  expect(countOf(id)).toBe(BITS_24 + 499);
});

function countOf(id: Buffer): number {
  return Number.parseInt(id.toString('latin1', COUNT_AT), 16);
}
