/** What schemas of operators' files have in common. */
import * as z from 'zod';
import { reasonOf } from '#errors';
import { parseDurationMs } from '#units';

const SERVICE_NAME = /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/;

export const serviceName = z
  .string()
  .regex(SERVICE_NAME, 'a service has a name of letters, digits, dots, hyphens and underscores, 63 at most')
  .describe('A service of this file.');

/** An issue of what `check` says is wrong. */
export function faultOf<T>(check: (value: T) => string | undefined): (value: T, context: z.core.$RefinementCtx<T>) => void {
  return (value: T, context: z.core.$RefinementCtx<T>): void => {
    const message = check(value);
    if (message !== undefined) context.addIssue({ code: 'custom', message });
  };
}

/** A time as it is written, `30s`; it stays a text. */
export function duration({ leastMs, mostMs }: { readonly leastMs: number; readonly mostMs: number }): z.ZodString {
  return z.string().superRefine(
    faultOf((text) => {
      try {
        const ms = parseDurationMs(text);
        return ms >= leastMs && ms <= mostMs
          ? undefined
          : `it is ${String(ms)} ms; use ${String(leastMs)} to ${String(mostMs)} ms`;
      } catch (error) {
        return reasonOf(error);
      }
    }),
  );
}
