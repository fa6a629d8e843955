import { X509Certificate, createHash, createPrivateKey } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { certificateIdOf, newCertificateRequest, newChallengeCertificate } from '#tls/acme/certificate-request.ts';
import { retryAfterMsOf } from '#tls/acme/retry-after.ts';
import { makeSigned } from '../../../support/certificate-maker.ts';

/** The certificate of RFC 9773, appendix A. */
const OF_RFC = `-----BEGIN CERTIFICATE-----
MIIBQzCB66ADAgECAgUAh2VDITAKBggqhkjOPQQDAjAVMRMwEQYDVQQDEwpFeGFt
cGxlIENBMCIYDzAwMDEwMTAxMDAwMDAwWhgPMDAwMTAxMDEwMDAwMDBaMBYxFDAS
BgNVBAMTC2V4YW1wbGUuY29tMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEeBZu
7cbpAYNXZLbbh8rNIzuOoqOOtmxA1v7cRm//AwyMwWxyHz4zfwmBhcSrf47NUAFf
qzLQ2PPQxdTXREYEnKMjMCEwHwYDVR0jBBgwFoAUaYhba4dGQEHhs3uEe6CuLN4B
yNQwCgYIKoZIzj0EAwIDRwAwRAIge09+S5TZAlw5tgtiVvuERV6cT4mfutXIlwTb
+FYN/8oCIClDsqBklhB9KAelFiYt9+6FDj3z4KGVelYM5MdsO3pK
-----END CERTIFICATE-----`;

describe('certificateIdOf', () => {
  test('is that of RFC 9773', () => {
    expect(certificateIdOf(OF_RFC)).toBe('aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE');
  });

  test('there is none where the certificate does not name who signed it', async () => {
    expect(certificateIdOf((await makeSigned({ names: ['a.test'] })).certPem)).toBeUndefined();
  });
});

test('each request has a key of its own', async () => {
  const [one, other] = [await newCertificateRequest(['a.test']), await newCertificateRequest(['a.test'])];
  expect(createPrivateKey(one.keyPem).asymmetricKeyDetails?.namedCurve).toBe('prime256v1');
  expect(one.keyPem).not.toBe(other.keyPem);
  expect(Buffer.from(one.csr, 'base64url').includes('a.test')).toBe(true);
});

test('the certificate of a challenge names the host, and has the digest where RFC 8737 wants it, as critical', async () => {
  const { leafPem } = await newChallengeCertificate('a.test', 'token.thumb', Date.now());
  const certificate = new X509Certificate(leafPem);
  expect(certificate.subjectAltName).toBe('DNS:a.test');
  const digest = createHash('sha256').update('token.thumb').digest('hex');
  // OBJECT IDENTIFIER 1.3.6.1.5.5.7.1.31, BOOLEAN true, OCTET STRING of an OCTET STRING.
  expect(certificate.raw.toString('hex')).toContain(`06082b0601050507011f0101ff04220420${digest}`);
});

test('Retry-After is seconds or a date, and never a year', () => {
  expect(retryAfterMsOf('120', 0)).toBe(120_000);
  expect(retryAfterMsOf('Thu, 01 Jan 1970 00:01:00 GMT', 10_000)).toBe(50_000);
  expect(retryAfterMsOf('Thu, 01 Jan 1970 00:00:00 GMT', 10_000)).toBe(0);
  expect(retryAfterMsOf('99999999999', 0)).toBe(30 * 86_400_000);
  for (const none of [undefined, '', 'soon', '-1x']) expect(retryAfterMsOf(none, 0)).toBeUndefined();
});
