/**
 * A strict reader of HTTP/1.1 messages for tests: what peers of the edge make of the bytes they get.
 *
 * Source: RFC 9112 §2–§7. Written apart from `src/proxy/http1`, so that a mistake there is not made here as well. It takes less than the RFC
 * allows: whatever two readers could take differently is a fault. Texts are latin1: one character an octet.
 */

export type Field = readonly [name: string, value: string];

export interface RawMessage {
  readonly startLine: string;
  /** Of a request; empty in responses. */
  readonly method: string;
  readonly target: string;
  /** Of a response; 0 in requests. */
  readonly status: number;
  readonly fields: readonly Field[];
  readonly framing: 'none' | 'fixed' | 'chunked' | 'untilClose' | 'tunnel';
  readonly body: string;
  readonly trailers: readonly Field[];
}

type Phase = 'head' | 'fixed' | 'chunkSize' | 'chunk' | 'trailers' | 'untilClose' | 'tunnel';

interface Pending {
  readonly head: Omit<RawMessage, 'body' | 'trailers'>;
  readonly pieces: string[];
  left: number;
}

export interface MessageReader {
  readonly kind: 'request' | 'response';
  /** Methods of the requests that responses are to come for, in order. */
  readonly asked: string[];
  readonly messages: RawMessage[];
  /** Why the bytes are no messages; nothing is read after that. */
  fault: string | undefined;
  /** What was not taken yet. */
  rest: string;
  phase: Phase;
  pending: Pending | undefined;
  readonly onHead: ((head: Pending['head']) => void) | undefined;
}

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;
const REQUEST_LINE = /^([!#$%&'*+\-.^_`|~0-9A-Z]+) ([\x21-\x7e]+) HTTP\/1\.1$/;
const STATUS_LINE = /^HTTP\/1\.1 ([1-5][0-9][0-9]) [\t\x20-\x7e\x80-\xff]*$/;
const CHUNK_SIZE = /^([0-9a-fA-F]{1,14})(?:;[\t\x20-\x7e\x80-\xff]*)?$/;
const LENGTH = /^[0-9]{1,16}$/;

export function createReader(kind: MessageReader['kind'], onHead?: (head: Pending['head']) => void): MessageReader {
  return { kind, asked: [], messages: [], fault: undefined, rest: '', phase: 'head', pending: undefined, onHead };
}

/** Goes on with `text`; messages that are whole by then are in `messages`. */
export function feed(reader: MessageReader, text: string): void {
  reader.rest += text;
  while (reader.fault === undefined && step(reader));
}

/** The connection ended without an error: that is the end of a body that has no other. */
export function feedEnd(reader: MessageReader): void {
  if (reader.phase === 'untilClose') finish(reader, []);
}

/** Whether nothing of a message was begun that is not whole. */
export function isBetween(reader: MessageReader): boolean {
  return reader.fault === undefined && reader.phase === 'head' && reader.rest === '';
}

/** Responses that are not interim ones. */
export function finals(reader: MessageReader): readonly RawMessage[] {
  return reader.messages.filter(({ status }) => status >= 200 || status === 101);
}

/** The values of a field, of any case. */
export function valuesOf(message: Pick<RawMessage, 'fields'>, name: string): string[] {
  const wanted = name.toLowerCase();
  return message.fields.filter(([key]) => key.toLowerCase() === wanted).map(([, value]) => value);
}

/** One step; whether another may be possible with what is there. */
function step(reader: MessageReader): boolean {
  switch (reader.phase) {
    case 'head':
      return readHead(reader);
    case 'fixed':
    case 'chunk':
      return readPayload(reader);
    case 'chunkSize':
      return readChunkSize(reader);
    case 'trailers':
      return readTrailers(reader);
    case 'untilClose':
    case 'tunnel':
      reader.pending?.pieces.push(reader.rest);
      reader.rest = '';
      return false;
  }
}

function readHead(reader: MessageReader): boolean {
  const end = reader.rest.indexOf('\r\n\r\n');
  if (end === -1) return false;
  const lines = reader.rest.slice(0, end).split('\r\n');
  reader.rest = reader.rest.slice(end + 4);
  const [startLine = '', ...fieldLines] = lines;
  const fields = readFields(reader, fieldLines);
  if (fields === undefined) return false;
  const request = REQUEST_LINE.exec(startLine);
  const response = STATUS_LINE.exec(startLine);
  if ((reader.kind === 'request' ? request : response) === null) return fail(reader, `start line ${JSON.stringify(startLine)}`);
  const method = request?.[1] ?? '';
  const status = Number(response?.[1] ?? '0');
  if (reader.kind === 'request' && valuesOf({ fields }, 'host').length !== 1) return fail(reader, 'not one Host');
  const left = bodyLength(reader, fields, status);
  if (typeof left === 'string' && left !== 'chunked') return fail(reader, left);
  const framing = framingOf(reader, left, status);
  const head = { startLine, method, target: request?.[2] ?? '', status, fields, framing };
  reader.pending = { head, pieces: [], left: typeof left === 'number' ? left : 0 };
  reader.onHead?.(head);
  if (framing === 'none' || (framing === 'fixed' && left === 0)) finish(reader, []);
  else reader.phase = framing === 'chunked' ? 'chunkSize' : framing;
  if (framing === 'tunnel') reader.messages.push({ ...head, body: '', trailers: [] });
  return true;
}

function readFields(reader: MessageReader, lines: readonly string[]): Field[] | undefined {
  const fields: Field[] = [];
  for (const line of lines) {
    const colon = line.indexOf(':');
    const name = line.slice(0, Math.max(colon, 0));
    const value = line.slice(colon + 1).replaceAll(/^[\t ]+|[\t ]+$/g, '');
    if (!TOKEN.test(name) || !VALUE.test(value)) {
      fail(reader, `field line ${JSON.stringify(line)}`);
      return undefined;
    }
    fields.push([name, value]);
  }
  return fields;
}

type BodyLength = number | 'chunked' | undefined;
/** What a framing that may not be is called by: longer than any word above. */
type Fault = `framing: ${string}`;

/** What the fields say about a body; undefined where they say nothing. */
function bodyLength(reader: MessageReader, fields: readonly Field[], status: number): BodyLength | Fault {
  const lengths = valuesOf({ fields }, 'content-length');
  const encodings = valuesOf({ fields }, 'transfer-encoding');
  const bodyless = reader.kind === 'response' && (status < 200 || status === 204);
  if (lengths.length + encodings.length > 1) return 'framing: more than one field';
  if (bodyless && lengths.length + encodings.length > 0) return 'framing: a field that may not be in this response';
  const [encoding] = encodings;
  const [length] = lengths;
  if (encoding !== undefined) return encoding === 'chunked' ? 'chunked' : `framing: coding ${JSON.stringify(encoding)}`;
  if (length === undefined) return undefined;
  return LENGTH.test(length) ? Number(length) : `framing: length ${JSON.stringify(length)}`;
}

function framingOf(reader: MessageReader, left: BodyLength, status: number): RawMessage['framing'] {
  const said = left === 'chunked' ? 'chunked' : left === undefined ? undefined : 'fixed';
  if (reader.kind === 'request') return said ?? 'none';
  if (status === 101) return 'tunnel';
  if (status < 200) return 'none';
  const method = reader.asked.shift();
  if (method === 'HEAD' || status === 204 || status === 304) return 'none';
  return said ?? 'untilClose';
}

function readPayload(reader: MessageReader): boolean {
  const { pending, phase } = reader;
  if (pending === undefined || reader.rest === '') return false;
  const piece = reader.rest.slice(0, pending.left);
  pending.pieces.push(piece);
  pending.left -= piece.length;
  reader.rest = reader.rest.slice(piece.length);
  if (pending.left > 0) return false;
  if (phase === 'fixed') {
    finish(reader, []);
    return true;
  }
  // The CRLF after the payload of a chunk is read as a line of its own: -1 says that it is due.
  pending.left = -1;
  reader.phase = 'chunkSize';
  return true;
}

function readChunkSize(reader: MessageReader): boolean {
  const { pending } = reader;
  const end = reader.rest.indexOf('\r\n');
  if (pending === undefined) return false;
  if (end === -1) return reader.rest.length > 20_000 ? fail(reader, 'chunk size without end') : false;
  const line = reader.rest.slice(0, end);
  reader.rest = reader.rest.slice(end + 2);
  if (pending.left === -1) {
    pending.left = 0;
    return line === '' ? true : fail(reader, `end of chunk ${JSON.stringify(line.slice(0, 80))}`);
  }
  const size = CHUNK_SIZE.exec(line)?.[1];
  if (size === undefined) return fail(reader, `chunk size ${JSON.stringify(line.slice(0, 80))}`);
  pending.left = Number.parseInt(size, 16);
  reader.phase = pending.left === 0 ? 'trailers' : 'chunk';
  return true;
}

function readTrailers(reader: MessageReader): boolean {
  const { rest } = reader;
  if (rest.startsWith('\r\n')) {
    reader.rest = rest.slice(2);
    finish(reader, []);
    return true;
  }
  const end = rest.indexOf('\r\n\r\n');
  if (end === -1) return false;
  const trailers = readFields(reader, rest.slice(0, end).split('\r\n'));
  reader.rest = rest.slice(end + 4);
  if (trailers === undefined) return false;
  finish(reader, trailers);
  return true;
}

function finish(reader: MessageReader, trailers: readonly Field[]): void {
  const { pending } = reader;
  reader.phase = 'head';
  reader.pending = undefined;
  if (pending !== undefined) reader.messages.push({ ...pending.head, body: pending.pieces.join(''), trailers });
}

function fail(reader: MessageReader, fault: string): false {
  reader.fault = fault;
  return false;
}
