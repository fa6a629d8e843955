/**
 * The PROXY protocol, versions 1 and 2: what a load balancer writes before the bytes of a connection to tell whose they are.
 *
 * Source: proxy-protocol.txt of HAProxy (2020/03/05), §2.1, §2.2. SECURITY: whoever may send the header may be anybody: read it only on
 * connections of trusted proxies, and there always, never by guess (§5).
 * INVARIANT: what is decided is decided by a prefix, byte by byte: any split of the bytes into reads gives the same result, and what cannot become
 * a header is refused at the first byte that shows it. The block of version 2 alone is judged whole (§2.2: not before all of it is there).
 * Limits: 107 bytes in version 1, 16 + `BLOCK_BYTES_MAX` in version 2. Never throws on what it reads.
 */
import { isIPv4, isIPv6 } from 'node:net';
import { ADDRESS_BYTES, IPV4_OFFSET, addressText, canonicalAddress, isMapped, quadText, readAddress } from '#proxy/ip-address.ts';

export interface ProxyHeader {
  /** `local`: the connection is the proxy's own, or it does not know whose it is: its socket's addresses are the facts. The rest is empty then. */
  kind: 'local' | 'proxied';
  /** In one spelling each (RFC 5952); IPv4-mapped addresses as IPv4. */
  sourceAddress: string;
  sourcePort: number;
  destinationAddress: string;
  destinationPort: number;
}

export const PROXY_REFUSED = {
  signature: -1,
  protocol: -2,
  address: -3,
  port: -4,
  lineTooLong: -5,
  lineEnd: -6,
  version: -7,
  command: -8,
  family: -9,
  blockTooLong: -10,
  blockTooShort: -11,
  field: -12,
  checksum: -13,
} as const;

const REASONS: ReadonlyMap<number, string> = new Map([
  [PROXY_REFUSED.signature, 'the connection does not begin with a PROXY header'],
  [PROXY_REFUSED.protocol, 'the PROXY header is for none of TCP4, TCP6 and UNKNOWN'],
  [PROXY_REFUSED.address, 'the PROXY header has an address that is none of its family'],
  [PROXY_REFUSED.port, 'the PROXY header has a port that is not a number from 0 to 65535'],
  [PROXY_REFUSED.lineTooLong, 'the PROXY header has more than 107 bytes'],
  [PROXY_REFUSED.lineEnd, 'the PROXY header does not end with CRLF'],
  [PROXY_REFUSED.version, 'the PROXY header is of a version other than 1 and 2'],
  [PROXY_REFUSED.command, 'the PROXY header has a command other than LOCAL and PROXY'],
  [PROXY_REFUSED.family, 'the PROXY header has an unknown address family or transport'],
  [PROXY_REFUSED.blockTooLong, 'the PROXY header says that it is longer than 2 KiB'],
  [PROXY_REFUSED.blockTooShort, 'the PROXY header is shorter than its addresses'],
  [PROXY_REFUSED.field, 'the PROXY header has a malformed field after its addresses'],
  [PROXY_REFUSED.checksum, 'the PROXY header has a wrong checksum'],
]);

/** What a negative result of `readProxyHeader` means: one line, for the log. */
export function proxyRefusalReason(code: number): string {
  return REASONS.get(code) ?? 'the PROXY header is malformed';
}

/** An empty header to read into. */
export function createProxyHeader(): ProxyHeader {
  return { kind: 'local', sourceAddress: '', sourcePort: 0, destinationAddress: '', destinationPort: 0 };
}

/** §2.1: the longest line that is possible, its CRLF included. */
const LINE_BYTES_MAX = 107;
/** §2.2: after the 16 fixed bytes. Addresses have 216 at most, and the fields of a TLS connection some hundreds. */
const BLOCK_BYTES_MAX = 2048;
const SIGNATURE = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1');
const FIXED_BYTES = 16;
const PORT_MAX = 65_535;
/** `ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255` */
const ADDRESS_LENGTH_MAX = 45;

