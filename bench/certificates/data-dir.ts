/** A data directory as a node leaves it that was given these certificates, one after the other: written in one transaction. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { openSqlite } from '#state/sqlite.ts';
import { KeySeal } from '#tls/key-seal.ts';
import { belongsTo } from '../../src/node-certificate-store.ts';
import type { Leaf } from './leaf.ts';

const COLUMNS =
  'name, version, source, added_ms, not_before_ms, not_after_ms, hosts, issuer, key_kind, fingerprint, leaf, chain, sealed_key, sealed_by';

/** `chainOf`: what follows a leaf, PEM. */
export async function fillDataDir(dataDir: string, leaves: Iterable<Leaf>, chainOf: (leaf: Leaf) => string): Promise<void> {
  const [file, folder] = [join(dataDir, 'ecluse.db'), join(dataDir, 'tls')];
  await mkdir(dataDir, { recursive: true });
  await openSqlite(file)[Symbol.asyncDispose]();
  const seal = await KeySeal.open(folder, []);
  using database = new DatabaseSync(file);
  const insert = database.prepare(
    `INSERT INTO certificate (${COLUMNS}) VALUES (?, 1, 'uploaded', ?, ?, ?, ?, ?, 'EC P-256', ?, ?, ?, ?, ?)`,
  );
  const nowMs = Date.now();
  database.exec('BEGIN');
  for (const leaf of leaves) {
    const { host, certPem, keyPem, notBeforeMs, notAfterMs, fingerprint } = leaf;
    const sealed = seal.seal(keyPem, belongsTo({ name: host, version: 1, fingerprint }));
    insert.run(
      host,
      nowMs,
      notBeforeMs,
      notAfterMs,
      JSON.stringify([host]),
      'C=XX, O=Bench Encrypt, CN=E7',
      fingerprint,
      certPem,
      chainOf(leaf),
      sealed,
      seal.id,
    );
  }
  database.exec('COMMIT');
}
