/**
 * What a ClientHello says of who is called (RFC 8446 §4.1.2, RFC 6066 §3) and by which protocol (RFC 7301): read before TLS does, and for nothing but
 * the choice of who answers. Nothing here throws on any input, and what it does not understand it leaves to TLS to refuse.
 */

export type HelloReading =
  /** It goes on. */
  | { readonly kind: 'more' }
  /** It is none that can be read. */
  | { readonly kind: 'other' }
  | { readonly kind: 'hello'; readonly serverName: string | undefined; readonly protocols: readonly string[] };

/** The longest ones, with keys for what comes after quantum computers, have 2 KiB. */
export const HELLO_BYTES_MAX = 16 * 1024;

/** Clients send it in one, or in two where it is long. Who cuts it smaller makes work: it is looked at with each piece that comes. */
const RECORDS_MAX = 16;

const HANDSHAKE = 22;
const CLIENT_HELLO = 1;
const RECORD_HEAD = 5;
const MESSAGE_HEAD = 4;
const VERSION_AND_RANDOM = 34;
const SERVER_NAME = 0;
const PROTOCOLS = 16;
const HOST_NAME = 0;
const OTHER: HelloReading = { kind: 'other' };
const MORE: HelloReading = { kind: 'more' };

/** `bytes`: what a client has sent from its first byte on. */
export function readClientHello(bytes: Buffer): HelloReading {
  const message = helloMessage(bytes);
  return Buffer.isBuffer(message) ? helloOf(message) : message;
}

/** The message that its records carry, without its head. */
function helloMessage(bytes: Buffer): Buffer | HelloReading {
  const pieces: Buffer[] = [];
  let length = 0;
  let wanted = MESSAGE_HEAD;
  let at = 0;
  while (length < wanted) {
    if (pieces.length >= RECORDS_MAX || (at < bytes.length && bytes[at] !== HANDSHAKE)) return OTHER;
    if (at + RECORD_HEAD > bytes.length) return MORE;
    const end = at + RECORD_HEAD + bytes.readUInt16BE(at + 3);
    if (end === at + RECORD_HEAD) return OTHER; // An empty one is not allowed.
    const piece = bytes.subarray(at + RECORD_HEAD, end);
    pieces.push(piece);
    length += piece.length;
    at = end;
    if (length >= MESSAGE_HEAD && wanted === MESSAGE_HEAD) {
      const head = Buffer.concat(pieces, length);
      if (head[0] !== CLIENT_HELLO) return OTHER;
      wanted += head.readUIntBE(1, 3);
      if (wanted > HELLO_BYTES_MAX) return OTHER;
    }
    if (length < wanted && at > bytes.length) return MORE;
  }
  return Buffer.concat(pieces, length).subarray(MESSAGE_HEAD, wanted);
}

/** Reads lists and numbers of a message; what is asked for behind its end is not there. */
class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get isAtEnd(): boolean {
    return this.#at >= this.#bytes.length;
  }

  number(size: 1 | 2): number | undefined {
    const end = this.#at + size;
    if (end > this.#bytes.length) return undefined;
    const value = this.#bytes.readUIntBE(this.#at, size);
    this.#at = end;
    return value;
  }

  take(length: number): Buffer | undefined {
    const end = this.#at + length;
    if (end > this.#bytes.length) return undefined;
    const piece = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return piece;
  }

  /** What a length of `size` octets stands before. */
  list(size: 1 | 2): Buffer | undefined {
    const length = this.number(size);
    return length === undefined ? undefined : this.take(length);
  }
}

function helloOf(message: Buffer): HelloReading {
  const reader = new Reader(message);
  const skipped = [reader.take(VERSION_AND_RANDOM), reader.list(1), reader.list(2), reader.list(1)];
  if (skipped.includes(undefined)) return OTHER;
  let serverName: string | undefined;
  let protocols: readonly string[] = [];
  const extensions = new Reader(reader.list(2) ?? Buffer.alloc(0));
  while (!extensions.isAtEnd) {
    const type = extensions.number(2);
    const body = extensions.list(2);
    if (type === undefined || body === undefined) return OTHER;
    if (type === SERVER_NAME) serverName = serverNameOf(body);
    if (type === PROTOCOLS) protocols = protocolsOf(body);
  }
  return { kind: 'hello', serverName, protocols };
}

function serverNameOf(body: Buffer): string | undefined {
  const names = new Reader(new Reader(body).list(2) ?? Buffer.alloc(0));
  while (!names.isAtEnd) {
    const type = names.number(1);
    const name = names.list(2);
    if (type === undefined || name === undefined) return undefined;
    if (type === HOST_NAME) return name.toString('latin1').toLowerCase();
  }
  return undefined;
}

function protocolsOf(body: Buffer): readonly string[] {
  const list = new Reader(new Reader(body).list(2) ?? Buffer.alloc(0));
  const protocols: string[] = [];
  while (!list.isAtEnd) {
    const protocol = list.list(1);
    if (protocol === undefined) return [];
    protocols.push(protocol.toString('latin1'));
  }
  return protocols;
}