const CR = 13;
const LF = 10;
const SPACE = 32;

/**
 * Reads the header at `start` and what is there up to `end`. Returns the offset after it, 0 where it needs more bytes (call again with the same
 * `start`), or a code of `PROXY_REFUSED`. `out` is written where the header is whole, and left alone otherwise. `start` may be 0.
 */
export function readProxyHeader(buffer: Buffer, start: number, end: number, out: ProxyHeader): number {
  if (start >= end) return 0;
  return buffer[start] === SIGNATURE[0] ? readBlock(buffer, start, end, out) : readLine(buffer, start, end, out);
}

/**
 * The header that tells `facts`: to be written before the first byte of a connection, in one piece.
 *
 * Addresses of different families (a client of IPv6 at an IPv4 address of ours, as dual-stack sockets and other proxies tell it) go as IPv6, the
 * IPv4 one mapped: both versions have one family for both, and the client's address is what the header is for. Version 1 writes it in hexadecimal
 * groups, since §2.1 knows no dots in TCP6. Facts that are no addresses and ports go as `UNKNOWN` or `LOCAL`: never throws.
 */
export function writeProxyHeader(version: 1 | 2, facts: Readonly<ProxyHeader>): Buffer {
  const addresses = Buffer.alloc(2 * ADDRESS_BYTES);
  const isTold =
    facts.kind === 'proxied' &&
    readAddress(facts.sourceAddress, addresses) &&
    readAddress(facts.destinationAddress, addresses, ADDRESS_BYTES) &&
    isPort(facts.sourcePort) &&
    isPort(facts.destinationPort);
  return version === 1 ? lineOf(facts, addresses, isTold) : blockOf(facts, addresses, isTold);
}

function isPort(port: number): boolean {
  return Number.isInteger(port) && port >= 0 && port <= PORT_MAX;
}

function lineOf(facts: Readonly<ProxyHeader>, addresses: Buffer, isTold: boolean): Buffer {
  if (!isTold) return Buffer.from('PROXY UNKNOWN\r\n', 'latin1');
  const isFour = isMapped(addresses) && isMapped(addresses, ADDRESS_BYTES);
  const text = (offset: number): string => (isFour ? addressText(addresses, offset) : groupsText(addresses, offset));
  const ports = `${String(facts.sourcePort)} ${String(facts.destinationPort)}`;
  return Buffer.from(`PROXY TCP${isFour ? '4' : '6'} ${text(0)} ${text(ADDRESS_BYTES)} ${ports}\r\n`, 'latin1');
}

function groupsText(addresses: Buffer, offset: number): string {
  if (!isMapped(addresses, offset)) return addressText(addresses, offset);
  const group = (at: number): string => addresses.readUInt16BE(offset + at).toString(16);
  return `::ffff:${group(IPV4_OFFSET)}:${group(IPV4_OFFSET + 2)}`;
}

function blockOf(facts: Readonly<ProxyHeader>, addresses: Buffer, isTold: boolean): Buffer {
  if (!isTold) return Buffer.concat([SIGNATURE, Buffer.from([0x20, 0, 0, 0])]);
  const isFour = isMapped(addresses) && isMapped(addresses, ADDRESS_BYTES);
  const blockBytes = isFour ? 12 : 36;
  const ports = Buffer.alloc(4);
  ports.writeUInt16BE(facts.sourcePort, 0);
  ports.writeUInt16BE(facts.destinationPort, 2);
  return Buffer.concat([
    SIGNATURE,
    Buffer.from([0x21, isFour ? 0x11 : 0x21, 0, blockBytes]),
    isFour ? addresses.subarray(IPV4_OFFSET, ADDRESS_BYTES) : addresses.subarray(0, ADDRESS_BYTES),
    isFour ? addresses.subarray(ADDRESS_BYTES + IPV4_OFFSET) : addresses.subarray(ADDRESS_BYTES),
    ports,
  ]);
}

