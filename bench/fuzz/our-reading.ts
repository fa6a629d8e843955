/** What our codec makes of the bytes of a connection: the pieces of `src/proxy`, driven as `downstream.ts` and `upstream.ts` drive them. */
import { BodyFollower } from '#proxy/connection/body-follower.ts';
import { HeadReader, createHeadReading } from '#proxy/connection/head-reader.ts';
import { createRequestFacts, judgeRequest } from '#proxy/connection/request-facts.ts';
import { EDGE_LIMITS } from '#proxy/edge-limits.ts';
import { FRAMING, responseFraming } from '#proxy/http1/body-framing.ts';
import { isPersistent } from '#proxy/http1/connection.ts';
import { NEED_MORE } from '#proxy/http1/head.ts';
import { FIELD_STRIDE, METHOD } from '#proxy/http1/head-view.ts';
import type { HeadKind, HeadView } from '#proxy/http1/head-view.ts';
import type { ChunkLimits } from '#proxy/http1/limits.ts';
import type { Context } from './input.ts';

export interface Head {
  /** Empty for responses. */
  readonly method: string;
  readonly target: string;
  /** 0 for requests. */
  readonly status: number;
  readonly reason: string;
  readonly minor: number;
  /** Names and values in turn. */
  readonly fields: readonly string[];
  /** One of `FRAMING`. */
  readonly framing: number;
  readonly contentLength: number;
  readonly persistent: boolean;
  /** Whether an Upgrade goes on, and whether trailers are welcome. Of requests. */
  readonly upgrade: boolean;
  readonly trailers: boolean;
  /** Host and port that a request is for. */
  readonly authority: string;
}

export interface Message extends Head {
  /** The body as it came, chunk framing included. */
  readonly raw: string;
  /** The offset after it. */
  readonly end: number;
  /** What `OnHead` gave. */
  readonly rewritten: string;
}

export interface Reading {
  readonly messages: readonly Message[];
  /** Why it goes no further: `open`, `head` or `body` for want of bytes, `closed`, `ended`, `tunnel`, or `refused` and the code. */
  readonly stop: string;
}

/** Called for each head that is taken, while it lies in its bytes. */
export type OnHead = (bytes: Buffer, view: HeadView, head: Head) => string;

export const CHUNK_LIMITS: ChunkLimits = {
  extensionBytesMax: EDGE_LIMITS.chunkExtensionBytesMax,
  extensionBytesTotalMax: EDGE_LIMITS.chunkExtensionBytesTotalMax,
  trailerBytesMax: EDGE_LIMITS.trailerBytesMax,
  trailerCountMax: EDGE_LIMITS.trailerCountMax,
};
/** Shared by all readings, as a worker's connections share theirs: one that leaves something behind spoils the next. */
const READINGS = {
  request: createHeadReading('request', EDGE_LIMITS),
  response: createHeadReading('response', EDGE_LIMITS),
};
/** What we write is longer than what came: another reader of it may have other limits. */
const AMPLE = { lineBytesMax: 128 * 1024, headBytesMax: 128 * 1024, fieldCountMax: 256 };
const AMPLE_READINGS = { request: createHeadReading('request', AMPLE), response: createHeadReading('response', AMPLE) };
const METHODS: ReadonlyMap<string, number> = new Map(Object.entries(METHOD));
const REUSED = 0xaa;
const NO_REWRITING: OnHead = () => '';

export interface Connection {
  readonly kind: HeadKind;
  readonly context: Context;
  /** Whether the limits of the edge do not count. */
  readonly ample?: boolean;
}

/** Reads `pieces` one after the other; several of them are spoilt by it. Responses: the connection ends after them. */
export function readOurs(connection: Connection, pieces: readonly Buffer[], onHead: OnHead = NO_REWRITING): Reading {
  const following = new Following(connection, onHead);
  for (const piece of pieces) {
    following.feed(piece);
    // As on a connection, whose buffer is read into again: what still looks there sees something else.
    if (pieces.length > 1) piece.fill(REUSED);
  }
  following.end();
  return following;
}

/** Bytes that unfinished heads of all readings hold: 0 between two of them. */
export function unfinishedBytes(): number {
  return [READINGS, AMPLE_READINGS].reduce(
    (sum, { request, response }) => sum + request.unfinishedBytes + response.unfinishedBytes,
    0,
  );
}

class Following implements Reading {
  readonly messages: Message[] = [];
  stop = '';
  readonly #connection: Connection;
  readonly #onHead: OnHead;
  readonly #reader: HeadReader;
  readonly #body = new BodyFollower(CHUNK_LIMITS);
  #fed = 0;
  #head: (Head & { rewritten: string }) | undefined;
  #raw = '';

