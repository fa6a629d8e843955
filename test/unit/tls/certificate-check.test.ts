/** Certificates as people hand them in: what is taken, what is put right, and what is refused with which reason. */
import { createPrivateKey, generateKeyPairSync } from 'node:crypto';
import { beforeAll, expect, test } from 'vitest';
import { EcluseError } from '#errors';
import { checkCertificate } from '#tls/certificate-check.ts';
import type { CheckedCertificate } from '#tls/certificate-check.ts';
import { makeChain, makeSigned } from '../../support/certificate-maker.ts';
import type { MadeChain } from '../../support/certificate-maker.ts';

const NAMES = ['shop.example.com', '*.Shop.example.com'];
let made: MadeChain;

beforeAll(async () => {
  made = await makeChain(NAMES);
});

/** What is said where it is refused; undefined: it is not, or with another code. */
function refusal(certPem: string, keyPem?: string): string | undefined {
  try {
    check(certPem, keyPem);
  } catch (error) {
    if (error instanceof EcluseError && error.code === 'ECLUSE_CERTIFICATE_REFUSED' && error.status === 400) return error.message;
  }
  return undefined;
}

function check(certPem: string, keyPem = made.leaf.keyPem, force = false): CheckedCertificate {
  return checkCertificate({ certPem, keyPem, force }, Date.now());
}

const oneLine = (pem: string): string => pem.replaceAll(/\s/g, '');

test('a whole chain is taken, with its names in lower case, and without its root', () => {
  const { root, intermediate, leaf } = made;
  const checked = check(`${leaf.certPem}${intermediate.certPem}${root.certPem}`);
  expect(checked).toMatchObject({
    hosts: ['shop.example.com', '*.shop.example.com'],
    issuer: 'CN=Test Intermediate',
    keyKind: 'EC P-256',
    notes: ['its root is not sent: clients have it, or do not trust it'],
  });
  expect(checked.fingerprint).toMatch(/^[0-9a-f]{64}$/);
  expect(oneLine(checked.leafPem)).toBe(oneLine(leaf.certPem));
  expect(oneLine(checked.chainPem)).toBe(oneLine(intermediate.certPem));
  expect(createPrivateKey(checked.keyPem).equals(createPrivateKey(leaf.keyPem))).toBe(true);
  expect(checked.notAfterMs).toBe(leaf.certificate.notAfter.getTime());
});

test('a chain in any order is put in order, and what is not of it is left out', async () => {
  const stranger = await makeSigned({ subject: 'stranger' });
  const { root, intermediate, leaf } = made;
  const checked = check([root, stranger, intermediate, leaf].map(({ certPem }) => certPem).join('# a comment\n'));
  expect(oneLine(checked.leafPem)).toBe(oneLine(leaf.certPem));
  expect(oneLine(checked.chainPem)).toBe(oneLine(intermediate.certPem));
  expect(checked.notes).toEqual([
    expect.stringContaining('put in order'),
    expect.stringContaining('its root is not sent'),
    '1 certificates that are not of its chain were left out',
  ]);
});

test('a chain that ends at a stranger, and an intermediate that has expired, are taken with a note', async () => {
  const { leaf, intermediate, root } = made;
  expect(check(leaf.certPem).notes).toEqual([expect.stringContaining('its chain ends at "CN=Test Intermediate"')]);
  expect(check(`${leaf.certPem}${intermediate.certPem}`).notes).toEqual([expect.stringContaining('ends at "CN=Test Root"')]);
  const old = await makeSigned({ subject: 'Old', isCa: true, by: root, untilDays: -0.5 });
  const below = await makeSigned({ names: ['a.test'], by: old });
  expect(check(`${below.certPem}${old.certPem}${root.certPem}`, below.keyPem).notes).toContain(
    'its intermediate "CN=Old" has expired',
  );
});

test('one that nobody else signed, and one with an RSA key, are taken', async () => {
  const own = await makeSigned({ names: ['a.test'] });
  expect(check(own.certPem, own.keyPem)).toMatchObject({ chainPem: '', notes: [] });
  const rsa = await makeSigned({ names: ['a.test'], kind: 'rsa-2048' });
  const pkcs1 = createPrivateKey(rsa.keyPem).export({ type: 'pkcs1', format: 'pem' });
  expect(check(rsa.certPem, pkcs1)).toMatchObject({ keyKind: 'RSA 2048' });
}, 10_000);