function tell(out: ProxyHeader, source: string, destination: string): void {
  out.kind = 'proxied';
  out.sourceAddress = source;
  out.destinationAddress = destination;
}

function tellLocal(out: ProxyHeader): void {
  out.kind = 'local';
  out.sourceAddress = '';
  out.sourcePort = 0;
  out.destinationAddress = '';
  out.destinationPort = 0;
}

/** Follows `octets` from `at` on: returns the offset after them, 0 where `end` comes first, or `code` where they differ. */
function literalEnd(
  buffer: Buffer,
  at: number,
  end: number,
  literal: { readonly octets: Buffer; readonly code: number },
): number {
  const { octets, code } = literal;
  const there = Math.min(octets.length, end - at);
  for (let index = 0; index < there; index += 1) if (buffer[at + index] !== octets[index]) return code;
  return there === octets.length ? at + there : 0;
}

// Version 1: a line of text.

const LINE = { octets: Buffer.from('PROXY '), code: PROXY_REFUSED.signature };
const UNKNOWN = { octets: Buffer.from('UNKNOWN'), code: PROXY_REFUSED.protocol };
const TCP = { octets: Buffer.from('TCP'), code: PROXY_REFUSED.protocol };
const TCP_END = { octets: Buffer.from(' '), code: PROXY_REFUSED.protocol };
const LETTER_U = 85;
const FOUR = 52;
const SIX = 54;

function readLine(buffer: Buffer, start: number, end: number, out: ProxyHeader): number {
  const after = lineEnd(buffer, start, Math.min(end, start + LINE_BYTES_MAX), out);
  return after === 0 && end - start >= LINE_BYTES_MAX ? PROXY_REFUSED.lineTooLong : after;
}

/** Offset after the line, 0 where `end` comes first, or why not. */
function lineEnd(buffer: Buffer, start: number, end: number, out: ProxyHeader): number {
  const protocol = literalEnd(buffer, start, end, LINE);
  if (protocol <= 0 || protocol === end) return Math.min(protocol, 0);
  if (buffer[protocol] === LETTER_U) return unknownEnd(buffer, literalEnd(buffer, protocol, end, UNKNOWN), end, out);
  const family = literalEnd(buffer, protocol, end, TCP);
  if (family <= 0 || family === end) return Math.min(family, 0);
  if (buffer[family] !== FOUR && buffer[family] !== SIX) return PROXY_REFUSED.protocol;
  const source = literalEnd(buffer, family + 1, end, TCP_END);
  return source <= 0 ? source : addressesEnd(buffer, source, end, out);
}

/** Offset after the line whose source address begins at `source`, 0 where `end` comes first, or why not. */
function addressesEnd(buffer: Buffer, source: number, end: number, out: ProxyHeader): number {
  const isFour = buffer[source - 2] === FOUR;
  const sourceEnd = addressEnd(buffer, source, end, isFour);
  if (sourceEnd <= 0) return sourceEnd;
  const destinationEnd = addressEnd(buffer, sourceEnd + 1, end, isFour);
  if (destinationEnd <= 0) return destinationEnd;
  const sourcePortEnd = portEnd(buffer, destinationEnd + 1, end, SPACE);
  if (sourcePortEnd <= 0) return sourcePortEnd;
  const portsEnd = portEnd(buffer, sourcePortEnd + 1, end, CR);
  if (portsEnd <= 0 || portsEnd + 1 === end) return Math.min(portsEnd, 0);
  if (buffer[portsEnd + 1] !== LF) return PROXY_REFUSED.lineEnd;
  const text = (from: number, to: number): string => buffer.toString('latin1', from, to);
  tell(out, canonicalAddress(text(source, sourceEnd)) ?? '', canonicalAddress(text(sourceEnd + 1, destinationEnd)) ?? '');
  out.sourcePort = Number(text(destinationEnd + 1, sourcePortEnd));
  out.destinationPort = Number(text(sourcePortEnd + 1, portsEnd));
  return portsEnd + 2;
}

