/**
 * `docker save` archives on their way to an engine, with their image names replaced.
 *
 * manifest.json is held back (it is small) and rewritten; `repositories` and the OCI index, which repeat the names, are left out: engines
 * read manifest.json first. Everything else streams through with backpressure. Format: moby image/spec v1.2.
 */
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { extract, pack } from 'tar-stream';
import type { Header } from 'tar-stream';
import * as z from 'zod';
import { reasonOf } from '#errors';
import { readWhole } from './byte-stream.ts';
import { dockerError } from './docker-api/docker-error.ts';
import { parseReference, wholeReference } from './image-reference.ts';

const MANIFEST_BYTES_MAX = 4 * 1024 * 1024;
/** Layers, configs and links of a large image are some thousands. */
const ENTRIES_MAX = 100_000;
const LEFT_OUT = new Set(['repositories', 'index.json', 'oci-layout']);

const manifestSchema = z.array(
  z.looseObject({ Config: z.string(), RepoTags: z.array(z.string()).nullish(), Layers: z.array(z.string()).nullish() }),
);

export interface RewrittenArchive {
  readonly archive: Readable;
  /** Whole reference as in the archive → engine name; settles when the archive was read to its end. */
  readonly references: Promise<ReadonlyMap<string, string>>;
}

export interface RewriteOptions {
  /** The engine's name for a whole reference of the archive. */
  readonly rename: (whole: string) => string;
  readonly imagesMax: number;
}

function rewriteManifest(text: string, { rename, imagesMax }: RewriteOptions, renamed: Map<string, string>): string {
  const manifest = manifestSchema.parse(JSON.parse(text));
  if (manifest.length > imagesMax) {
    throw new TypeError(`it has ${String(manifest.length)} images, and the quota leaves room for ${String(imagesMax)}`);
  }
  return JSON.stringify(
    manifest.map((image) => ({
      Config: image.Config,
      Layers: image.Layers ?? [],
      RepoTags: (image.RepoTags ?? []).map((name) => {
        const reference = parseReference(name);
        if (reference === undefined) throw new TypeError(`"${name.slice(0, 100)}" is no image reference`);
        const whole = wholeReference(reference);
        renamed.set(whole, rename(whole));
        return rename(whole);
      }),
    })),
  );
}

async function manifestText(body: Readable): Promise<string> {
  const text = await readWhole(body, MANIFEST_BYTES_MAX);
  if (text === undefined) throw new TypeError(`manifest.json is larger than ${String(MANIFEST_BYTES_MAX)} bytes`);
  return text.toString('utf8');
}

type PlainHeader = Partial<Header> & Pick<Header, 'name'>;

/**
 * The header that the engine gets: rebuilt from parsed fields. PAX records do not pass: Go's tar reader takes names from some that
 * tar-stream does not know (GNU.sparse.name). Names must be as the engine will clean them, and nothing may lie below a link, or
 * `x/../manifest.json` would be the manifest that was not rewritten.
 */
function checkedHeader(header: Header, links: Set<string>): PlainHeader {
  const name = header.name.replace(/^\.\//, '').replace(/\/$/, '');
  const parts = name.split('/');
  const isRoot = header.type === 'directory' && (name === '.' || name === '');
  if (!isRoot && parts.some((part) => part === '' || part === '.' || part === '..')) {
    throw new TypeError(`the path ${header.name.slice(0, 100)} is not plain`);
  }
  if (parts.some((_part, index) => index > 0 && links.has(parts.slice(0, index).join('/')))) {
    throw new TypeError(`the path ${header.name.slice(0, 100)} leads through a link`);
  }
  const { mtime, type } = header;
  const base = { name: isRoot ? './' : name, mode: 0o644, mtime };
  switch (type) {
    case 'file':
    case 'contiguous-file':
      return { ...base, type: 'file', size: header.size };
    case 'directory':
      return { ...base, type: 'directory', mode: 0o755, size: 0 };
    case 'symlink':
      // docker save writes those for layers that images share.
      links.add(name);
      return { ...base, type: 'symlink', linkname: header.linkname, size: 0 };
    case 'link':
    case 'fifo':
    case 'block-device':
    case 'character-device':
    default:
      throw new TypeError(`${header.name.slice(0, 100)} is neither a file, a directory nor a symbolic link`);
  }
}

/** Rewrites an archive. A damaged one makes the returned stream fail with Docker's kind of message. */
export function rewriteImageArchive(source: Readable, options: RewriteOptions): RewrittenArchive {
  const reader = extract();
  const writer = pack();
  const renamed = new Map<string, string>();
  const links = new Set<string>();
  let entries = 0;
  let manifests = 0;
  const copy = async (header: Header, body: Readable): Promise<void> => {
    entries += 1;
    if (entries > ENTRIES_MAX) throw new TypeError(`more than ${String(ENTRIES_MAX)} entries`);
    const checked = checkedHeader(header, links);
    if (LEFT_OUT.has(checked.name)) {
      body.resume();
    } else if (checked.name === 'manifest.json') {
      manifests += 1;
      writer.entry({ name: 'manifest.json', mode: 0o644 }, rewriteManifest(await manifestText(body), options, renamed));
    } else {
      await pipeline(body, writer.entry(checked));
    }
  };
  const references = (async () => {
    try {
      const feeding = pipeline(source, reader);
      // The loop below reports what goes wrong; this only keeps the rejection from being unhandled until then.
      feeding.catch(() => undefined);
      for await (const entry of reader) {
        const body = Readable.from(entry, { objectMode: false });
        // An entry that is left half-read fails when the reader is torn down; by then its fault is known.
        body.on('error', () => undefined);
        await copy(entry.header, body);
      }
      await feeding;
      if (manifests === 0) throw new TypeError('it has no manifest.json');
      writer.finalize();
      return renamed;
    } catch (error) {
      const refusal = dockerError(400, `the archive is no docker save archive or is damaged: ${reasonOf(error)}`);
      writer.destroy(refusal);
      throw refusal;
    }
  })();
  references.catch(() => undefined); // The consumer of the archive sees the same error first.
  return { archive: Readable.from(bytesOf(writer, references), { objectMode: false }), references };
}

/** What the engine reads. A fault has the reason that `references` has: the writer may have been torn down by a part of it. */
async function* bytesOf(writer: AsyncIterable<unknown>, references: Promise<unknown>): AsyncGenerator {
  try {
    yield* writer;
  } catch (error) {
    await references;
    throw error;
  }
}
