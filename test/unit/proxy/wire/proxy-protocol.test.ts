import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  PROXY_REFUSED,
  createProxyHeader,
  proxyRefusalReason,
  readProxyHeader,
  writeProxyHeader,
} from '#proxy/wire/proxy-protocol.ts';
import type { ProxyHeader } from '#proxy/wire/proxy-protocol.ts';

const LOCAL: ProxyHeader = { kind: 'local', sourceAddress: '', sourcePort: 0, destinationAddress: '', destinationPort: 0 };
const SIGNATURE = '\r\n\r\n\0\r\nQUIT\n';
const octets = (text: string): Buffer => Buffer.from(text, 'latin1');

/** `192.0.2.1:1000 > 198.51.100.2:443`, as a test says it. */
function facts(text: string): ProxyHeader {
  const [source = '', destination = ''] = text.split(' > ');
  const [at, to] = [source.lastIndexOf(':'), destination.lastIndexOf(':')];
  return {
    kind: 'proxied',
    sourceAddress: source.slice(0, at),
    sourcePort: Number(source.slice(at + 1)),
    destinationAddress: destination.slice(0, to),
    destinationPort: Number(destination.slice(to + 1)),
  };
}

/** CRC32C bit by bit, as RFC 4960 appendix B defines it. */
function crc32c(bytes: Buffer): number {
  let value = 0xffffffff;
  for (const octet of bytes) {
    value ^= octet;
    for (let bit = 0; bit < 8; bit += 1) value = (value & 1) === 0 ? value >>> 1 : (value >>> 1) ^ 0x82f63b78;
  }
  return ~value >>> 0;
}

function field(type: number, value: Buffer): Buffer {
  return Buffer.concat([Buffer.from([type, value.length >> 8, value.length & 0xff]), value]);
}

/** A header of version 2; `length` is told in place of the right one. */
function block(command: number, family: number, body: Buffer, length = body.length): Buffer {
  return Buffer.concat([octets(SIGNATURE), Buffer.from([command, family, length >> 8, length & 0xff]), body]);
}

const FOUR = Buffer.from([192, 0, 2, 1, 198, 51, 100, 2, 0x03, 0xe8, 0x01, 0xbb]);
const SIX = Buffer.concat([
  Buffer.from('20010db8000000000000000000000001', 'hex'),
  Buffer.from('20010db8000000010000000000000002', 'hex'),
  Buffer.from([0x03, 0xe8, 0x01, 0xbb]),
]);

/** A header with a checksum field, which may be made wrong. */
function summed(command: number, family: number, body: Buffer, flip = 0): Buffer {
  const whole = block(command, family, Buffer.concat([body, field(4, octets('pad')), field(3, Buffer.alloc(4))]));
  whole.writeUInt32BE((crc32c(whole) ^ flip) >>> 0, whole.length - 4);
  return whole;
}

interface Read {
  readonly result: number;
  readonly header: ProxyHeader;
}

/** Reads what comes in pieces that end at `cuts`, at an offset of a larger buffer. */
function read(bytes: Buffer, cuts: readonly number[] = [], offset = 0): Read {
  const buffer = Buffer.concat([Buffer.alloc(offset, 'P'), bytes]);
  const header = createProxyHeader();
  for (const cut of [...cuts, bytes.length]) {
    const result = readProxyHeader(buffer, offset, offset + cut, header);
    if (result !== 0) return { result: result > 0 ? result - offset : result, header };
  }
  return { result: 0, header };
}

const { signature, protocol, address, port, lineTooLong, lineEnd, version, command } = PROXY_REFUSED;
const { family, blockTooLong, blockTooShort, field: malformed, checksum } = PROXY_REFUSED;
const V6 = 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff';