/** §2.1: what follows UNKNOWN is to be ignored up to the CRLF; it is held to printable characters. */
function unknownEnd(buffer: Buffer, after: number, end: number, out: ProxyHeader): number {
  if (after <= 0) return after;
  for (let at = after; at < end; at += 1) {
    const octet = buffer[at] ?? 0;
    if (octet === CR) {
      if (at + 1 === end) return 0;
      if (buffer[at + 1] !== LF) return PROXY_REFUSED.lineEnd;
      tellLocal(out);
      return at + 2;
    }
    if (at === after && octet !== SPACE) return octet === LF ? PROXY_REFUSED.lineEnd : PROXY_REFUSED.protocol;
    if (octet < SPACE || octet > 126) return PROXY_REFUSED.lineEnd;
  }
  return 0;
}

const FOUR_OCTETS = octetSet('0123456789.');
/** With dots: §2.1 has none, but HAProxy writes IPv4-mapped addresses with them. */
const SIX_OCTETS = octetSet('0123456789abcdefABCDEF:.');

function octetSet(characters: string): Uint8Array {
  const set = new Uint8Array(256);
  for (const octet of Buffer.from(characters)) set[octet] = 1;
  return set;
}

/** Offset of the space after an address, 0 where `end` comes first, or that it is none. */
function addressEnd(buffer: Buffer, start: number, end: number, isFour: boolean): number {
  const allowed = isFour ? FOUR_OCTETS : SIX_OCTETS;
  for (let at = start; at < end; at += 1) {
    const octet = buffer[at] ?? 0;
    if (octet === SPACE) {
      const text = buffer.toString('latin1', start, at);
      return (isFour ? isIPv4(text) : isIPv6(text)) ? at : PROXY_REFUSED.address;
    }
    if (allowed[octet] === 0 || at - start >= (isFour ? 15 : ADDRESS_LENGTH_MAX)) return PROXY_REFUSED.address;
  }
  return 0;
}

/** Offset of the `terminator` after a port, 0 where `end` comes first, or what is wrong. */
function portEnd(buffer: Buffer, start: number, end: number, terminator: number): number {
  let value = 0;
  for (let at = start; at < end; at += 1) {
    const octet = buffer[at] ?? 0;
    if (octet === terminator && at > start) return at;
    if (octet === LF && at > start) return PROXY_REFUSED.lineEnd;
    const isZeroFirst = at > start && value === 0;
    if (octet < 48 || octet > 57 || isZeroFirst) return PROXY_REFUSED.port;
    value = value * 10 + octet - 48;
    if (value > PORT_MAX) return PROXY_REFUSED.port;
  }
  return 0;
}

// Version 2: a block with its length.

const SIGN = { octets: SIGNATURE, code: PROXY_REFUSED.signature };
const FIELD_CHECKSUM = 3;
/** By address family: unspecified, AF_INET, AF_INET6, AF_UNIX. */
const ADDRESSES_BYTES: readonly number[] = [0, 12, 36, 216];

function readBlock(buffer: Buffer, start: number, end: number, out: ProxyHeader): number {
  const fixed = literalEnd(buffer, start, end, SIGN);
  if (fixed <= 0) return fixed;
  const fault = fixedFault(buffer, fixed, end);
  if (fault < 0) return fault;
  const from = start + FIXED_BYTES;
  if (end < from) return 0;
  const stop = from + buffer.readUInt16BE(from - 2);
  if (end < stop) return 0;
  const family = buffer[fixed + 1] ?? 0;
  const bytes = knownBytes(buffer[fixed] ?? 0, family);
  if (bytes > 0) {
    const wrong = fieldsFault(buffer, start, from + bytes, stop);
    if (wrong < 0) return wrong;
  }
  // Transport 1: a stream. Datagrams and UNIX sockets have no address that a connection of ours could have.
  if (bytes === 0 || (family !== 0x11 && family !== 0x21)) tellLocal(out);
  else {
    const isFour = family === 0x11;
    const length = isFour ? 4 : ADDRESS_BYTES;
    const text = (at: number): string => (isFour ? quadText(buffer, at) : addressText(buffer, at));
    tell(out, text(from), text(from + length));
    out.sourcePort = buffer.readUInt16BE(from + 2 * length);
    out.destinationPort = buffer.readUInt16BE(from + 2 * length + 2);
  }
  return stop;
}

