/**
 * Certificates as a public CA gives them, made fast: DER written by hand and signed by Node's crypto, 0.1 ms each. A hundred thousand by a library would
 * take four minutes. Sizes are those of Let's Encrypt's ECDSA chain in 2026: the leaf has two signed timestamps (here random), one OCSP-free AIA, and a CRL.
 */
import { createPublicKey, generateKeyPairSync, hash, randomBytes, sign } from 'node:crypto';
import type { KeyObject } from 'node:crypto';

export interface Authority {
  readonly name: Buffer;
  readonly key: KeyObject;
  readonly keyId: Buffer;
  readonly certPem: string;
}

export interface Leaf {
  readonly host: string;
  readonly certPem: string;
  readonly keyPem: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly fingerprint: string;
}

const DAY_MS = 86_400_000;
const TAG = { integer: 2, bits: 3, octets: 4, oid: 6, utf8: 12, time: 23, sequence: 48, set: 49 } as const;
const LENGTH_LONG = 0x80;

function tagged(tag: number, ...parts: readonly Buffer[]): Buffer {
  const body = Buffer.concat(parts);
  if (body.length < LENGTH_LONG) return Buffer.concat([Buffer.from([tag, body.length]), body]);
  const length = body.length < 256 ? [0x81, body.length] : [0x82, body.length >> 8, body.length & 255];
  return Buffer.concat([Buffer.from([tag, ...length]), body]);
}

const sequence = (...parts: readonly Buffer[]): Buffer => tagged(TAG.sequence, ...parts);
const bits = (body: Buffer): Buffer => tagged(TAG.bits, Buffer.from([0]), body);
const TRUE = Buffer.from([1, 1, 255]);

function oid(text: string): Buffer {
  const [first = 0, second = 0, ...rest] = text.split('.').map(Number);
  const bytes = rest.flatMap((arc) => {
    const groups = [arc & 127];
    for (let left = arc >> 7; left > 0; left >>= 7) groups.unshift((left & 127) | 128);
    return groups;
  });
  return tagged(TAG.oid, Buffer.from([first * 40 + second, ...bytes]));
}

function time(ms: number): Buffer {
  const digits = new Date(ms).toISOString().replaceAll(/[-:T]/g, '').slice(2, 14);
  return tagged(TAG.time, Buffer.from(`${digits}Z`));
}

function nameOf(...parts: readonly (readonly [string, string])[]): Buffer {
  return sequence(...parts.map(([type, value]) => tagged(TAG.set, sequence(oid(type), tagged(TAG.utf8, Buffer.from(value))))));
}

function extension(id: string, value: Buffer, isCritical = false): Buffer {
  return sequence(oid(id), ...(isCritical ? [TRUE] : []), tagged(TAG.octets, value));
}

function pem(label: string, der: Buffer): string {
  const lines = der.toString('base64').match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}

const COMMON_NAME = '2.5.4.3';
const ECDSA_SHA256 = sequence(oid('1.2.840.10045.4.3.2'));

interface Making {
  readonly subject: Buffer;
  readonly spki: Buffer;
  readonly issuer: Buffer;
  readonly key: KeyObject;
  readonly fromMs: number;
  readonly untilMs: number;
  readonly extensions: readonly Buffer[];
}

function signed({ subject, spki, issuer, key, fromMs, untilMs, extensions }: Making): Buffer {
  // Positive, and never shorter: a leading zero byte would be one too many.
  const serial = Buffer.concat([Buffer.from([1]), randomBytes(17)]);
  const body = sequence(
    tagged(0xa0, tagged(TAG.integer, Buffer.from([2]))),
    tagged(TAG.integer, serial),
    ECDSA_SHA256,
    issuer,
    sequence(time(fromMs), time(untilMs)),
    subject,
    spki,
    tagged(0xa3, sequence(...extensions)),
  );
  return sequence(body, ECDSA_SHA256, bits(sign('sha256', body, key)));
}

function idOf(spki: Buffer): Buffer {
  return hash('sha1', spki, 'buffer');
}

/** An intermediate whose root nobody has: it is sent, and not verified here. */
export function makeAuthority(number: number): Authority {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const spki = publicKey.export({ type: 'spki', format: 'der' });
  const name = nameOf(['2.5.4.6', 'XX'], ['2.5.4.10', 'Bench Encrypt'], [COMMON_NAME, `E${String(number)}`]);
  const root = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const certificate = signed({
    subject: name,
    spki,
    issuer: nameOf(['2.5.4.6', 'XX'], ['2.5.4.10', 'Internet Security Bench Group'], [COMMON_NAME, 'Bench Root X2']),
    key: root.privateKey,
    fromMs: Date.now() - 400 * DAY_MS,
    untilMs: Date.now() + 700 * DAY_MS,
    extensions: [
      extension('2.5.29.15', Buffer.from([3, 2, 1, 6]), true),
      extension('2.5.29.37', sequence(oid('1.3.6.1.5.5.7.3.2'), oid('1.3.6.1.5.5.7.3.1'))),
      extension('2.5.29.19', sequence(TRUE, tagged(TAG.integer, Buffer.from([0]))), true),
      extension('2.5.29.14', tagged(TAG.octets, idOf(spki))),
      extension('2.5.29.35', sequence(tagged(0x80, randomBytes(20)))),
    ],
  });
  return { name, key: privateKey, keyId: idOf(spki), certPem: pem('CERTIFICATE', certificate) };
}

/** EC P-256, of a new key each. */
export function makeLeaf(host: string, by: Authority): Leaf {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const spki = createPublicKey(privateKey).export({ type: 'spki', format: 'der' });
  // Whole seconds, as certificates have them.
  const notBeforeMs = Math.floor(Date.now() / 1000) * 1000 - DAY_MS;
  const notAfterMs = notBeforeMs + 90 * DAY_MS;
  const url = (text: string): Buffer => tagged(0x86, Buffer.from(text));
  const certificate = signed({
    subject: nameOf([COMMON_NAME, host]),
    spki,
    issuer: by.name,
    key: by.key,
    fromMs: notBeforeMs,
    untilMs: notAfterMs,
    extensions: [
      extension('2.5.29.15', Buffer.from([3, 2, 7, 128]), true),
      extension('2.5.29.37', sequence(oid('1.3.6.1.5.5.7.3.1'))),
      extension('2.5.29.19', sequence(), true),
      extension('2.5.29.14', tagged(TAG.octets, idOf(spki))),
      extension('2.5.29.35', sequence(tagged(0x80, by.keyId))),
      extension('1.3.6.1.5.5.7.1.1', sequence(sequence(oid('1.3.6.1.5.5.7.48.2'), url('http://e7.i.bench.example/')))),
      extension('2.5.29.17', sequence(tagged(0x82, Buffer.from(host)))),
      extension('2.5.29.32', sequence(sequence(oid('2.23.140.1.2.1')))),
      extension('2.5.29.31', sequence(sequence(tagged(0xa0, tagged(0xa0, url('http://e7.c.bench.example/42.crl')))))),
      extension('1.3.6.1.4.1.11129.2.4.2', tagged(TAG.octets, randomBytes(242))),
    ],
  });
  return {
    host,
    certPem: pem('CERTIFICATE', certificate),
    keyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }),
    notBeforeMs,
    notAfterMs,
    fingerprint: hash('sha256', certificate, 'hex'),
  };
}