/** `refusedAt`: how many bytes it takes to know. */
const HOSTILE: readonly (readonly [what: string, bytes: string | Buffer, code: number, refusedAt: number])[] = [
  ['HTTP', 'GET / HTTP/1.1\r\n\r\n', signature, 1],
  ['HTTP that begins alike', 'POST / HTTP/1.1\r\n', signature, 2],
  ['PROPFIND', 'PROPFIND / HTTP/1.1\r\n', signature, 4],
  ['a method of that name', 'PROXYX / HTTP/1.1\r\n', signature, 6],
  ['the HTTP/2 preface', 'PRI * HTTP/2.0\r\n', signature, 3],
  ['a TLS ClientHello', '\x16\x03\x01', signature, 1],
  ['a NUL', '\0', signature, 1],
  ['small letters', 'proxy TCP4', signature, 1],
  ['a space first', ' PROXY TCP4', signature, 1],
  ['a tab', 'PROXY\tTCP4 ', signature, 6],
  ['no protocol', 'PROXY\r\n', signature, 6],
  ['two spaces', 'PROXY  TCP4 ', protocol, 7],
  ['an empty protocol', 'PROXY \r\n', protocol, 7],
  ['UDP4', 'PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n', protocol, 8],
  ['TCP', 'PROXY TCP 1.2.3.4', protocol, 10],
  ['TCP5', 'PROXY TCP5 1.2.3.4', protocol, 10],
  ['TCP46', 'PROXY TCP46 1.2.3.4', protocol, 11],
  ['tcp4', 'PROXY tcp4 1.2.3.4', protocol, 7],
  ['TCP4 and the end', 'PROXY TCP4\r\n', protocol, 11],
  ['UNKNOWNX', 'PROXY UNKNOWNX\r\n', protocol, 14],
  ['UNIX', 'PROXY UNIX\r\n', protocol, 9],
  ['an empty address', 'PROXY TCP4  5.6.7.8 1 2\r\n', address, 12],
  ['no address', 'PROXY TCP4 \r\n', address, 12],
  ['a name', 'PROXY TCP4 localhost 5.6.7.8 1 2\r\n', address, 12],
  ['three numbers', 'PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n', address, 17],
  ['five numbers', 'PROXY TCP4 1.2.3.4.5 5.6.7.8 1 2\r\n', address, 21],
  ['256', 'PROXY TCP4 1.2.3.256 5.6.7.8 1 2\r\n', address, 21],
  ['zeros in front', 'PROXY TCP4 1.2.3.04 5.6.7.8 1 2\r\n', address, 20],
  ['hexadecimal', 'PROXY TCP4 0x1.2.3.4 5.6.7.8 1 2\r\n', address, 13],
  ['a number alone', 'PROXY TCP4 16909060 5.6.7.8 1 2\r\n', address, 20],
  ['minus', 'PROXY TCP4 -1.2.3.4 5.6.7.8 1 2\r\n', address, 12],
  ['too long', 'PROXY TCP4 111.111.111.1111 5.6.7.8 1 2\r\n', address, 27],
  ['IPv6 in TCP4', 'PROXY TCP4 ::1 5.6.7.8 1 2\r\n', address, 12],
  ['IPv4 in TCP6', 'PROXY TCP6 1.2.3.4 ::1 1 2\r\n', address, 19],
  ['a mixed pair', 'PROXY TCP6 ::1 5.6.7.8 1 2\r\n', address, 23],
  ['a mixed pair of TCP4', 'PROXY TCP4 1.2.3.4 ::1 1 2\r\n', address, 20],
  ['brackets', 'PROXY TCP6 [::1] ::1 1 2\r\n', address, 12],
  ['a zone', 'PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n', address, 19],
  ['two double colons', 'PROXY TCP6 1::2::3 ::1 1 2\r\n', address, 19],
  ['nine groups', 'PROXY TCP6 1:2:3:4:5:6:7:8:9 ::1 1 2\r\n', address, 29],
  ['five digits', 'PROXY TCP6 12345::1 ::1 1 2\r\n', address, 20],
  ['only colons', `PROXY TCP6 ${':'.repeat(46)}`, address, 57],
  ['an address too few', 'PROXY TCP4 1.2.3.4 1 2\r\n', address, 21],
  ['no ports', 'PROXY TCP4 1.2.3.4 5.6.7.8\r\n', address, 27],
  ['an empty port', 'PROXY TCP4 1.2.3.4 5.6.7.8  2\r\n', port, 28],
  ['no port', 'PROXY TCP4 1.2.3.4 5.6.7.8 \r\n', port, 28],
  ['one port', 'PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n', port, 29],
  ['an empty second port', 'PROXY TCP4 1.2.3.4 5.6.7.8 1 \r\n', port, 30],
  ['65536', 'PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n', port, 32],
  ['a zero in front', 'PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n', port, 29],
  ['00', 'PROXY TCP4 1.2.3.4 5.6.7.8 00 2\r\n', port, 29],
  ['a signed port', 'PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n', port, 28],
  ['a hexadecimal port', 'PROXY TCP4 1.2.3.4 5.6.7.8 0x1 2\r\n', port, 29],
  ['a service', 'PROXY TCP4 1.2.3.4 5.6.7.8 http 2\r\n', port, 28],
  ['a third port', 'PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n', port, 31],
  ['a space at the end', 'PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n', port, 31],
  ['a bare LF', 'PROXY TCP4 1.2.3.4 5.6.7.8 1 2\nGET', lineEnd, 31],
  ['a bare CR', 'PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rGET', lineEnd, 32],
  ['CR CR LF', 'PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\r\n', lineEnd, 32],
  ['UNKNOWN with a bare LF', 'PROXY UNKNOWN\nGET', lineEnd, 14],
  ['UNKNOWN with a bare CR', 'PROXY UNKNOWN\rGET', lineEnd, 15],
  ['UNKNOWN with a LF later', 'PROXY UNKNOWN a\nb\r\n', lineEnd, 16],
  ['UNKNOWN with a NUL', 'PROXY UNKNOWN \0\r\n', lineEnd, 15],
  ['UNKNOWN with an octet above ASCII', 'PROXY UNKNOWN \xff\r\n', lineEnd, 15],
  ['UNKNOWN of 108 bytes', `PROXY UNKNOWN ${'x'.repeat(92)}\r\n`, lineTooLong, 107],
  ['UNKNOWN without an end', `PROXY UNKNOWN ${'x'.repeat(500)}`, lineTooLong, 107],
  [
    'a line of 115 bytes',
    `PROXY TCP6 ${`0000:0000:0000:0000:0000:ffff:255.255.255.255 `.repeat(2)}65535 65535\r\n`,
    lineTooLong,
    107,
  ],

  ['a signature that ends early', '\r\n\r\n\0\r\nQUIT\r', signature, 12],
  ['empty lines', '\r\n\r\nGET / HTTP/1.1\r\n', signature, 5],
  ['a NUL less', '\r\n\r\n\r\nQUIT\n', signature, 5],
  ['version 1 in binary', `${SIGNATURE}\x11\x11\0\0`, version, 13],
  ['version 0', `${SIGNATURE}\x01\x11\0\0`, version, 13],
  ['version 3', `${SIGNATURE}\x31\x11\0\0`, version, 13],
  ['command 2', `${SIGNATURE}\x22\x11\0\0`, command, 13],
  ['command 15', `${SIGNATURE}\x2f\x11\0\0`, command, 13],
  ['family 4', `${SIGNATURE}\x21\x41\0\0`, family, 14],
  ['family 15', `${SIGNATURE}\x21\xf1\0\0`, family, 14],
  ['transport 3', `${SIGNATURE}\x21\x13\0\0`, family, 14],
  ['64 KiB', `${SIGNATURE}\x21\x11\xff\xff`, blockTooLong, 15],
  ['2049 bytes', `${SIGNATURE}\x21\x11\x08\x01`, blockTooLong, 16],
  ['2049 bytes of LOCAL', `${SIGNATURE}\x20\0\x08\x01`, blockTooLong, 16],
  ['no addresses', `${SIGNATURE}\x21\x11\0\0`, blockTooShort, 16],
  ['11 bytes for IPv4', block(0x21, 0x11, FOUR.subarray(1)), blockTooShort, 16],
  ['IPv4 for IPv6', block(0x21, 0x21, FOUR), blockTooShort, 16],
  ['35 bytes for IPv6', block(0x21, 0x21, SIX.subarray(1)), blockTooShort, 16],
  ['11 bytes for UDP', block(0x21, 0x12, FOUR.subarray(1)), blockTooShort, 16],
  ['215 bytes for UNIX', block(0x21, 0x31, Buffer.alloc(215)), blockTooShort, 16],
  ['a byte after the addresses', block(0x21, 0x11, Buffer.concat([FOUR, Buffer.alloc(1)])), malformed, 29],
  ['two bytes after the addresses', block(0x21, 0x21, Buffer.concat([SIX, Buffer.alloc(2)])), malformed, 54],
  ['a field beyond the end', block(0x21, 0x11, Buffer.concat([FOUR, Buffer.from([1, 0, 5, 104, 50])])), malformed, 33],
  ['a field of 64 KiB', block(0x21, 0x11, Buffer.concat([FOUR, Buffer.from([1, 255, 255])])), malformed, 31],
  ['a rest after a field', block(0x21, 0x11, Buffer.concat([FOUR, field(4, octets('x')), Buffer.alloc(2)])), malformed, 34],
  ['a checksum of 3 bytes', block(0x21, 0x11, Buffer.concat([FOUR, field(3, Buffer.alloc(3))])), malformed, 34],
  ['a checksum of 5 bytes', block(0x21, 0x11, Buffer.concat([FOUR, field(3, Buffer.alloc(5))])), malformed, 36],
  [
    'two checksums',
    block(0x21, 0x11, Buffer.concat([FOUR, field(3, Buffer.alloc(4)), field(3, Buffer.alloc(4))])),
    malformed,
    42,
  ],
  ['a wrong checksum', summed(0x21, 0x11, FOUR, 1), checksum, 41],
  ['a wrong checksum of IPv6', summed(0x21, 0x21, SIX, 0x80000000), checksum, 65],
  ['a checksum of zeros', block(0x21, 0x11, Buffer.concat([FOUR, field(3, Buffer.alloc(4))])), checksum, 35],
  ['a wrong checksum of UDP', summed(0x21, 0x12, FOUR, 1), checksum, 41],
];

