/** The internal CA on real files, judged by two others: Node's TLS stack and OpenSSL. */
import { X509Certificate, createHash, generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, createServer } from 'node:tls';
import type { TLSSocket } from 'node:tls';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { systemClock } from '#clock';
import type { Clock } from '#clock';
import { runCommand, tryCommand } from '#command';
import { codeOf } from '#errors';
import { openAuthority } from '#tls/authority.ts';
import type { Authority } from '#tls/authority.ts';
import { pemOf } from '#tls/certificate.ts';
import { HostCertificates } from '#tls/host-certificates.ts';

const DAY_MS = 86_400_000;
let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ecluse-authority-'));
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

const openHere = async (): Promise<Authority> => openAuthority(folder, { clock: systemClock });

function clockAt(offsetMs: number): Clock {
  return { ...systemClock, nowMs: () => Date.now() + offsetMs };
}

/** Whom a server with a certificate of the CA takes its client for; where either side refuses, the reasons. */
async function handshake(options: {
  readonly server: { readonly certPem: string; readonly keyPem: string };
  readonly client?: { readonly certPem: string; readonly keyPem: string };
  readonly caPem: string;
  readonly host: string;
}): Promise<string> {
  const server = createServer({
    cert: options.server.certPem,
    key: options.server.keyPem,
    ca: options.caPem,
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: 'TLSv1.3',
  });
  const refusals: string[] = [];
  const onRefusal = (error: Error): void => {
    refusals.push(codeOf(error) ?? error.message);
  };
  server.on('tlsClientError', onRefusal);
  server.on('secureConnection', (socket: TLSSocket) => {
    socket.on('error', onRefusal);
    socket.end(String(socket.getPeerCertificate().subject.CN));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the server has no port');
  try {
    const socket = connect({
      port: address.port,
      host: '127.0.0.1',
      ca: options.caPem,
      servername: options.host,
      ...(options.client === undefined ? {} : { cert: options.client.certPem, key: options.client.keyPem }),
    });
    const chunks: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.on('error', onRefusal);
    await new Promise((resolve) => socket.on('close', resolve));
    return [...refusals, Buffer.concat(chunks).toString()].join(' ').trim();
  } finally {
    server.close();
  }
}

test('the first run makes a CA that OpenSSL accepts, with a key that only the owner reads', async () => {
  const nested = join(folder, 'a', 'tls');
  await openAuthority(nested, { clock: systemClock });
  expect((await stat(nested)).mode & 0o777).toBe(0o700);
  expect((await stat(join(nested, 'ca.key'))).mode & 0o777).toBe(0o600);
  expect((await readdir(nested)).toSorted((a, b) => a.localeCompare(b))).toEqual(['ca.key', 'ca.pem']);
  const text = await runCommand('openssl', ['x509', '-in', join(nested, 'ca.pem'), '-noout', '-text']);
  expect(text).toContain('CN = Ecluse internal CA');
  expect(text).toContain('CA:TRUE, pathlen:0');
  expect(text).toMatch(/Key Usage: critical\s+Certificate Sign, CRL Sign/);
  expect(text).toContain('ASN1 OID: prime256v1');
  const ca = new X509Certificate(await readFile(join(nested, 'ca.pem')));
  expect((ca.validToDate.getTime() - Date.now()) / DAY_MS).toBeGreaterThan(3650);
  await runCommand('openssl', ['verify', '-x509_strict', '-CAfile', join(nested, 'ca.pem'), join(nested, 'ca.pem')]);
});

test('a later run loads the same CA, and what the first one issued is still trusted', async () => {
  const first = await openHere();
  const server = await first.issueServer({ names: ['localhost'], days: 30 });
  const second = await openHere();
  expect(second.caPem).toBe(first.caPem);
  const client = await second.issueClient({ commonName: 'acme', days: 30 });
  await expect(handshake({ server, client, caPem: second.caPem, host: 'localhost' })).resolves.toBe('acme');
});

test('issued certificates pass openssl verify for their purpose and no other', async () => {
  const authority = await openHere();
  const server = await authority.issueServer({ names: ['Shop.example.com', '*.apps.example.com', '127.0.0.1', '::1'], days: 30 });
  const client = await authority.issueClient({ commonName: 'acme', days: 30 });
  const serverFile = join(folder, 'server.pem');
  const clientFile = join(folder, 'client.pem');
  await Promise.all([writeFile(serverFile, server.certPem), writeFile(clientFile, client.certPem)]);
  const verify = async (purpose: string, file: string, ...more: string[]): Promise<number> =>
    (
      await tryCommand('openssl', [
        'verify',
        '-x509_strict',
        '-CAfile',
        join(folder, 'ca.pem'),
        '-purpose',
        purpose,
        ...more,
        file,
      ])
    ).exitCode;
  expect(await verify('sslserver', serverFile, '-verify_hostname', 'shop.example.com')).toBe(0);
  expect(await verify('sslserver', serverFile, '-verify_hostname', 'x.apps.example.com')).toBe(0);
  expect(await verify('sslserver', serverFile, '-verify_ip', '127.0.0.1')).toBe(0);
  expect(await verify('sslserver', serverFile, '-verify_ip', '::1')).toBe(0);
  expect(await verify('sslserver', serverFile, '-verify_hostname', 'other.example.com')).not.toBe(0);
  expect(await verify('sslclient', clientFile)).toBe(0);
  expect(await verify('sslserver', clientFile)).not.toBe(0);
  expect(await verify('sslclient', serverFile)).not.toBe(0);
  const text = await runCommand('openssl', ['x509', '-in', serverFile, '-noout', '-text']);
  expect(text).toContain('DNS:shop.example.com, DNS:*.apps.example.com, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1');
  expect(text).toContain('X509v3 Authority Key Identifier');
  expect(server.certPem.match(/BEGIN CERTIFICATE/g)).toHaveLength(2);
  // Backdated for clients whose clock is behind.
  expect(Date.now() - new X509Certificate(server.certPem).validFromDate.getTime()).toBeGreaterThan(299_000);
});

test('a server that asks for a client certificate gets the common name, and refuses a client without one or of another CA', async () => {
  const authority = await openHere();
  const server = await authority.issueServer({ names: ['localhost', '127.0.0.1'], days: 30 });
  const client = await authority.issueClient({ commonName: 'acme', days: 30 });
  await expect(handshake({ server, client, caPem: authority.caPem, host: 'localhost' })).resolves.toBe('acme');
  await expect(handshake({ server, caPem: authority.caPem, host: 'localhost' })).resolves.toMatch(
    /CERTIFICATE_REQUIRED|DID_NOT_RETURN/,
  );
  await expect(handshake({ server, client, caPem: authority.caPem, host: 'other.example' })).resolves.toContain(
    'ALTNAME_INVALID',
  );
  const stranger = await openAuthority(join(folder, 'stranger'), { clock: systemClock });
  const foreign = await stranger.issueClient({ commonName: 'acme', days: 30 });
  // Node ends such a connection without an alert: what counts is that the server never took it for anyone.
  await expect(handshake({ server, client: foreign, caPem: authority.caPem, host: 'localhost' })).resolves.not.toContain('acme');
});

test('a client certificate comes with what it is known by', async () => {
  const authority = await openHere();
  const client = await authority.issueClient({ commonName: 'acme', days: 30 });
  const parsed = new X509Certificate(client.certPem);
  expect(client.fingerprintSha256).toBe(createHash('sha256').update(parsed.raw).digest('hex'));
  expect(client.serial).toBe(parsed.serialNumber.toLowerCase());
  expect(client.serial).toMatch(/^[4-7][0-9a-f]{31}$/);
  expect(client.notAfterMs).toBe(parsed.validToDate.getTime());
  const serials = await Promise.all(
    Array.from({ length: 50 }, async () => (await authority.issueClient({ commonName: 'acme', days: 1 })).serial),
  );
  expect(new Set(serials).size).toBe(50);
});

test('no leaf outlives the CA', async () => {
  const authority = await openHere();
  const { notAfterMs } = await authority.issueClient({ commonName: 'acme', days: 100_000 });
  expect(notAfterMs).toBe(new X509Certificate(authority.caPem).validToDate.getTime());
});

test.each(['', 'x"acme"', String.raw`a\cme`, '#0c0461636d65', 'a\nb', ' acme', 'a,CN=b', 'x'.repeat(65)])(
  'the common name %j is refused, because it could be read as another one',
  async (commonName) => {
    const authority = await openHere();
    await expect(authority.issueClient({ commonName, days: 1 })).rejects.toMatchObject({
      code: 'ECLUSE_CERTIFICATE_NAME_INVALID',
      status: 400,
    });
  },
);

test.each([
  [[]],
  [['']],
  [['a b']],
  [['a.*.example']],
  [['*']],
  [['-a.example']],
  [['fe80::1%eth0']],
  [[`${'a'.repeat(64)}.example`]],
])('a server certificate for %j is refused', async (names) => {
  const authority = await openHere();
  await expect(authority.issueServer({ names, days: 1 })).rejects.toMatchObject({ code: 'ECLUSE_CERTIFICATE_NAME_INVALID' });
});

interface Damage {
  readonly what: string;
  readonly code: string;
  readonly says: RegExp;
  readonly damage: () => Promise<void>;
}

const key = (): string => join(folder, 'ca.key');
const cert = (): string => join(folder, 'ca.pem');
const listing = async (): Promise<string[]> =>
  Promise.all(
    (await readdir(folder)).map(async (name) => `${name}: ${await readFile(join(folder, name), 'utf8').catch(() => 'folder')}`),
  );
const otherKey = (namedCurve: string): string =>
  generateKeyPairSync('ec', {
    namedCurve,
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'pem' },
  }).privateKey;

const damages: readonly Damage[] = [
  { what: 'an empty key', code: 'ECLUSE_CA_KEY_UNREADABLE', says: /is empty/, damage: async () => writeFile(key(), '') },
  {
    what: 'a corrupt key',
    code: 'ECLUSE_CA_KEY_UNREADABLE',
    says: /not a private key/,
    damage: async () => writeFile(key(), 'nonsense'),
  },
  {
    what: 'a cut key',
    code: 'ECLUSE_CA_KEY_UNREADABLE',
    says: /not a private key/,
    damage: async () => writeFile(key(), (await readFile(key(), 'utf8')).slice(0, 80)),
  },
  {
    what: 'a key of another curve',
    code: 'ECLUSE_CA_KEY_UNREADABLE',
    says: /no P-256 key/,
    damage: async () => writeFile(key(), otherKey('secp384r1')),
  },
  {
    what: 'a key that is a folder',
    code: 'ECLUSE_CA_KEY_UNREADABLE',
    says: /ca\.key/,
    damage: async () => {
      await rm(key());
      await mkdir(key(), { mode: 0o700 });
    },
  },
  {
    what: 'a key readable by the group',
    code: 'ECLUSE_CA_KEY_UNREADABLE',
    says: /mode 0640/,
    damage: async () => chmod(key(), 0o640),
  },
  {
    what: 'a key readable by others',
    code: 'ECLUSE_CA_KEY_UNREADABLE',
    says: /mode 0604/,
    damage: async () => chmod(key(), 0o604),
  },
  {
    what: 'a key of another certificate',
    code: 'ECLUSE_CA_CORRUPT',
    says: /does not belong/,
    damage: async () => writeFile(key(), otherKey('prime256v1')),
  },
  {
    what: 'a corrupt certificate',
    code: 'ECLUSE_CA_CORRUPT',
    says: /not a certificate/,
    damage: async () => writeFile(cert(), 'nonsense'),
  },
  {
    what: 'an empty certificate',
    code: 'ECLUSE_CA_CORRUPT',
    says: /not a certificate/,
    damage: async () => writeFile(cert(), ''),
  },
  { what: 'a key without a certificate', code: 'ECLUSE_CA_CORRUPT', says: /half .* missing/, damage: async () => rm(cert()) },
  { what: 'a certificate without a key', code: 'ECLUSE_CA_CORRUPT', says: /half .* missing/, damage: async () => rm(key()) },
];

test.each(damages)('$what is refused with $code and nothing is overwritten', async ({ code, says, damage }) => {
  await openHere();
  await damage();
  const before = await listing();
  await expect(openHere()).rejects.toMatchObject({ code, message: says, mend: /chmod 600|restore|make / });
  expect(await listing()).toEqual(before);
});

test('an expired CA is refused', async () => {
  await openHere();
  await expect(openAuthority(folder, { clock: clockAt(3700 * DAY_MS) })).rejects.toMatchObject({
    code: 'ECLUSE_CA_CORRUPT',
    message: /has expired/,
  });
});

test('two first runs at once leave one whole CA behind', async () => {
  const results = await Promise.allSettled([openHere(), openHere(), openHere()]);
  const caPem = (await openHere()).caPem;
  const outcomes = results.map((result) => (result.status === 'fulfilled' ? result.value.caPem : codeOf(result.reason)));
  expect(outcomes).toContain(caPem);
  expect(outcomes.filter((outcome) => outcome !== caPem && outcome !== 'ECLUSE_CA_CORRUPT')).toEqual([]);
});

test('certificates of hosts share one key that is on no disk, and are the same until a third of their life is left', async () => {
  const authority = await openHere();
  await mkdir(join(folder, 'hosts'));
  await writeFile(join(folder, 'hosts', 'old.example.pem'), 'what an earlier version kept');
  let offsetMs = 0;
  const clock = { ...systemClock, nowMs: () => Date.now() + offsetMs };
  const hosts = await HostCertificates.open(folder, { authority: await openAuthority(folder, { clock }), clock });
  const [first, again] = await Promise.all([hosts.certificateFor('shop.example.com'), hosts.certificateFor('shop.example.com')]);
  expect(again).toBe(first);
  const wildcard = await hosts.certificateFor('*.example.com');
  expect(new X509Certificate(wildcard.leafPem).checkHost('a.example.com')).toBe('*.example.com');
  expect(wildcard).toMatchObject({ name: '*.example.com', hosts: ['*.example.com'], keyPem: first.keyPem });
  const fallback = await hosts.certificateFor('*');
  expect(fallback).toMatchObject({ name: '*', hosts: [] });
  expect(new X509Certificate(fallback.leafPem).checkIP('127.0.0.1')).toBe('127.0.0.1');
  expect((await readdir(folder)).toSorted((a, b) => a.localeCompare(b))).toEqual(['ca.key', 'ca.pem']);
  const client = await authority.issueClient({ commonName: 'acme', days: 1 });
  const server = { certPem: pemOf(first), keyPem: first.keyPem };
  await expect(handshake({ server, client, caPem: authority.caPem, host: 'shop.example.com' })).resolves.toBe('acme');
  offsetMs = 59 * DAY_MS;
  expect(await hosts.certificateFor('shop.example.com')).toBe(first);
  offsetMs = 61 * DAY_MS;
  const renewed = await hosts.certificateFor('shop.example.com');
  expect(renewed.leafPem).not.toBe(first.leafPem);
  expect(await hosts.certificateFor('shop.example.com')).toBe(renewed);
  await expect(hosts.certificateFor('../escape')).rejects.toMatchObject({ code: 'ECLUSE_CERTIFICATE_NAME_INVALID' });
});

test('certificates for many hosts at once are signed one after the other, up to a limit', async () => {
  const hosts = await HostCertificates.open(folder, { authority: await openHere(), clock: systemClock });
  const outcomes = await Promise.all(
    Array.from({ length: 1110 }, async (_, index) => hosts.certificateFor(`h${String(index % 1100)}.example`).catch(codeOf)),
  );
  expect(outcomes.filter((outcome) => outcome === 'ECLUSE_CERTIFICATES_BUSY')).toHaveLength(76);
  expect(new Set(outcomes.filter((outcome) => typeof outcome === 'object')).size).toBe(1024);
});
