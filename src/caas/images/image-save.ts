/** `docker save` archives of engines on their way to a tenant, with the tenant's names in them. Ids and layers are content and stay. */
import { posix } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { extract, pack } from 'tar-stream';
import type { Pack } from 'tar-stream';
import * as z from 'zod';
import { readWhole } from '#caas/byte-stream.ts';
import { familiarReference, splitWhole } from './image-reference.ts';

const MANIFEST_BYTES_MAX = 4 * 1024 * 1024;
/** They have the engine's names; `repositories` is made anew. An archive without the OCI index is one of Docker's own older form. */
const LEFT_OUT = new Set(['repositories', 'index.json', 'oci-layout']);

const manifestSchema = z.array(z.object({ Config: z.string(), Layers: z.array(z.string()).nullish() }));
type Manifest = z.infer<typeof manifestSchema>;

/** `<id>.json`, or `blobs/sha256/<id>`. */
function imageIdOf(config: string): string {
  return `sha256:${posix.basename(config, '.json')}`;
}

/** Docker's file `repositories`: repository, tag, and the directory of the topmost layer. */
function repositoriesOf(
  manifest: Manifest,
  names: ReadonlyMap<string, readonly string[]>,
): Record<string, Record<string, string>> {
  const repositories: Record<string, Record<string, string>> = {};
  for (const { Config, Layers } of manifest) {
    const top = posix.dirname(Layers?.at(-1) ?? '');
    for (const whole of names.get(imageIdOf(Config)) ?? []) {
      const { repository, tag } = splitWhole(whole);
      (repositories[familiarReference(repository)] ??= {})[tag] = top;
    }
  }
  return repositories;
}

function writeManifest(writer: Pack, text: string, names: ReadonlyMap<string, readonly string[]>): void {
  const manifest = manifestSchema.parse(JSON.parse(text));
  const rewritten = manifest.map(({ Config, Layers }) => {
    const tags = (names.get(imageIdOf(Config)) ?? []).map(familiarReference);
    return { Config, RepoTags: tags.length === 0 ? null : tags, Layers };
  });
  const head = { mode: 0o644, mtime: new Date(0), uname: 'root', gname: 'root' };
  writer.entry({ ...head, name: 'manifest.json' }, `${JSON.stringify(rewritten)}\n`);
  const repositories = repositoriesOf(manifest, names);
  if (Object.keys(repositories).length > 0) {
    writer.entry({ ...head, name: 'repositories' }, `${JSON.stringify(repositories)}\n`);
  }
}

/** `names`: whole references by image id; an image without any is saved without. */
export function nameSavedArchive(source: Readable, names: ReadonlyMap<string, readonly string[]>): Readable {
  const reader = extract();
  const writer = pack();
  const copy = async (): Promise<void> => {
    const feeding = pipeline(source, reader);
    feeding.catch(() => undefined); // The loop sees it.
    let manifest: string | undefined;
    for await (const entry of reader) {
      const { header } = entry;
      const body = Readable.from(entry, { objectMode: false });
      body.on('error', () => undefined);
      if (LEFT_OUT.has(header.name)) body.resume();
      else if (header.name === 'manifest.json') manifest = (await readWhole(body, MANIFEST_BYTES_MAX))?.toString('utf8');
      else await pipeline(body, writer.entry(header));
    }
    await feeding;
    if (manifest === undefined) throw new Error('the engine saved an archive without a manifest');
    writeManifest(writer, manifest, names);
    writer.finalize();
  };
  copy().catch((error: unknown) => {
    writer.destroy(error instanceof Error ? error : new Error(String(error)));
  });
  return Readable.from(writer, { objectMode: false });
}
