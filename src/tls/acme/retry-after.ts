/** The field Retry-After (RFC 9110 §10.2.3): seconds, or a date. */

/** Longer is a mistake. */
const MAX_MS = 30 * 86_400_000;

/** Undefined: there is none, or it cannot be read. */
export function retryAfterMsOf(field: string | undefined, nowMs: number): number | undefined {
  const text = field?.trim() ?? '';
  if (text === '') return undefined;
  const ms = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - nowMs;
  return Number.isNaN(ms) ? undefined : Math.min(MAX_MS, Math.max(0, ms));
}
