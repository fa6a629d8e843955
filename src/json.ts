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
