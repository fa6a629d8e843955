/** Which sums a span of time is put together from: days where it can, then hours, then minutes, and single rows for what is left. Pure. */
import { GRAIN_MS } from '#state/usage-rollups.ts';
import type { Grain } from '#state/usage-rollups.ts';

export interface Span {
  readonly fromMs: number;
  readonly untilMs: number;
}

export interface Cover {
  readonly sums: readonly (Span & { readonly grain: Grain })[];
  readonly rows: readonly Span[];
}

/**
 * Spans that follow each other share nothing and leave nothing out. `minutesFromMs` is a full hour: before it, use is known by the hour, and an hour
 * counts for the span in which it begins. `coarsest`: nothing is taken together that is longer.
 */
export function coverOf({ fromMs, untilMs }: Span, minutesFromMs: number, coarsest: 'day' | 'hour' = 'day'): Cover {
  const sums: (Span & { readonly grain: Grain })[] = [];
  const rows: Span[] = [];
  const cover = (span: Span, grains: readonly Grain[]): void => {
    if (span.fromMs >= span.untilMs) return;
    const [grain, ...finer] = grains;
    if (grain === undefined) {
      rows.push(span);
      return;
    }
    const stepMs = GRAIN_MS[grain];
    const first = Math.ceil(span.fromMs / stepMs) * stepMs;
    const last = Math.floor(span.untilMs / stepMs) * stepMs;
    if (first >= last) {
      cover(span, finer);
      return;
    }
    sums.push({ grain, fromMs: first, untilMs: last });
    cover({ fromMs: span.fromMs, untilMs: first }, finer);
    cover({ fromMs: last, untilMs: span.untilMs }, finer);
  };
  const edge = (atMs: number): number => (atMs >= minutesFromMs ? atMs : Math.ceil(atMs / GRAIN_MS.hour) * GRAIN_MS.hour);
  const grains: readonly Grain[] = coarsest === 'day' ? ['day', 'hour', 'minute'] : ['hour', 'minute'];
  cover({ fromMs: edge(fromMs), untilMs: edge(untilMs) }, grains);
  return { sums, rows };
}