test('dates count, unless they are to be looked over', async () => {
  const over = await makeSigned({ names: ['a.test'], fromDays: -3, untilDays: -1 });
  const early = await makeSigned({ names: ['a.test'], fromDays: 1 });
  expect(refusal(over.certPem, over.keyPem)).toMatch(/^certPem: the certificate has expired: it was valid until /);
  expect(refusal(early.certPem, early.keyPem)).toMatch(/^certPem: the certificate is not valid before /);
  expect(check(over.certPem, over.keyPem, true).hosts).toEqual(['a.test']);
  expect(check(early.certPem, early.keyPem, true).hosts).toEqual(['a.test']);
});

test('names that no client would take are refused', async () => {
  for (const [names, says] of [
    [[], /names no host/],
    [['127.0.0.1'], /names no host/],
    [['*.*.test'], /"\*\.\*\.test" has more than one wildcard/],
    [['a.*.test'], /has its wildcard elsewhere/],
    [['f*.test'], /has its wildcard elsewhere/],
    [['*'], /has its wildcard elsewhere/],
    [['a b.test'], /is no DNS name/],
    [['good.test', '-a.test'], /"-a\.test" is no DNS name/],
  ] as const) {
    const wrong = await makeSigned({ names });
    expect(refusal(wrong.certPem, wrong.keyPem)).toMatch(says);
  }
});

test('keys that do not fit, or that nobody should use, are refused', async () => {
  const { leaf } = made;
  const other = await makeSigned();
  const weak = await makeSigned({ names: ['a.test'], kind: 'rsa-1024' });
  const pkcs8 = { type: 'pkcs8', format: 'pem' } as const;
  const encrypted = createPrivateKey(leaf.keyPem).export({ ...pkcs8, cipher: 'aes-256-cbc', passphrase: 'secret' });
  const old = createPrivateKey(weak.keyPem).export({ type: 'pkcs1', format: 'pem', cipher: 'aes-128-cbc', passphrase: 'secret' });
  const odd = generateKeyPairSync('ed25519').privateKey.export(pkcs8);
  const curve = generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).privateKey.export(pkcs8);
  for (const [keyPem, says] of [
    [other.keyPem, /^keyPem: the key does not belong to the certificate/],
    [`${leaf.keyPem}${other.keyPem}`, /^keyPem: there are 2 blocks in it/],
    [encrypted, /^keyPem: the key is encrypted/],
    [old, /^keyPem: the key is encrypted/],
    [weak.keyPem, /^keyPem: an RSA key of 1024 bits is too weak/],
    [odd, /^keyPem: browsers know no keys of the kind ed25519/],
    [curve, /^keyPem: browsers know no keys of the kind ec secp256k1/],
    [leaf.certPem, /^keyPem: there is no private key in it, but: CERTIFICATE/],
    ['', /^keyPem: there is no private key in it/],
    [leaf.keyPem.slice(0, -20), /^keyPem: block 1 has no end/],
    ['-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n', /^keyPem: the private key cannot be read/],
    [`${leaf.keyPem}${' '.repeat(64 * 1024)}`, /^keyPem: it has more than 64 KiB/],
  ] as const) {
    expect(refusal(leaf.certPem, keyPem)).toMatch(says);
  }
});

test('texts that are no certificate of a server are refused', async () => {
  const { leaf } = made;
  const signer = await makeSigned({ names: ['a.test'], uses: ['1.3.6.1.5.5.7.3.3'] });
  for (const [certPem, says] of [
    ['', /^certPem: there is no certificate in it/],
    ['nonsense', /^certPem: there is no certificate in it/],
    [`${leaf.certPem}${leaf.keyPem}`, /^certPem: there is a private key among the certificates/],
    ['-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n', /^certPem: block 1 is no certificate/],
    ['-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n', /^certPem: certificate 1 cannot be read/],
    [leaf.certPem.repeat(200), /^certPem: it has more than 64 KiB/],
  ] as const) {
    expect(refusal(certPem)).toMatch(says);
  }
  expect(refusal(signer.certPem, signer.keyPem)).toMatch(/^certPem: the certificate is neither for servers nor for clients/);
});

test('one that is for clients is taken without a name, and covers none', async () => {
  for (const names of [[], ['a.test']]) {
    const { certPem, keyPem } = await makeSigned({ names, uses: ['1.3.6.1.5.5.7.3.2'] });
    const checked = checkCertificate({ certPem, keyPem, force: false }, Date.now());
    expect([checked.hosts, checked.notes[0]]).toEqual([[], expect.stringMatching(/^it is for clients/)]);
  }
  const both = await makeSigned({ names: ['a.test'], uses: ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2'] });
  expect(checkCertificate({ ...both, force: false }, Date.now()).hosts).toEqual(['a.test']);
});
