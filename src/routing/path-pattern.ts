/**
 * What a route says of paths: `/x` a prefix by segments, `=/x` exactly that, `~^/v[0-9]+/` an expression.
 *
 * SECURITY: expressions are RE2's, which take time linear in the path: what an operator writes meets what anybody on the internet sends. What RE2
 * leaves out (look-around, back references) is refused with its reason.
 */
import { RE2JS } from 're2js';
import { parsePathPrefix } from './path-prefix.ts';

export type PathPattern =
  | { readonly kind: 'prefix'; readonly prefix: string }
  | { readonly kind: 'exact'; readonly path: string }
  | { readonly kind: 'expression'; readonly source: string; readonly test: (path: string) => boolean };

export type PathPatternReading = PathPattern | { readonly kind: 'invalid'; readonly reason: string };

const SOURCE_LENGTH_MAX = 256;
/**
 * Steps for each character of a path, at most. The worst of five nasty expressions, `(a?){40}a{40}` of 202 steps, took 0.4 ms for paths of the length below
 * (95th percentile of 60), and 17 ms once, when it made its states (2026-11, a busy machine).
 */
const PROGRAM_SIZE_MAX = 250;
/** Longer paths match no expression. */
const MATCHED_LENGTH_MAX = 2048;

/** Reads the path of a route. */
export function parsePathPattern(text: string): PathPatternReading {
  if (text.startsWith('=')) return parseExact(text.slice(1));
  if (text.startsWith('~')) return parseExpression(text.slice(1));
  return parsePathPrefix(text);
}

/** As a prefix, but the last slash counts. */
function parseExact(path: string): PathPatternReading {
  const read = parsePathPrefix(path);
  return read.kind === 'invalid' ? read : { kind: 'exact', path };
}

function parseExpression(source: string): PathPatternReading {
  const invalid = (why: string): PathPatternReading => ({ kind: 'invalid', reason: `path "~${source.slice(0, 80)}": ${why}` });
  if (source === '') return invalid('the expression is empty; / matches every path');
  if (source.length > SOURCE_LENGTH_MAX) return invalid(`the expression is longer than ${String(SOURCE_LENGTH_MAX)} characters`);
  let expression;
  try {
    expression = RE2JS.compile(source);
  } catch (error) {
    return invalid(error instanceof Error ? error.message.slice(0, 160) : 'it is no expression');
  }
  if (expression.programSize() > PROGRAM_SIZE_MAX)
    return invalid(`the expression has ${String(expression.programSize())} steps, more than ${String(PROGRAM_SIZE_MAX)}`);
  const compiled = expression;
  return { kind: 'expression', source, test: (path) => path.length <= MATCHED_LENGTH_MAX && compiled.test(path) };
}