const MORE = 'GET / HTTP/1.1\r\n';

const VALID: readonly (readonly [what: string, bytes: string | Buffer, told: ProxyHeader])[] = [
  ['TCP4', 'PROXY TCP4 192.0.2.1 198.51.100.2 1000 443\r\n', facts('192.0.2.1:1000 > 198.51.100.2:443')],
  [
    'the longest TCP4',
    'PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n',
    facts('255.255.255.255:65535 > 255.255.255.255:65535'),
  ],
  ['port 0', 'PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n', facts('0.0.0.0:0 > 0.0.0.0:0')],
  ['TCP6', 'PROXY TCP6 2001:db8::1 ::1 1000 443\r\n', facts('2001:db8::1:1000 > ::1:443')],
  ['the longest TCP6', `PROXY TCP6 ${V6} ${V6} 65535 65535\r\n`, facts(`${V6}:65535 > ${V6}:65535`)],
  ['another spelling', 'PROXY TCP6 2001:0DB8:0:0:1:0:0:1 0:0:0:0:0:0:0:0 1 2\r\n', facts('2001:db8::1:0:0:1:1 > :::2')],
  ['mapped, in hexadecimal', 'PROXY TCP6 ::ffff:c000:201 2001:db8::1 1 2\r\n', facts('192.0.2.1:1 > 2001:db8::1:2')],
  ['mapped, with dots', 'PROXY TCP6 ::FFFF:192.0.2.1 ::1 1 2\r\n', facts('192.0.2.1:1 > ::1:2')],
  ['UNKNOWN', 'PROXY UNKNOWN\r\n', LOCAL],
  ['UNKNOWN with a space', 'PROXY UNKNOWN \r\n', LOCAL],
  ['UNKNOWN with addresses', `PROXY UNKNOWN ${V6} ${V6} 65535 65535\r\n`, LOCAL],
  ['UNKNOWN with anything', 'PROXY UNKNOWN what ever, ~ it is\r\n', LOCAL],
  ['v2 IPv4', block(0x21, 0x11, FOUR), facts('192.0.2.1:1000 > 198.51.100.2:443')],
  ['v2 IPv6', block(0x21, 0x21, SIX), facts('2001:db8::1:1000 > 2001:db8:0:1::2:443')],
  [
    'v2 mapped',
    block(0x21, 0x21, Buffer.concat([Buffer.from('00000000000000000000ffffc0000201', 'hex'), SIX.subarray(16)])),
    facts('192.0.2.1:1000 > 2001:db8:0:1::2:443'),
  ],
  [
    'v2 with fields',
    block(0x21, 0x11, Buffer.concat([FOUR, field(1, octets('h2')), field(4, Buffer.alloc(0)), field(0xea, Buffer.alloc(300))])),
    facts('192.0.2.1:1000 > 198.51.100.2:443'),
  ],
  [
    'v2 with 2 KiB',
    block(0x21, 0x11, Buffer.concat([FOUR, field(4, Buffer.alloc(2033))])),
    facts('192.0.2.1:1000 > 198.51.100.2:443'),
  ],
  ['v2 with a checksum', summed(0x21, 0x11, FOUR), facts('192.0.2.1:1000 > 198.51.100.2:443')],
  ['v2 IPv6 with a checksum', summed(0x21, 0x21, SIX), facts('2001:db8::1:1000 > 2001:db8:0:1::2:443')],
  ['LOCAL', block(0x20, 0, Buffer.alloc(0)), LOCAL],
  ['LOCAL with addresses', block(0x20, 0x11, FOUR), LOCAL],
  ['LOCAL of an unknown family', block(0x20, 0xff, Buffer.alloc(7)), LOCAL],
  ['UNSPEC', block(0x21, 0, Buffer.alloc(0)), LOCAL],
  ['UNSPEC with a body', block(0x21, 0, Buffer.alloc(5)), LOCAL],
  ['IPv4 without a transport', block(0x21, 0x10, FOUR), LOCAL],
  ['UDP over IPv4', block(0x21, 0x12, FOUR), LOCAL],
  ['UDP over IPv6', block(0x21, 0x22, SIX), LOCAL],
  ['UNIX stream', block(0x21, 0x31, Buffer.alloc(216)), LOCAL],
  ['UNIX datagram', block(0x21, 0x32, Buffer.concat([Buffer.alloc(216), field(4, octets('x'))])), LOCAL],
];

