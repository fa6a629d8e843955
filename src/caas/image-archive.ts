/**
 * `docker save` archives on their way to an engine: names replaced, and every layer proved to be there.
 *
 * An engine that has a layer already takes it on the word of a config that names its digest, and does not look at the archive's file. So a tenant who
 * knows a digest would get another's files. Here each image's layers must be in the archive and be what its config says; nothing is owed to what an
 * engine has. manifest.json is held back and written anew at the end, when that is known; `repositories` and the OCI index, which repeat the names,
 * are left out: engines read manifest.json. Everything else streams through with backpressure. Format: moby image/spec v1.2, which archives
 * of Docker 25 and later (OCI layouts with a manifest.json) keep.
 */
import { createHash } from 'node:crypto';
import { posix } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { extract, pack } from 'tar-stream';
import type { Header, Pack } from 'tar-stream';
import * as z from 'zod';
import { EcluseError, reasonOf } from '#errors';
import { chunksOf, readWhole } from './byte-stream.ts';
import { dockerError } from './docker-api/docker-error.ts';
import { parseReference, wholeReference } from './image-reference.ts';
import { ARCHIVE_BYTES_MAX, compressionOf, decompressorFor, MAGIC_BYTES, tarFault } from './plain-archive.ts';

const MANIFEST_BYTES_MAX = 4 * 1024 * 1024;
/** A config is some kilobytes; what may be one is kept until the manifest says so. */
const CONFIG_BYTES_MAX = 1024 * 1024;
const CONFIGS_BYTES_MAX = 32 * 1024 * 1024;
/** The client sends while the engine writes to its disk, and the other way round: what is between them must not be one TLS record. */
const READ_AHEAD_BYTES = 2 * 1024 * 1024;
/** Layers, configs and links of a large image are some thousands. */
const ENTRIES_MAX = 100_000;
/** Names of layers and blobs are some eighty characters; all are kept until the manifest is read. */
const NAME_CHARS_MAX = 1024;
/** Names of images in one archive; each becomes a row. */
const REFERENCES_MAX = 500;
const LEFT_OUT = new Set(['repositories', 'index.json', 'oci-layout']);

const manifestSchema = z.array(
  z.looseObject({ Config: z.string(), RepoTags: z.array(z.string()).nullish(), Layers: z.array(z.string()).nullish() }),
);
const configSchema = z.looseObject({ rootfs: z.looseObject({ diff_ids: z.array(z.string()).nullish() }) });

export interface ArchivedImage {
  /** The digest of its config. */
  readonly imageId: string;
  /** Whole references that the archive gives it. */
  readonly references: readonly string[];
  /** What the engine is told to call it. */
  readonly engineName: string;
}

export interface RewrittenArchive {
  readonly archive: Readable;
  /** Settles when the archive was read to its end. */
  readonly images: Promise<readonly ArchivedImage[]>;
}

export interface RewriteOptions {
  /** The engine's name for the image of a number. */
  readonly nameOf: (index: number) => string;
  readonly imagesMax: number;
}

type PlainHeader = Partial<Header> & Pick<Header, 'name'>;

/**
 * The header that the engine gets: rebuilt from parsed fields. PAX records do not pass: Go's tar reader takes names from some that
 * tar-stream does not know (GNU.sparse.name). Names must be as the engine will clean them, and nothing may lie below a link, or
 * `x/../manifest.json` would be the manifest that was not rewritten.
 */
