import * as fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { TimingWheel, createWheelEntry } from '#proxy/timing-wheel.ts';
import type { WheelEntry } from '#proxy/timing-wheel.ts';

const TICK_MS = 100;

/** A clock that timers follow, and that can also go on without them (a stall), and back. */
class FakeClock {
  offsetMs = 0;

  monotonicMs(): number {
    return performance.now() + this.offsetMs;
  }
}

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

interface Probe {
  readonly entry: WheelEntry;
  readonly firedMs: number[];
}

function probe(clock: FakeClock, then: () => void = () => undefined): Probe {
  const firedMs: number[] = [];
  const entry = createWheelEntry({
    onTimeout: () => {
      firedMs.push(clock.monotonicMs());
      then();
    },
  });
  return { entry, firedMs };
}

describe('TimingWheel', () => {
  test.each([0, 1, 99, 100, 101, 1_000, 30_000, 60_000, 102_300, 102_400, 102_500, 300_000])(
    'fires once, not before %i ms and at most two ticks after the tick that it ends in',
    (delayMs) => {
      const roundedMs = Math.ceil(delayMs / TICK_MS) * TICK_MS - delayMs;
      for (const phaseMs of [0, 1, 37, 99]) {
        const clock = new FakeClock();
        using wheel = new TimingWheel(clock);
        const other = probe(clock);
        wheel.arm(other.entry, 86_400_000 * 2);
        vi.advanceTimersByTime(1_000 + phaseMs);
        const { entry, firedMs } = probe(clock);
        const armedMs = clock.monotonicMs();
        wheel.arm(entry, delayMs);
        vi.advanceTimersByTime(delayMs + 3 * TICK_MS);
        expect(firedMs).toHaveLength(1);
        const lateMs = (firedMs[0] ?? 0) - armedMs - delayMs;
        expect(lateMs).toBeGreaterThanOrEqual(0);
        expect(lateMs).toBeLessThanOrEqual(2 * TICK_MS + roundedMs);
        expect(wheel.size).toBe(1);
      }
    },
  );

  test('fires after a day of hundreds of turns', () => {
    const clock = new FakeClock();
    using wheel = new TimingWheel(clock, { tickMs: 500 });
    const { entry, firedMs } = probe(clock);
    const armedMs = clock.monotonicMs();
    wheel.arm(entry, 86_400_000);
    vi.advanceTimersByTime(86_400_000 - 1);
    expect(firedMs).toHaveLength(0);
    vi.advanceTimersByTime(1_001);
    expect(firedMs).toHaveLength(1);
    expect((firedMs[0] ?? 0) - armedMs).toBeGreaterThanOrEqual(86_400_000);
  });

  test('times that are no delay are as soon as possible', () => {
    const clock = new FakeClock();
    using wheel = new TimingWheel(clock);
    for (const delayMs of [-1, Number.NaN, Number.NEGATIVE_INFINITY]) {
      const { entry, firedMs } = probe(clock);
      wheel.arm(entry, delayMs);
      vi.advanceTimersByTime(2 * TICK_MS);
      expect(firedMs).toHaveLength(1);
    }
    const { entry, firedMs } = probe(clock);
    wheel.arm(entry, Number.POSITIVE_INFINITY);
    vi.advanceTimersByTime(1_000_000);
    expect(firedMs).toHaveLength(0);
    expect(wheel.size).toBe(1);
  });

  test('disarm() forgets, twice as well, and an entry can be armed again', () => {
    const clock = new FakeClock();
    using wheel = new TimingWheel(clock);
    const { entry, firedMs } = probe(clock);
    wheel.disarm(entry);
    wheel.arm(entry, 1_000);
    expect(wheel.size).toBe(1);
    wheel.disarm(entry);
    wheel.disarm(entry);
    expect(wheel.size).toBe(0);
    vi.advanceTimersByTime(5_000);
    expect(firedMs).toHaveLength(0);
    wheel.arm(entry, 1_000);
    vi.advanceTimersByTime(1_200);
    expect(firedMs).toHaveLength(1);
    expect(wheel.size).toBe(0);
    wheel.arm(entry, 1_000);
    vi.advanceTimersByTime(1_200);
    expect(firedMs).toHaveLength(2);
  });

  test('arm() of an armed entry replaces its deadline: later, earlier, and later again', () => {
    const clock = new FakeClock();
    using wheel = new TimingWheel(clock);
    const { entry, firedMs } = probe(clock);
    wheel.arm(entry, 1_000);
    vi.advanceTimersByTime(900);
    wheel.arm(entry, 60_000);
    expect(wheel.size).toBe(1);
    vi.advanceTimersByTime(50_000);
    expect(firedMs).toHaveLength(0);
    wheel.arm(entry, 500);
    vi.advanceTimersByTime(400);
    expect(firedMs).toHaveLength(0);
    vi.advanceTimersByTime(300);
    expect(firedMs).toHaveLength(1);
    wheel.arm(entry, 500);
    vi.advanceTimersByTime(400);
    wheel.arm(entry, 500);
    vi.advanceTimersByTime(499);
    expect(firedMs).toHaveLength(1);
    vi.advanceTimersByTime(201);
    expect(firedMs).toHaveLength(2);
  });

  test('arm() to a later time leaves the links alone', () => {
    using wheel = new TimingWheel(new FakeClock());
    const [one, two] = [
      createWheelEntry({ onTimeout: vi.fn<() => void>() }),
      createWheelEntry({ onTimeout: vi.fn<() => void>() }),
    ];
    wheel.arm(one, 1_000);
    wheel.arm(two, 1_000);
    const { next, previous, slotTick } = one;
    wheel.arm(one, 50_000);
    expect([one.next, one.previous, one.slotTick]).toEqual([next, previous, slotTick]);
    expect(next).toBe(two);
    wheel.arm(one, 500);
    expect(one.slotTick).toBeLessThan(slotTick);
  });

  test('an error of one owner stops neither the others nor the wheel', () => {
    const clock = new FakeClock();
    const errors: unknown[] = [];
    using wheel = new TimingWheel(clock, { onError: (thrown) => errors.push(thrown) });
    const fault = new Error('mine');
    const broken = probe(clock, () => {
      throw fault;
    });
    const [before, after] = [probe(clock), probe(clock)];
    for (const { entry } of [before, broken, after]) wheel.arm(entry, 1_000);
    vi.advanceTimersByTime(1_200);
    expect([before, broken, after].map(({ firedMs }) => firedMs.length)).toEqual([1, 1, 1]);
    expect(errors).toEqual([fault]);
    wheel.arm(before.entry, 1_000);
    vi.advanceTimersByTime(1_200);
    expect(before.firedMs).toHaveLength(2);
  });

  test('without onError an error is a warning of the process', () => {
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined);
    const clock = new FakeClock();
    using wheel = new TimingWheel(clock);
    const fault = new Error('mine');
    wheel.arm(
      probe(clock, () => {
        throw fault;
      }).entry,
      0,
    );
    vi.advanceTimersByTime(200);
    expect(warned).toHaveBeenCalledExactlyOnceWith(fault);
  });

  test('onTimeout() may arm and disarm itself and others that are due at once', () => {
    const clock = new FakeClock();
    using wheel = new TimingWheel(clock);
    const disarmed = probe(clock);
    const postponed = probe(clock);
    const again = probe(clock);
    const first = probe(clock, () => {
      wheel.disarm(disarmed.entry);
      wheel.arm(postponed.entry, 5_000);
      wheel.arm(first.entry, 700);
    });
    for (const { entry } of [first, disarmed, postponed, again]) wheel.arm(entry, 1_000);
    vi.advanceTimersByTime(1_200);
    expect([first, disarmed, postponed, again].map(({ firedMs }) => firedMs.length)).toEqual([1, 0, 0, 1]);
    expect(wheel.size).toBe(2);
    vi.advanceTimersByTime(900);
    expect(first.firedMs).toHaveLength(2);
    vi.advanceTimersByTime(700 + 5_000);
    expect(postponed.firedMs.length).toBe(0);
    wheel.disarm(first.entry);
    vi.advanceTimersByTime(60_000);
    expect(postponed.firedMs).toHaveLength(1);
  });

  test('its timer runs only while entries are armed, and keeps no process alive', () => {
    const setting = vi.spyOn(globalThis, 'setInterval');
    using wheel = new TimingWheel(new FakeClock());
    expect(vi.getTimerCount()).toBe(0);
    const entry = createWheelEntry({ onTimeout: vi.fn<() => void>() });
    wheel.arm(entry, 1_000);
    expect(vi.getTimerCount()).toBe(1);
    expect(setting.mock.results[0]?.value).toHaveProperty('ref');
    wheel.disarm(entry);
    vi.advanceTimersByTime(2 * TICK_MS);
    expect(vi.getTimerCount()).toBe(0);
    wheel.arm(entry, 1_000);
    vi.advanceTimersByTime(1_500);
    expect(vi.getTimerCount()).toBe(0);
    expect(setting).toHaveBeenCalledTimes(2);
  });

  test('is exact after a time without entries', () => {
    const clock = new FakeClock();
    using wheel = new TimingWheel(clock);
    const { entry, firedMs } = probe(clock);
    wheel.arm(entry, 100);
    vi.advanceTimersByTime(1_000_000);
    wheel.arm(entry, 1_000);
    vi.advanceTimersByTime(999);
    expect(firedMs).toHaveLength(1);
    vi.advanceTimersByTime(201);
    expect(firedMs).toHaveLength(2);
  });

  test('disposing forgets all entries and calls none', () => {
    const clock = new FakeClock();
    const wheel = new TimingWheel(clock);
    const probes = [probe(clock), probe(clock)];
    for (const { entry } of probes) wheel.arm(entry, 1_000);
    wheel[Symbol.dispose]();
    expect(wheel.size).toBe(0);
    expect(vi.getTimerCount()).toBe(0);
    vi.advanceTimersByTime(10_000);
    expect(probes.map(({ firedMs }) => firedMs.length)).toEqual([0, 0]);
    expect(probes.map(({ entry }) => entry.next === entry)).toEqual([true, true]);
  });

  test('disposing from a call ends the calls of that tick', () => {
    const clock = new FakeClock();
    const wheel = new TimingWheel(clock);
    const last = probe(clock);
    wheel.arm(
      probe(clock, () => {
        wheel[Symbol.dispose]();
      }).entry,
      1_000,
    );
    wheel.arm(last.entry, 1_000);
    vi.advanceTimersByTime(10_000);
    expect(last.firedMs).toHaveLength(0);
  });
});

