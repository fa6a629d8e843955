/** Lines of an engine's answer, bounded. */
import type { Readable } from 'node:stream';
import { chunksOf } from '#caas/byte-stream.ts';

/** The lines of a stream; one that is longer than `charsMax` is left out. */
export async function* boundedLines(stream: Readable, charsMax: number): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let pending = '';
  let isTooLong = false;
  for await (const chunk of chunksOf(stream)) {
    const pieces = decoder.decode(chunk, { stream: true }).split('\n');
    for (const [index, piece] of pieces.entries()) {
      if (index > 0) {
        if (!isTooLong && pending.trim() !== '') yield pending;
        pending = '';
        isTooLong = false;
      }
      pending = isTooLong ? '' : pending + piece;
      if (pending.length > charsMax) [pending, isTooLong] = ['', true];
    }
  }
  if (!isTooLong && pending.trim() !== '') yield pending;
}
