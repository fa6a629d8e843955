/**
 * Writes what an endpoint answers to a client of HTTP/1.x: the head as it goes on, the body framed as the client can take it.
 *
 * | endpoint frames by | to HTTP/1.1 | to HTTP/1.0 |
 * | --- | --- | --- |
 * | length | as it is | as it is |
 * | chunks | as they are, trailers included | payload alone, until the connection ends |
 * | the end of its connection | in chunks | as it is, until the connection ends |
 */
import { FRAMING } from '#proxy/http1/body-framing.ts';
import { createChunkScanner, nextChunkPiece, resetChunkScanner } from '#proxy/http1/chunked.ts';
import type { ChunkScanner } from '#proxy/http1/chunked.ts';
import type { HeadView } from '#proxy/http1/head-view.ts';
import type { ChunkLimits } from '#proxy/http1/limits.ts';
import { PERSISTENCE, createHeadWriter, createResponseEdits, writeResponseHead } from '#proxy/http1/rewrite.ts';
import type { FieldEdits } from '#proxy/http1/rewrite.ts';
import { dateLineAt } from '#proxy/date-line.ts';
import type { Wire } from '#proxy/wire/wire.ts';

/** What the client's side is like. */
export interface ClientFacts {
  /** 0 or 1: the x of HTTP/1.x. */
  readonly minor: number;
  /** Whether the connection may carry another request. */
  readonly persistent: boolean;
  readonly wallMs: number;
}

const HOW = { asIs: 0, intoChunks: 1, outOfChunks: 2 } as const;

/** Heads are at most 32 KiB by default, and our own lines come on top. */
const OUT_BYTES = 128 * 1024;
/** Up to here a head and what follows it leave in one write of a string. */
export const COALESCE_BYTES_MAX = 16 * 1024;
const CRLF = Buffer.from('\r\n');
const LAST_CHUNK = '0\r\n\r\n';

/** PERF: one output buffer and one set of edits for a worker: every head is written out before anything else runs. */
export const OUTPUT: ReturnType<typeof createHeadWriter> = createHeadWriter(Buffer.allocUnsafeSlow(OUT_BYTES));
const EDITS = createResponseEdits();
const NO_DATE = Buffer.alloc(0);

/**
 * Writes the head that lies in the output and `[start, end)` of the body that was read with the head before it, in one piece. PERF: in the
 * buffer that they were read into, where there is room before the body; else in a copy.
 */
export function writeHeadAndBody(to: Wire, from: Wire, bytes: Buffer, piece: { start: number; end: number }): boolean {
  const length = OUTPUT.at;
  const { start, end } = piece;
  if (start < length || !from.canLend(bytes)) return to.writeJoined(OUTPUT.out, length, bytes, piece);
  OUTPUT.out.copy(bytes, start - length, 0, length);
  return to.pass(from, bytes, start - length, end);
}

/** Clients of one kind get the same head for the same response. */
export function kindOf(client: ClientFacts): number {
  return client.minor * 2 + (client.persistent ? 1 : 0);
}

export class ResponseWriter {
  /** Bytes that went to the client. */
  writtenBytes = 0;
  /** Whether the end of the body is the end of the connection. */
  endsWithConnection = false;
  readonly #limits: ChunkLimits;
  #how: number = HOW.asIs;
  #scanner: ChunkScanner | undefined;

  constructor(limits: ChunkLimits) {
    this.#limits = limits;
  }

  /** Writes a 1xx. False: the client does not keep up. */
  interim(to: Wire, bytes: Buffer, view: HeadView): boolean {
    EDITS.framing = FRAMING.none;
    EDITS.persistence = PERSISTENCE.unsaid;
    EDITS.trailers = false;
    EDITS.dateLine = NO_DATE;
    EDITS.fields = undefined;
    OUTPUT.at = 0;
    const length = writeResponseHead(bytes, view, EDITS, OUTPUT);
    this.writtenBytes = length;
    return to.write(OUTPUT.out, 0, length);
  }

  /** Writes the head of a final response, or of a 101, to the output; `body` follows it. `NO_FIT` where it is too long. */
  head(
    bytes: Buffer,
    view: HeadView,
    framing: number,
    { client, fields }: { readonly client: ClientFacts; readonly fields: FieldEdits | undefined },
  ): number {
    this.#plan(framing, client);
    EDITS.fields = fields;
    OUTPUT.at = 0;
    return writeResponseHead(bytes, view, EDITS, OUTPUT);
  }

  /** Puts a head to the output that was written before for the same framing and kind of client (`kindOf`). */
  repeat(head: Buffer, framing: number, client: ClientFacts): void {
    this.#plan(framing, client);
    OUTPUT.out.set(head, 0);
    OUTPUT.at = head.length;
  }

