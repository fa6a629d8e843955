/** Hours in which a cheaper tariff applies, by the clock of a place. Pure. */

export const WEEKDAYS = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const;
export type Weekday = (typeof WEEKDAYS)[number];

export interface OffPeakWindow {
  /** On which days it begins. */
  readonly days: readonly Weekday[];
  /** `22:00`. */
  readonly from: string;
  /** At or before `from`: on the day after. `24:00`: the end of the day. */
  readonly to: string;
}

const DAY_MINUTES = 1440;

export function minutesOf(time: string): number {
  const [hours = '0', minutes = '0'] = time.split(':');
  return Number(hours) * 60 + Number(minutes);
}

/** Whether an instant is in one of the windows. */
export function isOffPeak(zone: string, windows: readonly OffPeakWindow[], atMs: number): boolean {
  const local = Temporal.Instant.fromEpochMilliseconds(atMs).toZonedDateTimeISO(zone);
  const minute = local.hour * 60 + local.minute;
  const today = WEEKDAYS[local.dayOfWeek - 1] ?? 'mon';
  const yesterday = WEEKDAYS[(local.dayOfWeek + 5) % 7] ?? 'sun';
  return windows.some(({ days, from, to }) => {
    const [begins, ends] = [minutesOf(from), minutesOf(to)];
    if (begins < ends) return days.includes(today) && minute >= begins && minute < ends;
    return (days.includes(today) && minute >= begins) || (days.includes(yesterday) && minute < ends);
  });
}

/** As long as a price book may be in force before its zone's rules are looked at again. */
const YEARS = 10;

/**
 * Use is known by the hour (UTC). Says which time is in the middle of one, in this zone, from an instant on; undefined: none is. There are zones that are
 * half an hour from UTC, and one that is so in summer only.
 */
export function timeWithinHour(zone: string, windows: readonly OffPeakWindow[], fromMs: number): string | undefined {
  const offsets = offsetsOf(zone, fromMs);
  const times = windows.flatMap(({ from, to }) => [from, to]);
  return times.find((time) => offsets.some((offset) => (minutesOf(time) - offset + 2 * DAY_MINUTES) % 60 !== 0));
}

/** Minutes that the zone is ahead of UTC, at one time or another. */
function offsetsOf(zone: string, fromMs: number): readonly number[] {
  let at = Temporal.Instant.fromEpochMilliseconds(fromMs).toZonedDateTimeISO(zone);
  const end = at.add({ years: YEARS });
  const offsets = new Set<number>();
  for (;;) {
    offsets.add(at.offsetNanoseconds / 60_000_000_000);
    const next = at.getTimeZoneTransition('next');
    if (next === null || Temporal.ZonedDateTime.compare(next, end) > 0) return [...offsets];
    at = next;
  }
}

export function isZone(zone: string): boolean {
  try {
    Temporal.Instant.fromEpochMilliseconds(0).toZonedDateTimeISO(zone);
    return true;
  } catch {
    return false; // That is the answer.
  }
}