test('TimingWheel is not early where a late tick is followed by one in time', () => {
  const clock = new FakeClock();
  using wheel = new TimingWheel(clock);
  wheel.arm(probe(clock).entry, 3_600_000);
  vi.advanceTimersByTime(999);
  clock.offsetMs = 99;
  const { entry, firedMs } = probe(clock);
  const armedMs = clock.monotonicMs();
  wheel.arm(entry, 100);
  vi.advanceTimersByTime(1);
  clock.offsetMs = 0;
  vi.advanceTimersByTime(100);
  expect(firedMs).toHaveLength(0);
  vi.advanceTimersByTime(100);
  expect(firedMs).toHaveLength(1);
  expect((firedMs[0] ?? 0) - armedMs).toBeGreaterThanOrEqual(100);
});

describe('TimingWheel after a stall', () => {
  test('an entry armed behind a stall counts from when it was armed', () => {
    const clock = new FakeClock();
    using wheel = new TimingWheel(clock);
    const other = probe(clock);
    wheel.arm(other.entry, 3_600_000);
    vi.advanceTimersByTime(1_050);
    // The loop stands still for 700 ms; then a callback arms before the wheel's timer comes.
    clock.offsetMs += 700;
    const { entry, firedMs } = probe(clock);
    const armedMs = clock.monotonicMs();
    wheel.arm(entry, 1_000);
    vi.advanceTimersByTime(2_000);
    expect(firedMs).toHaveLength(1);
    expect((firedMs[0] ?? 0) - armedMs).toBeGreaterThanOrEqual(1_000);
    expect((firedMs[0] ?? 0) - armedMs).toBeLessThanOrEqual(1_300);
  });

  test('what fell due meanwhile gets one more tick to be armed anew', () => {
    const clock = new FakeClock();
    using wheel = new TimingWheel(clock);
    const [silent, alive] = [probe(clock), probe(clock)];
    wheel.arm(silent.entry, 30_000);
    wheel.arm(alive.entry, 30_000);
    vi.advanceTimersByTime(1_000);
    clock.offsetMs += 60_000;
    vi.advanceTimersByTime(TICK_MS);
    expect([silent.firedMs.length, alive.firedMs.length]).toEqual([0, 0]);
    wheel.arm(alive.entry, 30_000);
    vi.advanceTimersByTime(TICK_MS);
    expect([silent.firedMs.length, alive.firedMs.length]).toEqual([1, 0]);
    vi.advanceTimersByTime(30_200);
    expect(alive.firedMs).toHaveLength(1);
  });

  test.each([102_300, 102_400, 102_500, 5_000_000])(
    'of %i ms, which is about a turn or more, all that is due fires',
    (stallMs) => {
      const clock = new FakeClock();
      using wheel = new TimingWheel(clock);
      const probes = Array.from({ length: 2048 }, (_, index) => ({ ...probe(clock), delayMs: index * 100 }));
      for (const { entry, delayMs } of probes) wheel.arm(entry, delayMs);
      const armedMs = clock.monotonicMs();
      vi.advanceTimersByTime(TICK_MS);
      clock.offsetMs += stallMs;
      vi.advanceTimersByTime(3 * TICK_MS);
      const nowMs = clock.monotonicMs();
      const isFired = ({ firedMs }: { readonly firedMs: readonly number[] }): boolean => firedMs.length > 0;
      const dueMs = ({ delayMs }: { readonly delayMs: number }): number => armedMs + delayMs;
      expect(probes.filter((one) => isFired(one) && dueMs(one) > nowMs)).toEqual([]);
      expect(probes.filter((one) => !isFired(one) && dueMs(one) + 3 * TICK_MS <= nowMs)).toEqual([]);
      vi.advanceTimersByTime(205_100);
      for (const { firedMs } of probes) expect(firedMs).toHaveLength(1);
      expect(wheel.size).toBe(0);
    },
  );

  test('a clock that goes back loses nothing and makes nothing early', () => {
    const clock = new FakeClock();
    using wheel = new TimingWheel(clock);
    const { entry, firedMs } = probe(clock);
    wheel.arm(entry, 10_000);
    vi.advanceTimersByTime(5_000);
    clock.offsetMs -= 3_600_000;
    vi.advanceTimersByTime(4_999);
    expect(firedMs).toHaveLength(0);
    vi.advanceTimersByTime(400);
    expect(firedMs).toHaveLength(1);
  });
});

