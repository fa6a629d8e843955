/** The program that tenants verify exports with: whose signature it takes, how it reads, and what it ends with. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import * as z from 'zod';
import { totalsOf } from '#metering/ledger-export.ts';
import { signEnd, signHead } from '#metering/ledger-head.ts';
import type { LedgerKey } from '#metering/ledger-head.ts';
import { exportText, fillLedger, newLedgerKey, openLedgerStore } from '../../support/ledger-store.ts';
import type { LedgerStore } from '../../support/ledger-store.ts';
import { VERIFIER, verifyPieces, verifyText } from '../../support/verify-ledger.ts';

let folder: string;
let store: LedgerStore;
let whole: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ecluse-verifier-'));
  store = await openLedgerStore(folder);
  await fillLedger(store);
  whole = await exportText(store, 'acme');
}, 30_000);

afterAll(async () => {
  await store[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

const startSchema = z.object({ export: z.looseObject({}) });
const headSchema = z.object({
  head: z.looseObject({
    tenant: z.string(),
    day: z.string(),
    sequence: z.int(),
    number: z.int(),
    hash: z.string(),
    signedMs: z.int(),
    totals: z.record(z.string(), z.string()),
  }),
});

function named({ id, publicKey }: Pick<LedgerKey, 'id' | 'publicKey'>): object {
  return { id, publicKey };
}

interface Signers {
  /** What the first line says. */
  readonly key: LedgerKey;
  readonly earlier: readonly LedgerKey[];
  readonly open: LedgerKey;
  readonly end: LedgerKey;
}

/** An export with other keys, its open head and its end signed anew. */
function resigned(text: string, { key, earlier, open, end }: Signers): string {
  const [first = '', ...others] = text.trimEnd().split('\n').slice(0, -1);
  const start = startSchema.parse(JSON.parse(first)).export;
  const lines = [JSON.stringify({ export: { ...start, key: named(key), earlierKeys: earlier.map(named) } })];
  for (const line of others) {
    if (!line.includes('"day":"open"')) {
      lines.push(line);
      continue;
    }
    const { head } = headSchema.parse(JSON.parse(line));
    const signed = signHead({ ...head, totals: totalsOf(head.totals) }, open);
    lines.push(JSON.stringify({ head: { ...head, key: signed.key, signature: signed.signature } }));
  }
  const body = `${lines.join('\n')}\n`;
  const count = (kind: string): number => others.filter((line) => line.startsWith(`{"${kind}"`)).length;
  const sha256 = createHash('sha256').update(body).digest('hex');
  const made = { tenant: 'acme', rows: count('row'), heads: count('head'), sha256 };
  return `${body}${JSON.stringify({ end: signEnd(made, end) })}\n`;
}

describe('the key that a tenant was told', () => {
  test('signs an export whose earlier days another one signed', async () => {
    const next = newLedgerKey();
    const text = resigned(whole, { key: next, earlier: [store.key], open: next, end: next });
    expect(await verifyText(text, next.id)).toMatchObject({ fits: true });
    expect((await verifyText(text, store.key.id)).why).toMatch(/^the export is of another key/);
  });

  test('signs the end: a key that the file itself names as an earlier one does not', async () => {
    // Another history altogether, by who has no more of the node than its public key.
    await using forger = await openLedgerStore(folder);
    await fillLedger(forger);
    const forged = { key: store.key, earlier: [forger.key], open: forger.key, end: forger.key };
    const why = `it is signed by another key (${forger.key.id.slice(0, 16)})`;
    const text = await exportText(forger, 'acme');
    for (const key of [store.key.id, undefined])
      expect(await verifyText(resigned(text, forged), key)).toEqual({ fits: false, why: `head of open: ${why}` });
    // Of whole days, without a head of the moment.
    const days = await exportText(forger, 'acme', undefined, '2026-11-02');
    for (const key of [store.key.id, undefined])
      expect(await verifyText(resigned(days, forged), key)).toEqual({ fits: false, why: `the end: ${why}` });
  }, 30_000);

  test('signs the head of the moment', async () => {
    const other = newLedgerKey();
    const text = resigned(whole, { key: store.key, earlier: [other], open: other, end: store.key });
    expect((await verifyText(text, store.key.id)).why).toBe(
      `head of open: it is signed by another key (${other.id.slice(0, 16)})`,
    );
    const own = resigned(whole, { key: store.key, earlier: [other], open: store.key, end: store.key });
    expect(await verifyText(own, store.key.id)).toMatchObject({ fits: true });
  });
});