  constructor(connection: Connection, onHead: OnHead) {
    this.#connection = connection;
    this.#onHead = onHead;
    this.#reader = new HeadReader((connection.ample === true ? AMPLE_READINGS : READINGS)[connection.kind]);
  }

  feed(piece: Buffer): void {
    this.#fed += piece.length;
    let bytes = piece;
    let at = 0;
    let end = piece.length;
    while (at < end && this.stop === '') {
      const next = this.#head === undefined ? this.#reader.read(bytes, at, end) : this.#body.follow(bytes, at, end);
      if (this.#head === undefined) {
        if (next === NEED_MORE) return;
        if (next > 0) {
          ({ bytes, end } = this.#reader);
          this.#begin(bytes);
        }
        this.#reader.release();
      } else if (next >= 0) this.#raw += bytes.toString('latin1', at, next);
      if (next < 0) this.stop = `refused ${next}`;
      at = next;
      if (this.stop === '' && this.#body.whole) this.#finish(this.#fed - (end - at));
    }
  }

  end(): void {
    const begun = this.#reader.begun;
    this.#reader.release();
    if (this.stop !== '') return;
    if (this.#head !== undefined && this.#body.framing === FRAMING.untilClose) {
      this.#finish(this.#fed);
      this.stop = 'ended';
    } else if (this.#head !== undefined) this.stop = 'body';
    else this.stop = begun ? 'head' : 'open';
  }

  #begin(bytes: Buffer): void {
    const { view } = this.#reader;
    const head = this.#connection.kind === 'request' ? this.#judgeRequest(bytes, view) : this.#judgeResponse(bytes, view);
    if (head === undefined) return;
    this.#head = { ...head, rewritten: this.#onHead(bytes, view, head) };
    this.#raw = '';
    this.#body.begin(head.framing === FRAMING.tunnel ? FRAMING.none : head.framing, head.contentLength);
  }

  #judgeRequest(bytes: Buffer, view: HeadView): Head | undefined {
    const facts = createRequestFacts();
    const refused = judgeRequest(bytes, view, this.#connection.context.secure, facts);
    if (refused < 0) {
      this.stop = `refused ${refused}`;
      return undefined;
    }
    const { framing, contentLength, persistent, upgrade, trailers } = facts;
    const text = (start: number, end: number): string => bytes.toString('latin1', start, end);
    return {
      ...ofView(bytes, view),
      method: text(view.start, view.methodEnd),
      target: text(view.targetStart, view.targetEnd),
      authority: text(view.hostStart, view.authorityEnd),
      framing,
      contentLength,
      persistent,
      upgrade,
      trailers,
    };
  }

  #judgeResponse(bytes: Buffer, view: HeadView): Head | undefined {
    const { method, upgrade } = this.#connection.context;
    const framing = responseFraming(bytes, view, { method: METHODS.get(method.toLowerCase()) ?? METHOD.other, upgrade });
    if (framing < 0) {
      this.stop = `refused ${framing}`;
      return undefined;
    }
    return {
      ...ofView(bytes, view),
      status: view.status,
      reason: bytes.toString('latin1', view.reasonStart, view.reasonEnd),
      framing,
      contentLength: framing === FRAMING.fixed ? view.contentLength : 0,
      persistent: isPersistent(view) && framing !== FRAMING.untilClose,
    };
  }

  #finish(end: number): void {
    const head = this.#head;
    if (head === undefined) return;
    this.messages.push({ ...head, raw: this.#raw, end });
    this.#head = undefined;
    const interim = head.status > 0 && head.status < 200 && head.status !== 101;
    if (head.framing === FRAMING.tunnel || head.method === 'CONNECT') this.stop = 'tunnel';
    else if (!interim && !head.persistent) this.stop = 'closed';
  }
}

function ofView(bytes: Buffer, view: HeadView): Head {
  const fields: string[] = [];
  for (let at = 0; at < view.fieldCount * FIELD_STRIDE; at += FIELD_STRIDE) {
    const [nameStart = 0, nameEnd = 0, start = 0, end = 0] = view.fields.subarray(at, at + 4);
    fields.push(bytes.toString('latin1', nameStart, nameEnd), bytes.toString('latin1', start, end));
  }
  return {
    method: '',
    target: '',
    status: 0,
    reason: '',
    minor: view.minor,
    fields,
    framing: FRAMING.none,
    contentLength: 0,
    persistent: false,
    upgrade: false,
    trailers: false,
    authority: '',
  };
}
