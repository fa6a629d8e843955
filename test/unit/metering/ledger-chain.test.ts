/** The chain's own rules: the text that is hashed stays as it is, and pieces of an interval add up to it. */
import { createHash } from 'node:crypto';
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { HOUR_MS, hourOf, piecesOf } from '#metering/hour-pieces.ts';
import { CHAIN_START, extendChain, NO_TOTALS, QUANTITY_NAMES, rowHash } from '#metering/ledger-chain.ts';
import type { ChainRow } from '#metering/ledger-chain.ts';

const ROW: ChainRow = {
  format: 2,
  tenant: 'acme',
  number: 3,
  kind: 'correction',
  reason: 'said "twice"',
  container: 'c1',
  incarnation: 2,
  seq: -1,
  host: 'a',
  fromMs: 1000,
  toMs: 2000,
  cpuNs: -5n,
  memoryByteMs: 36_893_488_147_419_103_233n,
  requests: 1n,
  ingressBytes: 2n,
  egressBytes: 3n,
  heldMs: 4n,
  snapshotByteMs: 5n,
  diskByteMs: 6n,
  streamMs: 7n,
};

test('the hash is that of the text that the documents tell, byte by byte, also of rows from before', () => {
  const before = 'ab'.repeat(32);
  const hashOf = (text: string): string => createHash('sha256').update(text, 'utf8').digest('hex');
  const fields = `"${before}","acme","3","correction","said \\"twice\\"","c1","2","-1","a","1000","2000","-5","36893488147419103233","1","2","3","4","5"`;
  expect(rowHash(ROW, before)).toBe(hashOf(`["ecluse-ledger-row-2",${fields},"6","7"]`));
  expect(rowHash({ ...ROW, format: 1 }, before)).toBe(hashOf(`["ecluse-ledger-row-1",${fields}]`));
});

test('a chain numbers its rows and adds them up', () => {
  const first = extendChain(CHAIN_START, ROW);
  const second = extendChain(first.at, ROW);
  expect([first.row.number, second.row.number]).toEqual([1, 2]);
  expect(second.at.hash).toBe(rowHash(second.row, first.at.hash));
  expect(second.at.totals).toEqual({
    ...NO_TOTALS,
    rows: 2n,
    cpuNs: -10n,
    memoryByteMs: 2n * ROW.memoryByteMs,
    requests: 2n,
    ingressBytes: 4n,
    egressBytes: 6n,
    heldMs: 8n,
    snapshotByteMs: 10n,
    diskByteMs: 12n,
    streamMs: 14n,
  });
});

test('pieces of an interval lie within an hour each, follow each other, and add up to the whole', () => {
  const quantity = fc.bigInt({ min: -(2n ** 70n), max: 2n ** 70n });
  const whole = fc.record({
    cpuNs: quantity,
    memoryByteMs: quantity,
    requests: quantity,
    ingressBytes: quantity,
    egressBytes: quantity,
    heldMs: quantity,
    snapshotByteMs: quantity,
    diskByteMs: quantity,
    streamMs: quantity,
  });
  fc.assert(
    fc.property(
      fc.nat(10 * HOUR_MS),
      fc.nat(10 * HOUR_MS),
      whole,
      fc.nat(24 * HOUR_MS),
      (fromMs, spanMs, quantities, usedFromMs) => {
        const pieces = piecesOf(fromMs, fromMs + spanMs, quantities, usedFromMs);
        expect(pieces.at(-1)?.toMs).toBe(fromMs + spanMs);
        // Nothing is of an hour that was over when something was first used.
        const before = pieces.slice(0, -1).filter(({ toMs }) => toMs <= usedFromMs);
        expect(before.flatMap((piece) => QUANTITY_NAMES.filter((name) => piece[name] !== 0n))).toEqual([]);
        for (const [index, piece] of pieces.entries()) {
          expect(piece.fromMs).toBe(index === 0 ? fromMs : pieces[index - 1]?.toMs);
          expect(piece.toMs).toBeLessThanOrEqual(hourOf(piece.fromMs) + HOUR_MS);
        }
        for (const name of QUANTITY_NAMES) expect(pieces.reduce((sum, piece) => sum + piece[name], 0n)).toBe(quantities[name]);
      },
    ),
  );
});
