import { expect, test } from 'vitest';
import { PackShelf } from '#tls/pack-shelf.ts';

const SLAB_BYTES = 8 * 1024 * 1024;

test('what is taken is nobody else’s, and lies side by side', () => {
  const shelf = new PackShelf();
  const [one, other] = [shelf.take(10), shelf.take(SLAB_BYTES - 10)];
  expect([one.length, other.length]).toEqual([10, SLAB_BYTES - 10]);
  expect(other.buffer).toBe(one.buffer);
  expect(other.byteOffset).toBe(one.byteOffset + 10);
});

test('what does not fit begins another slab, however large it is', () => {
  const shelf = new PackShelf();
  const first = shelf.take(1);
  const large = shelf.take(SLAB_BYTES + 1);
  const next = shelf.take(1);
  expect(large.length).toBe(SLAB_BYTES + 1);
  expect(new Set([first.buffer, large.buffer, next.buffer]).size).toBe(3);
});