type Step =
  | { readonly kind: 'arm'; readonly index: number; readonly delayMs: number }
  | { readonly kind: 'disarm'; readonly index: number }
  | { readonly kind: 'pass'; readonly ms: number }
  | { readonly kind: 'stall'; readonly ms: number };

const ENTRIES = 6;
const indexes = fc.nat(ENTRIES - 1);
const steps = fc.array(
  fc.oneof(
    fc.record({
      kind: fc.constant('arm' as const),
      index: indexes,
      delayMs: fc.oneof(fc.nat(3_000), fc.nat(250_000)),
    }),
    fc.record({ kind: fc.constant('disarm' as const), index: indexes }),
    fc.record({ kind: fc.constant('pass' as const), ms: fc.oneof(fc.nat(400), fc.nat(150_000)) }),
    fc.record({ kind: fc.constant('stall' as const), ms: fc.oneof(fc.nat(400), fc.nat(250_000)) }),
  ),
  { maxLength: 30 },
);

interface Deadline {
  readonly earliestMs: number;
  readonly latestMs: number;
}

/** Runs steps against a wheel and a model: when each entry may fire. A stall may make all later by itself, and by the tick that it gets. */
function follow(plan: readonly Step[]): void {
  vi.clearAllTimers();
  const clock = new FakeClock();
  using wheel = new TimingWheel(clock);
  const due = new Map<number, Deadline>();
  const entries = Array.from({ length: ENTRIES }, (_, index) =>
    createWheelEntry({
      onTimeout: () => {
        expect(due.get(index)?.earliestMs, 'is armed, and not early').toBeLessThanOrEqual(clock.monotonicMs());
        due.delete(index);
      },
    }),
  );
  const arm = (index: number, entry: WheelEntry, delayMs: number): void => {
    wheel.arm(entry, delayMs);
    const earliestMs = clock.monotonicMs() + delayMs;
    due.set(index, { earliestMs, latestMs: earliestMs + 3 * TICK_MS });
  };
  const disarm = (index: number, entry: WheelEntry): void => {
    wheel.disarm(entry);
    due.delete(index);
  };
  const stall = (ms: number): void => {
    clock.offsetMs += ms;
    for (const [index, { earliestMs, latestMs }] of due) due.set(index, { earliestMs, latestMs: latestMs + ms + 2 * TICK_MS });
  };
  for (const step of plan) {
    if (step.kind === 'pass') vi.advanceTimersByTime(step.ms);
    else if (step.kind === 'stall') stall(step.ms);
    else {
      const entry = entries[step.index];
      if (entry !== undefined && step.kind === 'arm') arm(step.index, entry, step.delayMs);
      else if (entry !== undefined) disarm(step.index, entry);
    }
    expect(wheel.size).toBe(due.size);
    expect(
      [...due.values()].filter(({ latestMs }) => latestMs < clock.monotonicMs()),
      'none is late',
    ).toEqual([]);
  }
  vi.advanceTimersByTime(250_000 + 5 * TICK_MS);
  expect(wheel.size, 'nothing is lost').toBe(0);
}

test('TimingWheel does what a list of deadlines would, in any order of calls', () => {
  fc.assert(fc.property(steps, follow), { numRuns: 40 });
});
