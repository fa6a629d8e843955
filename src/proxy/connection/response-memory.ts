/**
 * The head of the last response of a connection to an endpoint: what it said, and how it went on to a client.
 *
 * PERF: an endpoint often answers with the same head for as long as its Date stays the same. Where the bytes are the same and answer the same
 * method, nothing has to be read or rewritten again. Bytes are compared, never what they mean (`KeptHead`).
 */
import { FRAMING } from '#proxy/http1/body-framing.ts';
import { isPersistent } from '#proxy/http1/connection.ts';
import { FIELD, isIn } from '#proxy/http1/field-names.ts';
import { parseHead } from '#proxy/http1/head.ts';
import type { HeadView } from '#proxy/http1/head-view.ts';
import type { FieldEdits } from '#proxy/http1/rewrite.ts';
import { KeptHead } from './kept-head.ts';

export class ResponseMemory {
  status = 0;
  /** One of `FRAMING`. */
  framing: number = FRAMING.none;
  contentLength = 0;
  /** Whether the connection may go on, by what the head says. */
  persistent = false;
  /** Whether the head at hand is the one before it again. */
  repeated = false;
  readonly #kept = new KeptHead();
  #method = -1;
  #rewritten: Buffer | undefined;
  #kind = -1;
  #fields: FieldEdits | undefined;

  /** Octets of the head. */
  get length(): number {
    return this.#kept.length;
  }

  /** Whether `[start, end)` begins with the same head again, in answer to `method`. */
  isRepeatedBy(buffer: Buffer, start: number, end: number, method: number): boolean {
    this.repeated = method === this.#method && this.#kept.isRepeatedBy(buffer, start, end);
    return this.repeated;
  }

  /** Takes over a final head that was read: `[view.start, after)`. */
  note(bytes: Buffer, view: HeadView, after: number, answer: { readonly framing: number; readonly method: number }): void {
    this.status = view.status;
    this.framing = answer.framing;
    this.contentLength = view.contentLength;
    this.persistent = isPersistent(view) && answer.framing !== FRAMING.untilClose;
    this.repeated = false;
    this.#method = answer.method;
    this.#rewritten = undefined;
    this.#kept.keep(bytes, view.start, after);
    // Without a Date we add one, which changes; what changes the connection is looked at each time.
    const plain = answer.framing !== FRAMING.tunnel && answer.framing !== FRAMING.untilClose && !isIn(view.seen, FIELD.upgrade);
    this.#kept.repeatable = plain && isIn(view.seen, FIELD.date);
  }

  /** Reads the head at hand again into `view`, from the bytes that it gives. */
  read(view: HeadView): Buffer {
    const { bytes, length } = this.#kept;
    parseHead(bytes, 0, length, view); // It was parsed before: it is whole and valid.
    return bytes;
  }

  /** The head at hand as it went to a client of that kind with these changes, where it is known. */
  rewrittenFor(kind: number, fields: FieldEdits | undefined): Buffer | undefined {
    return this.repeated && this.#kind === kind && this.#fields === fields ? this.#rewritten : undefined;
  }

  /** Remembers how the head at hand, which is a repeated one, goes to clients of a kind. */
  rewrote(kind: number, fields: FieldEdits | undefined, head: Buffer): void {
    if (!this.repeated) return;
    this.#kind = kind;
    this.#fields = fields;
    this.#rewritten = Buffer.from(head);
  }
}
