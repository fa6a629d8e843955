/** What is wrong with a value, as an issue of its schema. */
import type * as z from 'zod';

export function faultOf<T>(check: (value: T) => string | undefined) {
  return (value: T, context: z.core.$RefinementCtx<T>): void => {
    const message = check(value);
    if (message !== undefined) context.addIssue({ code: 'custom', message });
  };
}