function checkedHeader(header: Header, links: Set<string>): PlainHeader {
  const name = header.name.replace(/^\.\//, '').replace(/\/$/, '');
  const isRoot = header.type === 'directory' && (name === '.' || name === '');
  const fault = isRoot ? undefined : pathFault(name, links);
  if (fault !== undefined) throw new TypeError(`the path ${header.name.slice(0, 100)} ${fault}`);
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

function pathFault(name: string, links: ReadonlySet<string>): string | undefined {
  if (name.length > NAME_CHARS_MAX) return 'is too long';
  const parts = name.split('/');
  if (parts.some((part) => part === '' || part === '.' || part === '..')) return 'is not plain';
  return parts.some((_part, index) => index > 0 && links.has(parts.slice(0, index).join('/')))
    ? 'leads through a link'
    : undefined;
}

/** A file of the archive: digests of its bytes and, where it is compressed, of what they mean. */
interface KnownFile {
  readonly kind: 'file';
  readonly digests: readonly string[];
  /** Kept for what may be a config. */
  readonly text: string | undefined;
}

type Known = KnownFile | { readonly kind: 'link'; readonly target: string };

/** Digests of a compressed file's content, beside its way through. */
class Inflater {
  readonly #stream;
  readonly #hash = createHash('sha256');
  readonly #end: Promise<boolean>;
  readonly #inflated: { bytes: number };

  constructor(compression: 'gzip' | 'zstd', inflated: { bytes: number }) {
    this.#inflated = inflated;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    this.#end = promise;
    this.#stream = decompressorFor(compression);
    this.#stream.on('data', (chunk: Buffer) => {
      inflated.bytes += chunk.length;
      this.#hash.update(chunk);
    });
    this.#stream.once('end', () => {
      resolve(true);
    });
    this.#stream.once('error', () => {
      resolve(false);
    });
  }

  async push(chunk: Buffer): Promise<void> {
    if (this.#inflated.bytes > ARCHIVE_BYTES_MAX)
      throw new TypeError(`its layers are larger than ${String(ARCHIVE_BYTES_MAX)} bytes`);
    const room = Promise.withResolvers<undefined>();
    this.#stream.write(chunk, () => {
      room.resolve(undefined);
    });
    await Promise.race([room.promise, this.#end]);
  }

  /** Undefined for what cannot be decompressed. */
  async digest(): Promise<string | undefined> {
    this.#stream.end();
    return (await this.#end) ? `sha256:${this.#hash.digest('hex')}` : undefined;
  }
}

/** Digests of one file on its way, and its text where it may be a config. */
class FileProbe {
  readonly #hash = createHash('sha256');
  readonly #mayKeep: boolean;
  readonly #kept: Buffer[] = [];
  /** The first bytes, until they say whether the file is compressed. */
  #head: Buffer | undefined = Buffer.alloc(0);
  #inflater: Inflater | undefined;

  readonly #inflated: { bytes: number };

  /** `inflated`: what compressed files of the same archive have come to. */
  constructor(size: number, { keepMax, inflated }: Pick<ArchiveContents, 'keepMax' | 'inflated'>) {
    this.#mayKeep = size > 0 && size <= keepMax;
    this.#inflated = inflated;
  }

  async *follow(source: Readable): AsyncGenerator<Buffer> {
    for await (const chunk of chunksOf(source)) {
      this.#hash.update(chunk);
      if (this.#mayKeep) this.#kept.push(chunk);
      await this.#inflate(chunk);
      yield chunk;
    }
  }

  async #inflate(chunk: Buffer): Promise<void> {
    if (this.#head === undefined) {
      await this.#inflater?.push(chunk);
      return;
    }
    this.#head = Buffer.concat([this.#head, chunk]);
    if (this.#head.length < MAGIC_BYTES) return;
    const compression = compressionOf(this.#head);
    if (compression === 'gzip' || compression === 'zstd') this.#inflater = new Inflater(compression, this.#inflated);
    await this.#inflater?.push(this.#head);
    this.#head = undefined;
  }

  async finish(): Promise<KnownFile> {
    const inflated = await this.#inflater?.digest();
    const own = `sha256:${this.#hash.digest('hex')}`;
    const bytes = Buffer.concat(this.#kept);
    // A config is a JSON object.
    const text = bytes[0] === 0x7b ? bytes.toString('utf8') : undefined;
    return { kind: 'file', digests: inflated === undefined ? [own] : [own, inflated], text };
  }
}

/** What is known of the files of one archive. */
class ArchiveContents {
  readonly #known = new Map<string, Known>();
  /** Each of a hundred thousand small files could be a large one, which costs the node's own processor. */
  readonly inflated = { bytes: 0 };
  #keptBytes = 0;

  get keepMax(): number {
    return Math.min(CONFIG_BYTES_MAX, CONFIGS_BYTES_MAX - this.#keptBytes);
  }

  /** Twice the same path: engines and we could disagree about which is meant. */
  reserve(name: string): void {
    if (this.#known.has(name)) throw new TypeError(`the path ${name.slice(0, 100)} is there twice`);
    this.#known.set(name, { kind: 'link', target: name });
  }

  put(name: string, known: Known): void {
    this.#known.set(name, known);
    if (known.kind === 'file') this.#keptBytes += known.text?.length ?? 0;
  }

  /** The file that a path means, through at most one link: docker save writes those for layers that images share. */
  file(path: string): KnownFile {
    const name = path.replace(/^\.\//, '');
    const first = this.#known.get(name);
    const known = first?.kind === 'link' ? this.#known.get(posix.join(posix.dirname(name), first.target)) : first;
    if (known?.kind !== 'file') throw new TypeError(`${path.slice(0, 200)}: no such file or directory in it`);
    return known;
  }
}

function rewriteManifest(
  text: string,
  contents: ArchiveContents,
  { nameOf, imagesMax }: RewriteOptions,
): { readonly text: string; readonly images: readonly ArchivedImage[] } {
  const manifest = manifestSchema.parse(JSON.parse(text));
  if (manifest.length > imagesMax) {
    throw new TypeError(`it has ${String(manifest.length)} images, and the quota leaves room for ${String(imagesMax)}`);
  }
  const images = manifest.map((image, index): ArchivedImage => {
    const config = contents.file(image.Config);
    const [imageId = ''] = config.digests;
    if (config.text === undefined) throw new TypeError(`${image.Config.slice(0, 200)} is no image config`);
    const wanted = configSchema.parse(JSON.parse(config.text)).rootfs.diff_ids ?? [];
    const layers = image.Layers ?? [];
    if (layers.length !== wanted.length) {
      throw new TypeError(
        `invalid manifest, layers length mismatch: expected ${String(wanted.length)}, got ${String(layers.length)}`,
      );
    }
    for (const [place, layer] of layers.entries()) {
      const { digests } = contents.file(layer);
      const expected = wanted[place] ?? '';
      if (!digests.includes(expected)) {
        throw new TypeError(
          `invalid diffID for layer ${String(place)}: expected ${expected.slice(0, 80)}, got ${digests.at(-1) ?? ''}`,
        );
      }
    }
    const references = (image.RepoTags ?? []).map((name) => {
      const reference = parseReference(name);
      if (reference === undefined) throw new TypeError(`"${name.slice(0, 100)}" is no image reference`);
      return wholeReference(reference);
    });
    return { imageId, references, engineName: nameOf(index) };
  });
  const names = images.reduce((sum, { references }) => sum + references.length, 0);
  if (names > REFERENCES_MAX) throw new TypeError(`it has more than ${String(REFERENCES_MAX)} names`);
  const rewritten = manifest.map((image, index) => ({
    Config: image.Config,
    RepoTags: [images[index]?.engineName],
    Layers: image.Layers ?? [],
  }));
  return { text: JSON.stringify(rewritten), images };
}

async function manifestText(body: Readable): Promise<string> {
  const text = await readWhole(body, MANIFEST_BYTES_MAX);
  if (text === undefined) throw new TypeError(`manifest.json is larger than ${String(MANIFEST_BYTES_MAX)} bytes`);
  return text.toString('utf8');
}

/** Copies one entry. Returns the text of the manifest, if it was that. */
async function copyEntry(
  entry: { readonly header: Header; readonly body: Readable },
  writer: Pack,
  seen: { readonly contents: ArchiveContents; readonly links: Set<string> },
): Promise<string | undefined> {
  const checked = checkedHeader(entry.header, seen.links);
  if (checked.type !== 'directory') seen.contents.reserve(checked.name);
  if (LEFT_OUT.has(checked.name)) {
    entry.body.resume();
    return undefined;
  }
  if (checked.name === 'manifest.json') return await manifestText(entry.body);
  if (checked.type === 'file') {
    const probe = new FileProbe(entry.header.size, seen.contents);
    await pipeline(entry.body, (body: Readable) => probe.follow(body), writer.entry(checked));
    seen.contents.put(checked.name, await probe.finish());
    return undefined;
  }
  if (checked.type === 'symlink') seen.contents.put(checked.name, { kind: 'link', target: checked.linkname ?? '' });
  await pipeline(entry.body, writer.entry(checked));
  return undefined;
}

/** An archive that is no tar, or a part of one: Docker says so in the stream, where it says what it loads. */
export class DamagedTar extends EcluseError {
  constructor(message: string) {
    super({ code: 'ECLUSE_DOCKER_REFUSED', source: 'downstream', status: 400, message });
    this.name = 'DamagedTar';
  }
}

function refusalOf(error: unknown): EcluseError {
  if (error instanceof EcluseError) return error;
  const fault = tarFault(error);
  if (fault !== undefined) return new DamagedTar(fault);
  return dockerError(400, `the archive is no docker save archive or is damaged: ${reasonOf(error)}`);
}

/** Rewrites an archive. A damaged one makes the returned stream fail with Docker's kind of message. */
export function rewriteImageArchive(source: Readable, options: RewriteOptions): RewrittenArchive {
  const reader = extract();
  const writer = pack();
  const seen = { contents: new ArchiveContents(), links: new Set<string>() };
  const images = (async () => {
    try {
      const feeding = pipeline(source, reader);
      // The loop below reports what goes wrong; this only keeps the rejection from being unhandled until then.
      feeding.catch(() => undefined);
      let entries = 0;
      let manifest: string | undefined;
      for await (const entry of reader) {
        entries += 1;
        if (entries > ENTRIES_MAX) throw new TypeError(`more than ${String(ENTRIES_MAX)} entries`);
        const body = Readable.from(entry, { objectMode: false });
        // An entry that is left half-read fails when the reader is torn down; by then its fault is known.
        body.on('error', () => undefined);
        manifest = (await copyEntry({ header: entry.header, body }, writer, seen)) ?? manifest;
      }
      await feeding;
      if (manifest === undefined) throw new TypeError('it has no manifest.json');
      const rewritten = rewriteManifest(manifest, seen.contents, options);
      writer.entry({ name: 'manifest.json', mode: 0o644 }, rewritten.text);
      writer.finalize();
      return rewritten.images;
    } catch (error) {
      const refusal = refusalOf(error);
      writer.destroy(refusal);
      throw refusal;
    }
  })();
  images.catch(() => undefined); // The consumer of the archive sees the same error first.
  return { archive: Readable.from(bytesOf(writer, images), { objectMode: false, highWaterMark: READ_AHEAD_BYTES }), images };
}

/** What the engine reads. A fault has the reason that `images` has: the writer may have been torn down by a part of it. */
async function* bytesOf(writer: AsyncIterable<unknown>, images: Promise<unknown>): AsyncGenerator {
  try {
    yield* writer;
  } catch (error) {
    await images;
    throw error;
  }
}
