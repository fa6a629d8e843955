/**
 * The server name of a ClientHello, read before anything of TLS is done (RFC 8446 §4.1.2, RFC 6066 §3): whether clients are asked for certificates, and
 * the least version, have to be known before a handshake begins. What a handshake gets is OpenSSL's own reading; this one only chooses who does it, so
 * that what cannot be read here is no fault.
 */

export type ClientHello =
  /** Undefined: it names none. */
  | { readonly kind: 'hello'; readonly serverName: string | undefined }
  | { readonly kind: 'more' }
  /** No ClientHello, or one of a form that is not read here. */
  | { readonly kind: 'other' };

/** Hellos with post-quantum key shares have 2 KiB, and tickets some more. */
export const HELLO_BYTES_MAX: number = 16 * 1024;

/** Clients use one or two; each costs a copy, again with every read. */
const RECORDS_MAX = 8;
const RECORD_HEAD = 5;
const MESSAGE_HEAD = 4;
const HANDSHAKE = 22;
const CLIENT_HELLO = 1;
const VERSION_AND_RANDOM = 34;
const SERVER_NAME = 0;
const HOST_NAME = 0;
const MORE = { kind: 'more' } as const;
const OTHER = { kind: 'other' } as const;

/** Reads what has come of a connection. */
export function readClientHello(bytes: Buffer): ClientHello {
  const message = messageOf(bytes);
  if (!Buffer.isBuffer(message)) return message;
  try {
    return { kind: 'hello', serverName: serverNameIn(message) };
  } catch (error) {
    if (error instanceof RangeError) return OTHER; // It ends in the middle of something.
    throw error;
  }
}

/** The body of the message, which may be in several records. */
function messageOf(bytes: Buffer): Buffer | typeof MORE | typeof OTHER {
  let gathered: Buffer = Buffer.alloc(0);
  let at = 0;
  for (let record = 0; record < RECORDS_MAX; record += 1) {
    if (at < bytes.length && bytes[at] !== HANDSHAKE) return OTHER;
    if (bytes.length < at + RECORD_HEAD) return MORE;
    const length = bytes.readUInt16BE(at + 3);
    if (bytes.readUInt8(at + 1) !== 3 || length === 0) return OTHER;
    if (at + RECORD_HEAD + length > HELLO_BYTES_MAX) return OTHER;
    const part = bytes.subarray(at + RECORD_HEAD, at + RECORD_HEAD + length);
    gathered = at === 0 ? part : Buffer.concat([gathered, part]);
    if (gathered.length > 0 && gathered[0] !== CLIENT_HELLO) return OTHER;
    if (gathered.length >= MESSAGE_HEAD) {
      const end = MESSAGE_HEAD + gathered.readUIntBE(1, 3);
      if (end > HELLO_BYTES_MAX) return OTHER;
      if (gathered.length >= end) return gathered.subarray(MESSAGE_HEAD, end);
    }
    if (part.length < length) return MORE;
    at += RECORD_HEAD + length;
  }
  return OTHER;
}

/** Throws a RangeError where the message is cut. */
function serverNameIn(message: Buffer): string | undefined {
  let at = VERSION_AND_RANDOM;
  at += 1 + message.readUInt8(at); // session id
  at += 2 + message.readUInt16BE(at); // cipher suites
  at += 1 + message.readUInt8(at); // compression methods
  if (at === message.length) return undefined; // No extensions.
  const end = at + 2 + message.readUInt16BE(at);
  at += 2;
  while (at < end) {
    const type = message.readUInt16BE(at);
    const length = message.readUInt16BE(at + 2);
    at += 4;
    if (type === SERVER_NAME) return hostNameIn(message, at, at + length);
    at += length;
  }
  return undefined;
}

function hostNameIn(message: Buffer, start: number, end: number): string | undefined {
  if (end > message.length || end - start < 5) return undefined;
  const length = message.readUInt16BE(start + 3);
  const from = start + 5;
  if (message.readUInt8(start + 2) !== HOST_NAME || from + length > end) return undefined;
  return message.toString('latin1', from, from + length).toLowerCase();
}
