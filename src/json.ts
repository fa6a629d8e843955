/** JSON of others, which may be none. */

/** The value that a text holds; undefined where it is no JSON: schemas refuse that as they refuse what is of another shape. */
export function tryJson(text: string): unknown {
  try {
    const parsed: unknown = JSON.parse(text);
    return parsed;
  } catch {
    return undefined;
  }
}

/** `hosts[0].engine`, as people write it. */
export function pathText(path: readonly PropertyKey[]): string {
  return path
    .map((step, index) => (typeof step === 'number' ? `[${String(step)}]` : `${index === 0 ? '' : '.'}${String(step)}`))
    .join('');
}
