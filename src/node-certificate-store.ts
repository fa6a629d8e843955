/** Certificates that people added, as the store has them: what they cover, and packed for workers with their keys unsealed. */
import { reasonOf } from '#errors';
import { listCoverages, readCertificateMaterial } from '#state/certificates.ts';
import type { CertificateMaterial } from '#state/certificates.ts';
import type { Sql } from '#state/sql.ts';
import type { Coverage, EdgeCertificate } from '#tls/certificate.ts';
import { CertificateIndex } from '#tls/certificate-index.ts';
import { CertificatePack } from '#tls/certificate-pack.ts';
import type { KeySeal } from '#tls/key-seal.ts';

export interface StoreDeps {
  readonly sql: Sql;
  readonly seal: KeySeal;
  /** A certificate is left out: the others must not wait for it. */
  readonly refused: (name: string, reason: string) => void;
}

/** What a sealed key belongs to: the key of another row, or of an earlier version, does not open in its place. */
export function belongsTo({ name, version, fingerprint }: Pick<CertificateMaterial, 'name' | 'version' | 'fingerprint'>): string {
  return `ecluse certificate ${name} ${String(version)} ${fingerprint}`;
}

export async function bareCertificates({ sql }: Pick<StoreDeps, 'sql'>): Promise<CertificateIndex<Coverage>> {
  return await CertificateIndex.bareOf(listCoverages(sql));
}

/** Those of `names` that can be served. */
export async function packCertificates({ sql, seal, refused }: StoreDeps, names: readonly string[]): Promise<CertificatePack> {
  const rows = await readCertificateMaterial(sql, names);
  const certificates = rows.flatMap((row): readonly EdgeCertificate[] => {
    const { name, hosts, notAfterMs, leaf, chain } = row;
    try {
      const keyPem = seal.unseal(row.sealedKey, belongsTo(row));
      return [{ name, hosts, notAfterMs, leafPem: leaf, chain: { pem: chain }, keyPem }];
    } catch (error) {
      refused(name, reasonOf(error));
      return [];
    }
  });
  return CertificatePack.of(certificates, refused);
}