/** How long the addresses are, 0 where they are to be ignored: of LOCAL all is (§2.2), and nobody says how what is unspecified looks. */
function knownBytes(command: number, family: number): number {
  return (command & 0xf) === 0 || (family & 0xf) === 0 ? 0 : (ADDRESSES_BYTES[family >> 4] ?? 0);
}

/** Judges version, command, family and length, as far as they are there. */
function fixedFault(buffer: Buffer, at: number, end: number): number {
  const there = end - at;
  if (there < 1) return 0;
  const command = buffer[at] ?? 0;
  if (command >> 4 !== 2) return PROXY_REFUSED.version;
  if ((command & 0xf) > 1) return PROXY_REFUSED.command;
  if (there < 2) return 0;
  const family = buffer[at + 1] ?? 0;
  if ((command & 0xf) === 1 && (family >> 4 > 3 || (family & 0xf) > 2)) return PROXY_REFUSED.family;
  return there < 3 ? 0 : lengthFault(buffer, at + 2, end, knownBytes(command, family));
}

function lengthFault(buffer: Buffer, at: number, end: number, lengthMin: number): number {
  const high = (buffer[at] ?? 0) << 8;
  if (high > BLOCK_BYTES_MAX) return PROXY_REFUSED.blockTooLong;
  if (end - at < 2) return 0;
  const length = high | (buffer[at + 1] ?? 0);
  if (length > BLOCK_BYTES_MAX) return PROXY_REFUSED.blockTooLong;
  return length < lengthMin ? PROXY_REFUSED.blockTooShort : 0;
}

/** §2.2: the fields from `from` to `stop`: type, length, value. None is used; a checksum is compared. */
function fieldsFault(buffer: Buffer, start: number, from: number, stop: number): number {
  let checksumAt = 0;
  for (let at = from; at < stop;) {
    if (stop - at < 3) return PROXY_REFUSED.field;
    const length = buffer.readUInt16BE(at + 1);
    const value = at + 3;
    if (length > stop - value) return PROXY_REFUSED.field;
    if (buffer[at] === FIELD_CHECKSUM) {
      if (length !== 4 || checksumAt !== 0) return PROXY_REFUSED.field;
      checksumAt = value;
    }
    at = value + length;
  }
  if (checksumAt === 0) return 0;
  return checksum(buffer, start, stop, checksumAt) === buffer.readUInt32BE(checksumAt) ? 0 : PROXY_REFUSED.checksum;
}

const CHECKSUM_TABLE = Uint32Array.from({ length: 256 }, (_, octet) => {
  let value = octet;
  for (let bit = 0; bit < 8; bit += 1) value = (value & 1) === 0 ? value >>> 1 : (value >>> 1) ^ 0x82f63b78;
  return value;
});

/** CRC32C (RFC 4960 appendix B) of `[start, stop)` with four zeros at `zerosAt` (§2.2.3). */
function checksum(buffer: Buffer, start: number, stop: number, zerosAt: number): number {
  let value = 0xffffffff;
  for (let at = start; at < stop; at += 1) {
    const octet = at >= zerosAt && at < zerosAt + 4 ? 0 : (buffer[at] ?? 0);
    value = (CHECKSUM_TABLE[(value ^ octet) & 0xff] ?? 0) ^ (value >>> 8);
  }
  return (value ^ 0xffffffff) >>> 0;
}