const asBuffer = (bytes: string | Buffer): Buffer => (typeof bytes === 'string' ? octets(bytes) : bytes);

describe('readProxyHeader()', () => {
  test('the checksum of these tests is CRC32C', () => {
    expect(crc32c(octets('123456789'))).toBe(0xe3069283);
  });

  test.each(HOSTILE)('refuses %s at the byte that shows it', (_, bytes, code, refusedAt) => {
    const buffer = asBuffer(bytes);
    for (let end = 0; end < refusedAt; end += 1) expect(read(buffer.subarray(0, end)).result).toBe(0);
    for (let end = refusedAt; end <= buffer.length; end += 1) expect(read(buffer.subarray(0, end), [], 3).result).toBe(code);
    expect(read(buffer).header).toEqual(LOCAL);
  });

  test.each(VALID)('reads %s, byte by byte as well', (_, bytes, told) => {
    const buffer = asBuffer(bytes);
    for (let end = 0; end < buffer.length; end += 1) expect(read(buffer.subarray(0, end)).result).toBe(0);
    expect(read(buffer)).toEqual({ result: buffer.length, header: told });
    expect(read(Buffer.concat([buffer, octets(MORE)]), [], 7)).toEqual({ result: buffer.length, header: told });
  });

  test('writes over what an earlier header said, and nothing where it refuses', () => {
    const header = createProxyHeader();
    const first = octets('PROXY TCP4 192.0.2.1 198.51.100.2 1000 443\r\n');
    readProxyHeader(first, 0, first.length, header);
    const told = facts('192.0.2.1:1000 > 198.51.100.2:443');
    expect(header).toEqual(told);
    const broken = octets('PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rX');
    expect(readProxyHeader(broken, 0, broken.length, header)).toBe(lineEnd);
    expect(header).toEqual(told);
    const local = octets('PROXY UNKNOWN\r\n');
    readProxyHeader(local, 0, local.length, header);
    expect(header).toEqual(LOCAL);
  });

  test('every code has a reason of its own', () => {
    const reasons = Object.values(PROXY_REFUSED).map((code) => proxyRefusalReason(code));
    expect(new Set(reasons).size).toBe(reasons.length);
    expect(reasons).not.toContain(proxyRefusalReason(-99));
  });
});

