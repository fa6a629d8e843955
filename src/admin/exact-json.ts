/** JSON whose integers are exact at any size: bigint goes out as digits, not as a text and not rounded. */

declare global {
  interface JSON {
    /** ECMAScript 2026 (JSON.parse source text access), which the type library lacks. */
    rawJSON(text: string): unknown;
    parse(
      text: string,
      reviver: (this: unknown, key: string, value: unknown, context: { readonly source?: string }) => unknown,
    ): unknown;
  }
}

export function exactJson(value: unknown, indent?: number): string {
  return JSON.stringify(
    value,
    (_key, member: unknown) => (typeof member === 'bigint' ? JSON.rawJSON(member.toString()) : member),
    indent,
  );
}

/** Reads JSON; integers under one of `bigintKeys` become bigint, with every digit that was written. */
export function parseExactJson(text: string, bigintKeys: ReadonlySet<string>): unknown {
  return JSON.parse(text, (key, value, { source }) =>
    typeof value === 'number' && source !== undefined && bigintKeys.has(key) ? BigInt(source) : value,
  );
}
