/** Self-signed certificates for tests, made by openssl. */
import { X509Certificate } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runCommand } from '#command';
import type { EdgeCertificate } from '#tls/certificate.ts';

/** A certificate for `host`, which can be a wildcard or `*`. */
export async function makeCertificate(host: string): Promise<EdgeCertificate> {
  const directory = await mkdtemp(join(tmpdir(), 'ecluse-cert-'));
  try {
    const [key, cert] = [join(directory, 'key.pem'), join(directory, 'cert.pem')];
    const name = host === '*' ? 'default.test' : host;
    const what = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
    const where = ['-keyout', key, '-out', cert, '-subj', `/CN=${name}`, '-addext', `subjectAltName=DNS:${name}`];
    await runCommand('openssl', [...what, ...where]);
    const [leafPem, keyPem] = [await readFile(cert, 'utf8'), await readFile(key, 'utf8')];
    const notAfterMs = new X509Certificate(leafPem).validToDate.getTime();
    return { name: host, hosts: host === '*' ? [] : [host], notAfterMs, leafPem, chain: { pem: '' }, keyPem };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
