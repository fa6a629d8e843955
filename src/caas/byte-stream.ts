/** Byte streams, typed and bounded. */
import type { Readable } from 'node:stream';

export function bufferOf(chunk: unknown): Buffer {
  return chunk instanceof Uint8Array ? Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength) : Buffer.from(String(chunk));
}

/** The chunks of a stream as buffers. Leaving the loop early destroys the stream. */
export async function* chunksOf(stream: Readable): AsyncGenerator<Buffer> {
  for await (const chunk of stream) yield bufferOf(chunk);
}

/** Everything that a stream holds, or undefined where it is more than `bytesMax`. The stream is left as it is then: a request is still answered. */
export async function readWhole(stream: Readable, bytesMax: number): Promise<Buffer | undefined> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of stream.iterator({ destroyOnReturn: false })) {
    const buffer = bufferOf(chunk);
    bytes += buffer.length;
    if (bytes > bytesMax) return undefined;
    chunks.push(buffer);
  }
  return Buffer.concat(chunks);
}
