/** vitest's asymmetric matchers, typed: its own are `any`. */
import { expect } from 'vitest';

export function containing(text: string): unknown {
  const matcher: unknown = expect.stringContaining(text);
  return matcher;
}

export function matching(pattern: RegExp): unknown {
  const matcher: unknown = expect.stringMatching(pattern);
  return matcher;
}

/** A list with at least these. */
export function including(...items: readonly unknown[]): unknown {
  const matcher: unknown = expect.arrayContaining([...items]);
  return matcher;
}

export function anyText(): unknown {
  const matcher: unknown = expect.any(String);
  return matcher;
}
