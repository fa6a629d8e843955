/** Path and query of a request, from the head that came. */
import type { ExchangeRecord } from './record.ts';

const QUESTION = 63;
const BLANK = 32;

/** The path of the request as it came; `/` where it has none. */
export function pathOf({ head, pathStart, pathEnd }: ExchangeRecord): string {
  const path = head.toString('latin1', pathStart, pathEnd);
  return path.startsWith('/') ? path : '/';
}

/** With its question mark. Behind the path in the head, up to the blank. */
export function queryOf({ head, headBytes, pathEnd }: ExchangeRecord): string {
  if (pathEnd === 0 || head[pathEnd] !== QUESTION) return '';
  const end = head.indexOf(BLANK, pathEnd);
  return head.toString('latin1', pathEnd, end === -1 ? headBytes : end);
}
