/**
 * Decides whether a request's framing is safe to forward.
 *
 * Source: RFC 9112 §6.1, §6.3, §11.2 (request smuggling). SECURITY: the parser below us is strict as well; this is the second lock,
 * and the only one for what the parser takes but two implementations could read in two ways.
 * In: raw header pairs in wire order. Never throws; O(n).
 */

export type Framing =
  | { readonly kind: 'none' }
  | { readonly kind: 'fixed'; readonly bytes: number }
  | { readonly kind: 'chunked' }
  | { readonly kind: 'refused'; readonly reason: string };

const DECIMAL = /^[0-9]{1,15}$/;

export function requestFraming(rawHeaders: readonly string[], httpVersion: string): Framing {
  const lengths: string[] = [];
  const encodings: string[] = [];
  for (let index = 0; index + 1 < rawHeaders.length; index += 2) {
    const name = (rawHeaders[index] ?? '').toLowerCase();
    if (name === 'content-length') lengths.push(rawHeaders[index + 1] ?? '');
    else if (name === 'transfer-encoding') encodings.push(rawHeaders[index + 1] ?? '');
  }
  const [encoding] = encodings;
  const [length] = lengths;
  if (encoding !== undefined) {
    if (length !== undefined) return { kind: 'refused', reason: 'both Content-Length and Transfer-Encoding' };
    if (httpVersion !== '1.1') return { kind: 'refused', reason: `Transfer-Encoding in HTTP/${httpVersion}` };
    if (encodings.length > 1 || encoding.toLowerCase() !== 'chunked')
      return { kind: 'refused', reason: 'Transfer-Encoding other than chunked' };
    return { kind: 'chunked' };
  }
  if (length === undefined) return { kind: 'none' };
  if (lengths.length > 1) return { kind: 'refused', reason: 'more than one Content-Length' };
  if (!DECIMAL.test(length)) return { kind: 'refused', reason: 'Content-Length is not a number' };
  return { kind: 'fixed', bytes: Number(length) };
}
