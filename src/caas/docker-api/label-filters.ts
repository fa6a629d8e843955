/** Filters that several kinds of objects share: labels, and `until` of prunes. Pure. */
import { goDurationMs } from '#units';
import { dockerError } from './docker-error.ts';

/** Every wanted `key` or `key=value` must be there (moby `filters.MatchKVList`). */
export function matchesLabels(labels: Readonly<Record<string, string>>, wanted: readonly string[]): boolean {
  return wanted.every((text) => {
    const at = text.indexOf('=');
    const key = at === -1 ? text : text.slice(0, at);
    return Object.hasOwn(labels, key) && (at === -1 || labels[key] === text.slice(at + 1));
  });
}

/** A point in time as clients write it: seconds with a fraction, a date, or a duration before now; undefined where it is none. */
export function timeMsOf(text: string, nowMs: number): number | undefined {
  if (/^\d{1,12}(?:\.\d{1,9})?$/.test(text)) return Number(text) * 1000;
  const duration = goDurationMs(text);
  if (duration !== undefined) return nowMs - duration;
  const parsed = /^\d{4}-\d\d-\d\d/.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(parsed) ? undefined : parsed;
}

/** The `until` of a prune; undefined where there is none. */
export function untilMsOf(filters: ReadonlyMap<string, readonly string[]>, nowMs: number = Date.now()): number | undefined {
  const given = filters.get('until');
  if (given === undefined || given.length === 0) return undefined;
  if (given.length > 1) throw dockerError(400, 'more than one until filter specified');
  const ms = timeMsOf(given[0] ?? '', nowMs);
  if (ms === undefined) throw dockerError(400, `invalid until filter "${(given[0] ?? '').slice(0, 40)}"`);
  return ms;
}
