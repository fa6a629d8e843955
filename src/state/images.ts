/** Which images a tenant may use, and under which references. Content is shared between tenants; references never are. */
import { textOf, integerOf } from './sql.ts';
import type { Sql, SqlWrite, WriteOutcome } from './sql.ts';

export interface TenantImage {
  readonly imageId: string;
  readonly createdMs: number;
  readonly references: readonly string[];
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

/** Gives a tenant an image, with or without a reference; a reference that it used before moves over. */
export async function putImage(
  sql: Sql,
  image: { readonly tenant: string; readonly imageId: string; readonly reference: string | undefined; readonly nowMs: number },
): Promise<WriteOutcome> {
  const { tenant, imageId, reference, nowMs } = image;
  return await sql.write([
    { sql: 'DELETE FROM image WHERE tenant = ? AND image_id = ?', values: [tenant, imageId] },
    { sql: 'INSERT INTO image (tenant, image_id, created_ms) VALUES (?, ?, ?)', values: [tenant, imageId, nowMs], expectRows: 1 },
    ...(reference === undefined ? [] : referenceWrites(tenant, reference, imageId)),
  ]);
}

export async function dropReference(sql: Sql, tenant: string, reference: string): Promise<WriteOutcome> {
  return await sql.write([
    { sql: 'DELETE FROM image_reference WHERE tenant = ? AND reference = ?', values: [tenant, reference], expectRows: 1 },
  ]);
}

/** Takes an image from a tenant, with all its references. */
export async function dropImage(sql: Sql, tenant: string, imageId: string): Promise<WriteOutcome> {
  return await sql.write([
    { sql: 'DELETE FROM image_reference WHERE tenant = ? AND image_id = ?', values: [tenant, imageId] },
    { sql: 'DELETE FROM image WHERE tenant = ? AND image_id = ?', values: [tenant, imageId], expectRows: 1 },
  ]);
}

export async function listImages(sql: Sql, tenant: string): Promise<readonly TenantImage[]> {
  const images = await sql.read('SELECT image_id, created_ms FROM image WHERE tenant = ? ORDER BY created_ms DESC', [tenant]);
  const references = await sql.read('SELECT reference, image_id FROM image_reference WHERE tenant = ? ORDER BY reference', [
    tenant,
  ]);
  return images.map((row) => {
    const imageId = textOf(row, 'image_id');
    return {
      imageId,
      createdMs: integerOf(row, 'created_ms'),
      references: references.filter((other) => textOf(other, 'image_id') === imageId).map((other) => textOf(other, 'reference')),
    };
  });
}

/** How many tenants still hold an image; zero means that engines may forget it. */
export async function countHolders(sql: Sql, imageId: string): Promise<number> {
  const [row] = await sql.read('SELECT COUNT(*) AS holders FROM image WHERE image_id = ?', [imageId]);
  return row === undefined ? 0 : integerOf(row, 'holders');
}
