/** What a chunked body carries, read twice: by our scanner, and by following sizes from line to line. */
import { FRAMING } from '#proxy/http1/body-framing.ts';
import { createChunkScanner, isChunkedDone, nextChunkPiece, resetChunkScanner } from '#proxy/http1/chunked.ts';
import { CHUNK_LIMITS } from './our-reading.ts';
import type { Message } from './our-reading.ts';

export interface Body {
  readonly payload: string;
  /** Names and values in turn. */
  readonly trailers: readonly string[];
}

const scanner = createChunkScanner(CHUNK_LIMITS);

/** The body of a message that is whole. Throws where the two ways differ. */
export function bodyOf(message: Message): Body {
  if (message.framing !== FRAMING.chunked) return { payload: message.raw, trailers: [] };
  const [payload, rest] = byLines(message.raw);
  if (payload !== byScanner(message.raw)) throw new Error('the payload differs from what the sizes say');
  const lines = rest.split('\r\n').filter((line) => line !== '');
  return {
    payload,
    trailers: lines.flatMap((line) => [line.slice(0, line.indexOf(':')), trimmed(line.slice(line.indexOf(':') + 1))]),
  };
}

function trimmed(value: string): string {
  return value.replace(/^[ \t]+/, '').replace(/[ \t]+$/, '');
}

function byLines(raw: string): readonly [payload: string, rest: string] {
  let payload = '';
  let at = 0;
  for (;;) {
    const lineEnd = raw.indexOf('\r\n', at);
    const size = Number.parseInt(raw.slice(at, lineEnd), 16);
    if (size === 0) return [payload, raw.slice(lineEnd + 2)];
    if (!(size > 0)) throw new Error('a chunk has no size');
    payload += raw.slice(lineEnd + 2, lineEnd + 2 + size);
    at = lineEnd + 2 + size + 2;
  }
}

function byScanner(raw: string): string {
  const bytes = Buffer.from(raw, 'latin1');
  let payload = '';
  let at = 0;
  resetChunkScanner(scanner);
  while (at < bytes.length && !isChunkedDone(scanner)) {
    at = nextChunkPiece(bytes, at, bytes.length, scanner);
    if (at < 0) throw new Error(`the scanner refuses what it took: ${at}`);
    payload += bytes.toString('latin1', scanner.payloadStart, scanner.payloadEnd);
  }
  if (at !== bytes.length || payload.length !== scanner.payloadBytes) throw new Error('the scanner ends elsewhere');
  return payload;
}
