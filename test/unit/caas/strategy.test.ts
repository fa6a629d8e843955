/** How a container moves, by what two hosts can do: what is refused, what is lost, and that the reasons say so. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BACKGROUND_BYTES_MIN, strategyOf } from '#caas/migration/strategy.ts';
import type { HostCapabilities, MovingContainer, StrategyResult } from '#caas/migration/strategy.ts';
import { hostWith, RUNSC_2024, RUNSC_2026 } from '../../support/runsc-data.ts';

const CONTAINER: MovingContainer = {
  name: 'web',
  openExecs: 0,
  tty: false,
  openStdin: false,
  endpointSocket: false,
  memoryBytes: 64 * 1024 ** 2,
  keepsAddress: false,
};
const OLD = hostWith('b', RUNSC_2024);
const NEW = hostWith('b', RUNSC_2026);

function between(
  target: HostCapabilities,
  change: Partial<MovingContainer> = {},
  source: Partial<HostCapabilities> = {},
): StrategyResult {
  return strategyOf({ ...target, name: 'a', ...source }, target, { ...CONTAINER, ...change });
}

function why(result: StrategyResult): string {
  return result.kind === 'refused' ? result.why : '';
}

describe('strategyOf()', () => {
  test('with the old build memory is loaded first and connections are reset; terminal and input go on', () => {
    expect(between(OLD, { tty: true, openStdin: true, memoryBytes: 2 ** 33, keepsAddress: true })).toEqual({
      kind: 'strategy',
      background: false,
      carriesTcp: false,
      streams: 'carry',
      reasons: [
        'runsc 0.0~20240729.0 loads all memory before the container runs',
        'runsc 0.0~20240729.0 resets its connections at the save, even if it stays where it is',
        'output, input, terminal of its process go on',
      ],
    });
  });

  test('the new build loads much memory in the background, and carries connections where the address is kept', () => {
    const big = { memoryBytes: BACKGROUND_BYTES_MIN };
    expect(between(NEW, big)).toMatchObject({ background: true, carriesTcp: false, streams: 'carry' });
    expect(between(NEW, { ...big, keepsAddress: true })).toMatchObject({ background: true, carriesTcp: true });
    expect(between(NEW, { memoryBytes: BACKGROUND_BYTES_MIN - 1 })).toMatchObject({ background: false });
  });

  test('exec sessions are refused by the old build and end with the new one', () => {
    expect(why(between(OLD, { openExecs: 1 }))).toBe('container web has open exec sessions, which this runsc cannot carry');
    const moved = between(NEW, { openExecs: 2 });
    expect(moved).toMatchObject({ kind: 'strategy', streams: 'close' });
    expect(moved.kind === 'strategy' ? moved.reasons : []).toContain('2 exec sessions end');
  });

  test('a mounted Docker socket keeps a container where the save would fail on it, and is told of where it is cut', () => {
    expect(why(between(OLD, { endpointSocket: true }))).toContain('cannot be saved');
    const moved = between(NEW, { endpointSocket: true });
    expect(moved.kind === 'strategy' ? moved.reasons.at(-1) : '').toContain('connections through the Docker socket are cut');
  });

  test('hosts that differ in runsc, pages or processor are refused', () => {
    expect(why(between(OLD, {}, { runsc: { ...RUNSC_2024, leaveRunning: false } }))).toContain(
      'cannot save a sandbox and keep it',
    );
    expect(why(between(NEW, {}, { runsc: RUNSC_2024 }))).toContain('different runsc');
    const machine = NEW.machine;
    expect(why(between(NEW, {}, { machine: { ...machine, pageBytes: 16_384 } }))).toContain('(16384, 4096 bytes)');
    const cpu = { ...machine.cpu, cacheLineBytes: 128 };
    expect(why(between(NEW, {}, { machine: { ...machine, cpu } }))).toContain('different cache lines (128, 64 bytes)');
    const lacking = hostWith('b', RUNSC_2026, ['sse2']);
    expect(why(between(lacking, {}, NEW))).toBe('the processor of host b lacks what the container may use: avx2');
    const many = hostWith('a', RUNSC_2026, ['sse2', 'x1', 'x2', 'x3', 'x4', 'x5', 'x6']);
    expect(why(between(lacking, {}, many))).toContain('x1, x2, x3, x4, x5 and 1 more');
  });

  test('a newer processor takes what comes from an older one', () => {
    expect(between(hostWith('b', RUNSC_2026, ['sse2', 'avx2', 'avx512f']), {}, hostWith('a', RUNSC_2026)).kind).toBe('strategy');
  });

  test('whatever the facts: the old build promises nothing that was not measured, and every strategy has its reasons', () => {
    const facts = fc.record({
      name: fc.constant('web'),
      openExecs: fc.nat(3),
      tty: fc.boolean(),
      openStdin: fc.boolean(),
      endpointSocket: fc.boolean(),
      memoryBytes: fc.nat(2 ** 31),
      keepsAddress: fc.boolean(),
    });
    fc.assert(
      fc.property(facts, fc.boolean(), (container, isOld) => {
        const result = between(isOld ? OLD : NEW, container);
        if (result.kind === 'refused') return isOld && (container.openExecs > 0 || container.endpointSocket);
        if (isOld && (result.background || result.carriesTcp)) return false;
        return result.reasons.length >= 3 && (result.streams === 'close') === container.openExecs > 0;
      }),
    );
  });
});