describe('an export is read line by line', () => {
  /** Cut at these places. */
  function cut(text: string, places: readonly number[]): readonly Buffer[] {
    const bytes = Buffer.from(text, 'utf8');
    const at = [0, ...places.map((place) => place % bytes.length).toSorted((one, other) => one - other), bytes.length];
    return at.slice(1).map((to, index) => bytes.subarray(at[index], to));
  }

  test('wherever its bytes are cut, it says the same', async () => {
    // Names can have letters of several bytes.
    const spoilt = whole.replace('"reason":"counted twice"', '"reason":"comptée écluse 水門"');
    expect(spoilt).not.toBe(whole);
    const texts = [whole, spoilt, whole.slice(0, -1), `${whole}{}\n`, ''];
    const verdicts = new Map(await Promise.all(texts.map(async (text) => [text, await verifyText(text)] as const)));
    expect([...verdicts.values()].map(({ why }) => why)).toEqual([
      undefined,
      expect.stringMatching(/^row \d+: its hash is not that of its fields/),
      'the export is truncated: its last line has no end',
      'there are lines after the end',
      'the export is truncated: its end is missing',
    ]);
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...verdicts.keys()), fc.array(fc.nat(), { maxLength: 60 }), async (text, places) => {
        const pieces = text === '' ? [] : cut(text, places);
        expect(await verifyPieces(pieces)).toEqual(verdicts.get(text));
      }),
      { numRuns: 60 },
    );
    expect(await verifyPieces(Array.from(Buffer.from(whole), (byte) => Buffer.from([byte])))).toMatchObject({ fits: true });
  }, 30_000);

  test('only as far as it fits, and no line further than it may be long', async () => {
    let given = 0;
    function* endless(line: string): Generator<Buffer> {
      yield Buffer.from(`${whole.slice(0, whole.indexOf('\n'))}\n`);
      for (;;) {
        given += 1;
        yield Buffer.from(line);
      }
    }
    expect(await verifyPieces(endless('{}\n'))).toEqual({ fits: false, why: 'a line is neither a row nor a head' });
    expect(given).toBe(1);
    await expect(verifyPieces(endless('x'.repeat(1024)))).rejects.toThrow('it has a line of more than 1048576 bytes');
    expect(given).toBe(1 + 1025);
  });

  test('what cannot be read is one line, with a code of its own', async () => {
    const run = (...args: readonly string[]): readonly [number | null, string, string] => {
      const { status, stdout, stderr } = spawnSync(process.execPath, [VERIFIER, ...args], { encoding: 'utf8' });
      return [status, stdout, stderr];
    };
    const missing = join(folder, 'missing.jsonl');
    expect(run(missing)).toEqual([2, '', `it cannot be read: ENOENT: no such file or directory, open '${missing}'\n`]);
    expect(run('--key', store.key.id, folder)).toEqual([
      2,
      '',
      'it cannot be read: EISDIR: illegal operation on a directory, read\n',
    ]);
    // Longer than a text can be: a hole of zeros.
    const long = join(folder, 'long.jsonl');
    await writeFile(long, '');
    await truncate(long, 600 * 1024 * 1024);
    expect(run(long)).toEqual([2, '', 'it cannot be read: it has a line of more than 1048576 bytes\n']);
    const good = join(folder, 'good.jsonl');
    await writeFile(good, whole);
    expect(run(good, `--key=${store.key.id}`)[0]).toBe(0);
    const usage = 'usage: node verify-ledger.mjs [--key ID] FILE (an ID has 64 hexadecimal digits)\n';
    const wrong = [[], [good, good], ['--kee', good], ['--key'], [good, '--key'], ['--key', '', good], ['--key', 'abc', good]];
    for (const args of wrong) expect(run(...args), args.join(' ')).toEqual([2, '', usage]);
  }, 30_000);
});