  /** How the response goes on. */
  #plan(framing: number, client: ClientFacts): void {
    const old = client.minor === 0;
    this.#how = HOW.asIs;
    this.endsWithConnection = framing === FRAMING.untilClose && old;
    EDITS.framing = framing;
    if (framing === FRAMING.untilClose && !old) {
      this.#how = HOW.intoChunks;
      EDITS.framing = FRAMING.chunked;
    } else if (framing === FRAMING.chunked && old) {
      this.#how = HOW.outOfChunks;
      this.endsWithConnection = true;
      EDITS.framing = FRAMING.untilClose;
      this.#scanner ??= createChunkScanner(this.#limits);
      resetChunkScanner(this.#scanner);
    }
    EDITS.trailers = framing === FRAMING.chunked;
    EDITS.dateLine = dateLineAt(client.wallMs);
    if (framing === FRAMING.tunnel) EDITS.persistence = PERSISTENCE.unsaid;
    else if (!client.persistent || this.endsWithConnection) EDITS.persistence = PERSISTENCE.close;
    else EDITS.persistence = old ? PERSISTENCE.keepAlive : PERSISTENCE.unsaid;
  }

  /** Writes the head that lies in the output, and `[start, end)` of the body. False: the client does not keep up. */
  begin(to: Wire, from: Wire, bytes: Buffer, piece: { start: number; end: number }): boolean {
    const { start, end } = piece;
    const length = OUTPUT.at;
    if (this.#how === HOW.asIs && length + end - start <= COALESCE_BYTES_MAX) {
      if (end > start) bytes.copy(OUTPUT.out, length, start, end);
      this.writtenBytes = length + end - start;
      return to.write(OUTPUT.out, 0, length + end - start);
    }
    if (this.#how === HOW.asIs) {
      this.writtenBytes = length + end - start;
      return writeHeadAndBody(to, from, bytes, piece);
    }
    const ready = to.write(OUTPUT.out, 0, length);
    const more = this.body(to, from, bytes, piece);
    this.writtenBytes += length;
    return ready && more;
  }

  /** Writes `[start, end)` of the body as the endpoint framed it. False: the client does not keep up. */
  body(to: Wire, from: Wire, bytes: Buffer, piece: { start: number; end: number }): boolean {
    const { start, end } = piece;
    this.writtenBytes = 0;
    if (end === start) return !to.blocked;
    if (this.#how === HOW.asIs) {
      this.writtenBytes = end - start;
      return to.pass(from, bytes, start, end);
    }
    return this.#how === HOW.intoChunks ? this.#chunk(to, from, bytes, piece) : this.#payload(to, from, bytes, piece);
  }

  /** Writes what tells the client that the body is over, where that is not told already. */
  finish(to: Wire): void {
    this.writtenBytes = 0;
    if (this.#how !== HOW.intoChunks) return;
    to.writeText(LAST_CHUNK);
    this.writtenBytes = LAST_CHUNK.length;
  }

  /** Ends the response with `text`, between two chunks of the endpoint's. */
  endWith(to: Wire, text: string): void {
    const framed = text === '' ? LAST_CHUNK : `${text.length.toString(16)}\r\n${text}\r\n${LAST_CHUNK}`;
    const written = this.endsWithConnection ? text : framed;
    this.writtenBytes = written.length;
    if (written !== '') to.writeText(written);
  }

  #chunk(to: Wire, from: Wire, bytes: Buffer, piece: { start: number; end: number }): boolean {
    const { start, end } = piece;
    const size = `${(end - start).toString(16)}\r\n`;
    this.writtenBytes = size.length + end - start + CRLF.length;
    to.writeText(size);
    to.pass(from, bytes, start, end);
    return to.write(CRLF, 0, CRLF.length) && !to.blocked;
  }

  #payload(to: Wire, from: Wire, bytes: Buffer, piece: { start: number; end: number }): boolean {
    const scanner = this.#scanner;
    if (scanner === undefined) return true;
    let at = piece.start;
    let ready = true;
    while (at < piece.end) {
      const next = nextChunkPiece(bytes, at, piece.end, scanner);
      if (next <= at) break; // The bytes were judged before: the body is over.
      const { payloadStart, payloadEnd } = scanner;
      if (payloadEnd > payloadStart) {
        this.writtenBytes += payloadEnd - payloadStart;
        ready = to.pass(from, bytes, payloadStart, payloadEnd);
      }
      at = next;
    }
    return ready && !to.blocked;
  }
}