const ports = fc.integer({ min: 0, max: 65_535 });
const addresses = fc.oneof(fc.ipV4(), fc.ipV6());

function proxied(source: string, destination: string, sourcePort: number, destinationPort: number): ProxyHeader {
  return { kind: 'proxied', sourceAddress: source, sourcePort, destinationAddress: destination, destinationPort };
}

/** Bytes that are a header, nearly one, or none; and where they are cut. */
const streams = fc
  .record({
    bytes: fc.oneof(
      fc.constantFrom(...HOSTILE.map(([, bytes]) => asBuffer(bytes)), ...VALID.map(([, bytes]) => asBuffer(bytes))),
      fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
    ),
    at: fc.nat(),
    octet: fc.option(fc.nat(255)),
    cuts: fc.array(fc.nat(300), { maxLength: 6 }),
  })
  .map(({ bytes, at, octet, cuts }) => {
    const changed = Buffer.concat([bytes, octets(MORE)]);
    if (octet !== null) changed[at % changed.length] = octet;
    return { bytes: changed, cuts: cuts.map((cut) => cut % changed.length).toSorted((one, other) => one - other) };
  });

test('readProxyHeader() says the same however the bytes are cut', () => {
  fc.assert(
    fc.property(streams, ({ bytes, cuts }) => {
      expect(read(bytes, cuts)).toEqual(read(bytes));
    }),
    { numRuns: 500 },
  );
});

