/** The blocks of a PEM text (RFC 7468). What stands between them is a comment. */

export interface PemBlock {
  /** `CERTIFICATE`, `PRIVATE KEY`. */
  readonly label: string;
  /** The whole block, from BEGIN to END. */
  readonly text: string;
}

export type PemReading =
  | { readonly kind: 'blocks'; readonly blocks: readonly PemBlock[] }
  /** A block without its end; counted from 1. */
  | { readonly kind: 'cut'; readonly at: number };

const BEGIN = '-----BEGIN ';
const DASHES = '-----';
const END = '-----END ';
/** As OpenSSL writes them. */
const LINE_CHARS = 64;

export function readPem(text: string): PemReading {
  const blocks: PemBlock[] = [];
  let from = text.indexOf(BEGIN);
  while (from !== -1) {
    const labelEnd = text.indexOf(DASHES, from + BEGIN.length);
    const label = labelEnd === -1 ? '' : text.slice(from + BEGIN.length, labelEnd);
    const end = `${END}${label}${DASHES}`;
    const to = label === '' ? -1 : text.indexOf(end, labelEnd);
    const next = text.indexOf(BEGIN, from + BEGIN.length);
    // Another block within this one: its end is missing.
    if (to === -1 || (next !== -1 && next < to)) return { kind: 'cut', at: blocks.length + 1 };
    blocks.push({ label, text: `${text.slice(from, to + end.length)}\n` });
    from = next;
  }
  return { kind: 'blocks', blocks };
}

/** What a block holds, where it has no headers (RFC 1421): our own have none. `take` gives memory for it. */
export function derOf({ label, text }: PemBlock, take: (bytes: number) => Buffer): Buffer {
  const body = text.slice(BEGIN.length + label.length + DASHES.length, text.lastIndexOf(END));
  const bytes = take(body.length);
  return bytes.subarray(0, bytes.write(body, 'base64'));
}

/** A block as OpenSSL writes it. */
export function pemBlockOf(label: string, der: Buffer): string {
  const text = der.toString('base64');
  let lines = '';
  for (let from = 0; from < text.length; from += LINE_CHARS) lines += `${text.slice(from, from + LINE_CHARS)}\n`;
  return `${BEGIN}${label}${DASHES}\n${lines}${END}${label}${DASHES}\n`;
}
