/**
 * The image of Ryuk, testcontainers' reaper. It is on Docker Hub and nowhere among npm's and Debian's packages, so a test gets it as every
 * tenant would, by a pull, or from an archive of `docker save` that `ECLUSE_TEST_RYUK` names; else it says what it left out.
 */
import { readFile } from 'node:fs/promises';
import type { TestNode } from './node.ts';

/** What testcontainers 12 asks for. */
export const RYUK_REFERENCE = 'testcontainers/ryuk:0.14.0';

export type RyukImage = { readonly kind: 'there' } | { readonly kind: 'left out'; readonly reason: string };

/** Gives `tenant` the image, if it can be had. */
export async function ryukImage(node: TestNode, tenant: string): Promise<RyukImage> {
  const archive = process.env['ECLUSE_TEST_RYUK'];
  const got =
    archive === undefined
      ? await node.docker(tenant, ['pull', '--quiet', RYUK_REFERENCE])
      : await node.docker(tenant, ['load'], await readFile(archive));
  const found = await node.docker(tenant, ['image', 'inspect', RYUK_REFERENCE]);
  if (found.exitCode === 0) return { kind: 'there' };
  if (archive !== undefined) throw new Error(`${archive} has no image ${RYUK_REFERENCE}: ${got.stderr}`);
  return { kind: 'left out', reason: `${RYUK_REFERENCE} cannot be pulled here: ${got.stderr.trim()}` };
}