test('readProxyHeader() reads what writeProxyHeader() wrote', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(1 as const, 2 as const),
      addresses,
      addresses,
      fc.tuple(ports, ports),
      (how, source, destination, [from, to]) => {
        const written = writeProxyHeader(how, proxied(source, destination, from, to));
        const { result, header } = read(Buffer.concat([written, octets(MORE)]));
        expect(result).toBe(written.length);
        // One spelling each: what is written again is the same, byte by byte.
        expect(writeProxyHeader(how, header)).toEqual(written);
        expect(read(writeProxyHeader(how === 1 ? 2 : 1, header)).header).toEqual(header);
        expect([header.kind, header.sourcePort, header.destinationPort]).toEqual(['proxied', from, to]);
      },
    ),
  );
});

describe('writeProxyHeader()', () => {
  test.each([
    ['192.0.2.1:1 > 198.51.100.2:2', 'PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\n'],
    ['::ffff:192.0.2.1:1 > ::ffff:c633:6402:2', 'PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\n'],
    ['2001:DB8:0:0::1:1 > fe80::1%eth0:2', 'PROXY TCP6 2001:db8::1 fe80::1 1 2\r\n'],
    ['2001:db8::1:1 > 198.51.100.2:2', 'PROXY TCP6 2001:db8::1 ::ffff:c633:6402 1 2\r\n'],
    ['192.0.2.1:1 > 2001:db8::1:2', 'PROXY TCP6 ::ffff:c000:201 2001:db8::1 1 2\r\n'],
    [`${V6}:65535 > ${V6}:65535`, `PROXY TCP6 ${V6} ${V6} 65535 65535\r\n`],
    [':1 > 198.51.100.2:2', 'PROXY UNKNOWN\r\n'],
    ['192.0.2.1:1 > example.com:2', 'PROXY UNKNOWN\r\n'],
    ['192.0.2.1:65536 > 192.0.2.1:2', 'PROXY UNKNOWN\r\n'],
    ['192.0.2.1:1 > 192.0.2.1:-2', 'PROXY UNKNOWN\r\n'],
    ['192.0.2.1:1.5 > 192.0.2.1:2', 'PROXY UNKNOWN\r\n'],
  ])('writes %s', (told, line) => {
    expect(writeProxyHeader(1, facts(told)).toString('latin1')).toBe(line);
  });

  test.each([
    ['192.0.2.1:1000 > 198.51.100.2:443', block(0x21, 0x11, FOUR)],
    ['::ffff:192.0.2.1:1000 > 198.51.100.2:443', block(0x21, 0x11, FOUR)],
    ['2001:db8::1:1000 > 2001:db8:0:1::2:443', block(0x21, 0x21, SIX)],
    [
      '192.0.2.1:1000 > 2001:db8:0:1::2:443',
      block(0x21, 0x21, Buffer.concat([Buffer.from('00000000000000000000ffffc0000201', 'hex'), SIX.subarray(16)])),
    ],
    ['nowhere:1 > 198.51.100.2:2', block(0x20, 0, Buffer.alloc(0))],
  ])('writes %s in version 2', (told, bytes) => {
    expect(writeProxyHeader(2, facts(told))).toEqual(bytes);
  });

  test('of a local connection has no addresses', () => {
    const told = { ...facts('192.0.2.1:1 > 192.0.2.1:2'), kind: 'local' as const };
    expect(writeProxyHeader(1, told).toString()).toBe('PROXY UNKNOWN\r\n');
    expect(writeProxyHeader(2, told)).toEqual(block(0x20, 0, Buffer.alloc(0)));
  });
});
