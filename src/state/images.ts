/** Which images a tenant may use, and under which references. Content is shared between tenants; references never are. */
import { textOf, integerOf } from './sql.ts';
import type { Sql, SqlRow, SqlWrite, WriteOutcome } from './sql.ts';

export interface TenantImage {
  readonly imageId: string;
  readonly createdMs: number;
  /** Whole references with tags. */
  readonly references: readonly string[];
  /** `docker.io/library/busybox@sha256:…`: what it was pulled or pushed as. */
  readonly digests: readonly string[];
}

/** The content of a repository that an image was pulled from or pushed to. */
export interface ImageDigest {
  readonly repository: string;
  /** Of the manifest: `sha256:…`. */
  readonly digest: string;
}

function referenceWrites(tenant: string, reference: string, imageId: string): readonly SqlWrite[] {
  return [
    { sql: 'DELETE FROM image_reference WHERE tenant = ? AND reference = ?', values: [tenant, reference] },
    {
      sql: 'INSERT INTO image_reference (tenant, reference, image_id) VALUES (?, ?, ?)',
      values: [tenant, reference, imageId],
      expectRows: 1,
    },
  ];
}

function digestWrites(tenant: string, { repository, digest }: ImageDigest, imageId: string): readonly SqlWrite[] {
  return [
    { sql: 'DELETE FROM image_digest WHERE tenant = ? AND repository = ? AND digest = ?', values: [tenant, repository, digest] },
    {
      sql: 'INSERT INTO image_digest (tenant, repository, digest, image_id) VALUES (?, ?, ?, ?)',
      values: [tenant, repository, digest, imageId],
      expectRows: 1,
    },
  ];
}

/** Gives a tenant an image, with or without a reference and a digest; a reference that it used before moves over. */
export async function putImage(
  sql: Sql,
  image: {
    readonly tenant: string;
    readonly imageId: string;
    readonly reference: string | undefined;
    readonly digest?: ImageDigest | undefined;
    readonly nowMs: number;
  },
): Promise<WriteOutcome> {
  const { tenant, imageId, reference, digest, nowMs } = image;
  return await sql.write([
    { sql: 'DELETE FROM image WHERE tenant = ? AND image_id = ?', values: [tenant, imageId] },
    { sql: 'INSERT INTO image (tenant, image_id, created_ms) VALUES (?, ?, ?)', values: [tenant, imageId, nowMs], expectRows: 1 },
    ...(reference === undefined ? [] : referenceWrites(tenant, reference, imageId)),
    ...(digest === undefined ? [] : digestWrites(tenant, digest, imageId)),
  ]);
}

export async function dropReference(sql: Sql, tenant: string, reference: string): Promise<WriteOutcome> {
  return await sql.write([
    { sql: 'DELETE FROM image_reference WHERE tenant = ? AND reference = ?', values: [tenant, reference], expectRows: 1 },
  ]);
}

export async function dropDigest(sql: Sql, tenant: string, { repository, digest }: ImageDigest): Promise<WriteOutcome> {
  return await sql.write([
    {
      sql: 'DELETE FROM image_digest WHERE tenant = ? AND repository = ? AND digest = ?',
      values: [tenant, repository, digest],
      expectRows: 1,
    },
  ]);
}

/** Takes an image from a tenant, with all its references. */
export async function dropImage(sql: Sql, tenant: string, imageId: string): Promise<WriteOutcome> {
  return await sql.write([
    { sql: 'DELETE FROM image_reference WHERE tenant = ? AND image_id = ?', values: [tenant, imageId] },
    { sql: 'DELETE FROM image_digest WHERE tenant = ? AND image_id = ?', values: [tenant, imageId] },
    { sql: 'DELETE FROM image WHERE tenant = ? AND image_id = ?', values: [tenant, imageId], expectRows: 1 },
  ]);
}

/** Names by the image that they mean. */
function byImage(rows: readonly SqlRow[], nameOf: (row: SqlRow) => string): ReadonlyMap<string, readonly string[]> {
  const names = new Map<string, string[]>();
  for (const row of rows) {
    const imageId = textOf(row, 'image_id');
    const known = names.get(imageId);
    if (known === undefined) names.set(imageId, [nameOf(row)]);
    else known.push(nameOf(row));
  }
  return names;
}

export async function listImages(sql: Sql, tenant: string): Promise<readonly TenantImage[]> {
  const images = await sql.read('SELECT image_id, created_ms FROM image WHERE tenant = ? ORDER BY created_ms DESC', [tenant]);
  const references = byImage(
    await sql.read('SELECT reference, image_id FROM image_reference WHERE tenant = ? ORDER BY reference', [tenant]),
    (row) => textOf(row, 'reference'),
  );
  const digests = byImage(
    await sql.read('SELECT repository, digest, image_id FROM image_digest WHERE tenant = ? ORDER BY repository, digest', [
      tenant,
    ]),
    (row) => `${textOf(row, 'repository')}@${textOf(row, 'digest')}`,
  );
  return images.map((row) => {
    const imageId = textOf(row, 'image_id');
    return {
      imageId,
      createdMs: integerOf(row, 'created_ms'),
      references: references.get(imageId) ?? [],
      digests: digests.get(imageId) ?? [],
    };
  });
}

/** How many tenants still hold an image; zero means that engines may forget it. */
export async function countHolders(sql: Sql, imageId: string): Promise<number> {
  const [row] = await sql.read('SELECT COUNT(*) AS holders FROM image WHERE image_id = ?', [imageId]);
  return row === undefined ? 0 : integerOf(row, 'holders');
}

/** Everything that somebody holds: images, and names of images by tenant. */
export async function listHeld(sql: Sql): Promise<{
  readonly imageIds: ReadonlySet<string>;
  readonly names: readonly { readonly tenant: string; readonly reference: string; readonly imageId: string }[];
}> {
  const images = await sql.read('SELECT DISTINCT image_id FROM image', []);
  const names = await sql.read('SELECT tenant, reference, image_id FROM image_reference', []);
  return {
    imageIds: new Set(images.map((row) => textOf(row, 'image_id'))),
    names: names.map((row) => ({
      tenant: textOf(row, 'tenant'),
      reference: textOf(row, 'reference'),
      imageId: textOf(row, 'image_id'),
    })),
  };
}
