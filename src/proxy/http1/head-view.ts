/**
 * Where the parts of a message head lie in the bytes that hold it: offsets, codes and bits, made once for each connection and used for
 * every head that comes over it.
 *
 * INVARIANT: offsets are indices into the buffer that the last `parseHead` was given; a view says nothing once those bytes are gone.
 * PERF: integers only. `node bench/head-codec.ts` has what reading into such a view costs beside arrays of strings.
 */
import type { HeadLimits } from './limits.ts';

export const METHOD = {
  other: 0,
  get: 1,
  head: 2,
  post: 3,
  put: 4,
  delete: 5,
  connect: 6,
  options: 7,
  trace: 8,
  patch: 9,
} as const;

/** The forms of RFC 9112 §3.2. */
export const TARGET_FORM = { origin: 1, absolute: 2, authority: 3, asterisk: 4 } as const;

/** What of `Connection` is for us. Bits of `options`. */
export const OPTION = { close: 1, keepAlive: 2, upgrade: 4, te: 8 } as const;

/** Where the scan of a head stands. */
export const PHASE = { idle: 0, startLine: 1, fields: 2 } as const;

/** Integers that a field takes in `fields`: start and end of its name, start and end of its value, its code. */
export const FIELD_STRIDE = 5;

export type HeadKind = 'request' | 'response';

export interface HeadView {
  readonly kind: HeadKind;
  readonly limits: HeadLimits;
  /** Where the head begins, an empty line before it included. */
  base: number;
  /** One of `PHASE`. */
  phase: number;
  /** Where the line begins that is not whole yet. */
  lineStart: number;
  /** How far that line was looked through: the next call goes on from here. */
  scanned: number;

  /** Where the start line begins. */
  start: number;
  /** One of `METHOD`. */
  method: number;
  methodEnd: number;
  targetStart: number;
  targetEnd: number;
  /** One of `TARGET_FORM`. */
  targetForm: number;
  /** Whether an absolute target says `https`. */
  targetSecure: boolean;
  /** The path with its query; empty where an absolute target has none. */
  pathStart: number;
  pathEnd: number;
  queryStart: number;
  /** The host that the request is for, without port: of the target if it names one, else of `Host`. Empty if neither does (HTTP/1.0). */
  hostStart: number;
  hostEnd: number;
  /** That host with its port. */
  authorityEnd: number;
  /** 0 or 1: the x of HTTP/1.x. */
  minor: number;
  status: number;
  reasonStart: number;
  reasonEnd: number;

  /** Where the first field line begins. */
  fieldsStart: number;
  /** Where the empty line begins that ends the head. */
  fieldsEnd: number;
  fieldCount: number;
  /** `FIELD_STRIDE` integers a field, then the start of the next line. */
  readonly fields: Int32Array;
  /** Sets of field codes (`isIn`): those that are there, and those that are there more than once. */
  seen: number;
  repeated: number;
  /** Index into `fields` of the first field of a code. Only for codes in `seen`. */
  readonly first: Int32Array;
  /** Bits of `OPTION`. */
  options: number;

  /** Set by `requestFraming` and `responseFraming`. -1 where the length is not told in advance. */
  contentLength: number;
}

export function createHeadView(kind: HeadKind, limits: HeadLimits): HeadView {
  return {
    kind,
    limits,
    base: 0,
    phase: PHASE.idle,
    lineStart: 0,
    scanned: 0,
    start: 0,
    method: 0,
    methodEnd: 0,
    targetStart: 0,
    targetEnd: 0,
    targetForm: 0,
    targetSecure: false,
    pathStart: 0,
    pathEnd: 0,
    queryStart: 0,
    hostStart: 0,
    hostEnd: 0,
    authorityEnd: 0,
    minor: 0,
    status: 0,
    reasonStart: 0,
    reasonEnd: 0,
    fieldsStart: 0,
    fieldsEnd: 0,
    fieldCount: 0,
    fields: new Int32Array((limits.fieldCountMax + 1) * FIELD_STRIDE),
    seen: 0,
    repeated: 0,
    first: new Int32Array(32),
    options: 0,
    contentLength: -1,
  };
}

/** Makes `view` ready for a head that begins at `base`, whatever it held. */
export function resetHeadView(view: HeadView, base: number): void {
  view.base = base;
  view.phase = PHASE.startLine;
  view.lineStart = base;
  view.scanned = base;
  view.fieldCount = 0;
  view.seen = 0;
  view.repeated = 0;
  view.options = 0;
  view.targetSecure = false;
  view.hostStart = 0;
  view.hostEnd = 0;
  view.authorityEnd = 0;
  view.contentLength = -1;
}

/** The bytes moved: what was read so far of a head, which is not whole, now begins at `base`. */
export function rebaseHeadView(view: HeadView, base: number): void {
  const shift = base - view.base;
  view.base = base;
  view.lineStart += shift;
  view.scanned += shift;
  view.start += shift;
  view.methodEnd += shift;
  view.targetStart += shift;
  view.targetEnd += shift;
  view.reasonStart += shift;
  view.reasonEnd += shift;
  view.fieldsStart += shift;
  const used = view.fieldCount * FIELD_STRIDE;
  for (let at = 0; at < used; at += FIELD_STRIDE) {
    for (let part = 0; part < FIELD_STRIDE - 1; part += 1) view.fields[at + part] = (view.fields[at + part] ?? 0) + shift;
  }
}

/** Start and end of the value of the first field of `code`, which is in `seen`. */
export function valueStart(view: HeadView, code: number): number {
  return view.fields[(view.first[code] ?? 0) + 2] ?? 0;
}

export function valueEnd(view: HeadView, code: number): number {
  return view.fields[(view.first[code] ?? 0) + 3] ?? 0;
}
