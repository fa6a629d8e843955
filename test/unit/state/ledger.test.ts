/** The ledger under any mixture of writers: intervals are contiguous, numbered without gaps, and each is there once. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { closeIncarnationWrite, findIncarnation, openIncarnationWrite, readNamedRows } from '#state/ledger.ts';
import { LedgerWriter } from '#state/ledger-writer.ts';
import type { Incarnation } from '#state/ledger.ts';
import { openSqlite } from '#state/sqlite.ts';

const OPEN: Incarnation = {
  container: 'c',
  incarnation: 1,
  tenant: 't',
  host: 'a',
  name: 'n',
  cgroup: '/x',
  cgroupIdentity: '',
  openedMs: 100,
  closedMs: undefined,
  seq: 0,
  meteredToMs: 100,
  cpuNs: 0,
  memoryBytes: 0,
};

test('stale and repeated appends change nothing', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'ecluse-ledger-'));
  try {
    await using sql = openSqlite(join(dir, 'x.db'));
    const ledger = new LedgerWriter(sql);
    let container = 0;
    /** Each step: append at a cursor that was read so many appends ago. */
    const steps = fc.array(fc.record({ behind: fc.nat(2), spanMs: fc.nat(1000), cpuNs: fc.nat(10 ** 9) }), { maxLength: 8 });
    await fc.assert(
      fc.asyncProperty(steps, async (plan) => {
        container += 1;
        const cursors: Incarnation[] = [{ ...OPEN, container: `c${String(container)}` }];
        await sql.write([openIncarnationWrite(cursors[0] ?? OPEN)]);
        let wanted = 0;
        for (const { behind, spanMs, cpuNs } of plan) {
          const at = cursors.at(-1 - behind) ?? cursors[0] ?? OPEN;
          const interval = {
            toMs: at.meteredToMs + spanMs,
            cpuNs,
            memoryByteMs: 2n ** 60n,
            requests: 0,
            ingressBytes: 0,
            egressBytes: 0,
            heldMs: 0,
            streamMs: 0,
          };
          const now = { cpuNs: at.cpuNs + cpuNs, memoryBytes: 0, cgroupIdentity: '' };
          const outcome = await ledger.append(at, interval, now);
          expect(outcome.kind).toBe(at.seq === cursors.at(-1)?.seq ? 'done' : 'conflict');
          if (outcome.kind === 'conflict') continue;
          wanted += cpuNs;
          cursors.push((await findIncarnation(sql, at.container, 1)) ?? at);
        }
        const rows = (await readNamedRows(sql, { tenant: 't', fromMs: 0, untilMs: 10 ** 9 }, 'all')).filter(
          (row) => row.container === cursors[0]?.container,
        );
        expect(rows.map(({ seq }) => seq)).toEqual(rows.map((_row, index) => index + 1));
        expect(rows.map(({ fromMs }) => fromMs)).toEqual([100, ...rows.map(({ toMs }) => toMs)].slice(0, rows.length));
        expect(rows.reduce((sum, row) => sum + row.cpuNs, 0)).toBe(wanted);
        const last = cursors.at(-1) ?? OPEN;
        await sql.write([closeIncarnationWrite(last.container, 1, last.meteredToMs)]);
        const late = await ledger.append(
          last,
          { toMs: 0, cpuNs: 1, memoryByteMs: 0n, requests: 0, ingressBytes: 0, egressBytes: 0, heldMs: 0, streamMs: 0 },
          { cpuNs: 0, memoryBytes: 0, cgroupIdentity: '' },
        );
        expect(late.kind).toBe('conflict');
      }),
      { numRuns: 15 },
    );
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});
