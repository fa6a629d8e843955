/**
 * `docker save` archives on their way to an engine: names replaced, and every layer proved to be there.
 *
 * An engine that has a layer already takes it on the word of a config that names its digest, and does not look at the archive's file. So a tenant who
 * knows a digest would get another's files. Here each image's layers must be in the archive and be what its config says; nothing is owed to what an
 * engine has. manifest.json is held back and written anew at the end, when that is known; `repositories` and the OCI index, which repeat the names,
 * are left out: engines read manifest.json. Everything else streams through with backpressure. Format: moby image/spec v1.2, which archives
 * of Docker 25 and later (OCI layouts with a manifest.json) keep.
 */
import { posix } from 'node:path';
import { Readable } from 'node:stream';
import * as z from 'zod';
import { EcluseError, reasonOf } from '#errors';
import { DigestSeries } from './digest-thread.ts';
import type { DigestSpan } from './digest-thread.ts';
import { dockerError } from '#caas/docker-api/docker-error.ts';
import { FileProbe } from './file-probe.ts';
import { parseReference, wholeReference } from './image-reference.ts';
import { PieceStream } from './piece-stream.ts';
import type { Piece } from './piece-stream.ts';
import { tarFault } from './plain-archive.ts';
import { headerBytes } from './tar-header.ts';
import type { WrittenHeader } from './tar-header.ts';
import { paddingOf, TarReader } from './tar-reader.ts';
import type { TarHeader, TarSink } from './tar-reader.ts';

const MANIFEST_BYTES_MAX = 4 * 1024 * 1024;
/** A config is some kilobytes; what may be one is kept until the manifest says so. */
const CONFIG_BYTES_MAX = 1024 * 1024;
const CONFIGS_BYTES_MAX = 32 * 1024 * 1024;
/** The client sends while the engine writes to its disk, and the other way round. */
const PARTS_AHEAD = 2;
/** Two empty blocks. */
const END_BYTES = 1024;
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
  /** To be told which of the archive's parts nobody reads any more: their memory is used again. */
  readonly onSent: (part: Buffer) => void;
  /** Settles when the archive was read to its end. */
  readonly images: Promise<readonly ArchivedImage[]>;
}

export interface RewriteOptions {
  /** The engine's name for the image of a number. */
  readonly nameOf: (index: number) => string;
  readonly imagesMax: number;
}

/**
 * The header that the engine gets: rebuilt from parsed fields. PAX records do not pass: Go's tar reader takes names from some that
 * ours does not know (GNU.sparse.name). Names must be as the engine will clean them, and nothing may lie below a link, or
 * `x/../manifest.json` would be the manifest that was not rewritten.
 */
function checkedHeader(header: TarHeader, links: Set<string>): WrittenHeader {
  const name = header.name.replace(/^\.\//, '').replace(/\/$/, '');
  const isRoot = header.type === 'directory' && (name === '.' || name === '');
  const fault = isRoot ? undefined : pathFault(name, links);
  if (fault !== undefined) throw new TypeError(`the path ${header.name.slice(0, 100)} ${fault}`);
  const { mtimeSeconds, type } = header;
  const base = { name: isRoot ? './' : name, mode: 0o644, mtimeSeconds, size: 0, linkname: '' };
  switch (type) {
    case 'file':
      return { ...base, type, size: header.size };
    case 'directory':
      return { ...base, type, mode: 0o755 };
    case 'symlink':
      // docker save writes those for layers that images share.
      links.add(name);
      return { ...base, type, linkname: header.linkname };
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

/** A step of what is found out about the files whose bytes one piece has, in their order. */
type Step =
  | { readonly kind: 'part'; readonly probe: FileProbe; readonly part: Buffer }
  | { readonly kind: 'end'; readonly probe: FileProbe; readonly name: string };

/** The archive on its way: what is read here goes to `parts`, as the engine gets it. */
class Rewriting implements TarSink {
  readonly contents = new ArchiveContents();
  readonly #links = new Set<string>();
  #entries = 0;
  #current: WrittenHeader | undefined;
  #probe: FileProbe | undefined;
  #manifest: Buffer[] | undefined;
  #manifestBytes = 0;
  #parts: Buffer[] = [];
  #spans: DigestSpan[] = [];
  #steps: Step[] = [];
  #proving = Promise.resolve();

  entry(header: TarHeader): void {
    this.#entries += 1;
    if (this.#entries > ENTRIES_MAX) throw new TypeError(`more than ${String(ENTRIES_MAX)} entries`);
    const checked = checkedHeader(header, this.#links);
    if (checked.type !== 'directory') this.contents.reserve(checked.name);
    this.#current = checked;
    if (LEFT_OUT.has(checked.name)) return;
    if (checked.name === 'manifest.json') {
      this.#manifest = [];
      return;
    }
    this.#parts.push(headerBytes(checked));
    if (checked.type === 'file') this.#probe = new FileProbe(checked.size, this.contents);
    if (checked.type === 'symlink') this.contents.put(checked.name, { kind: 'link', target: checked.linkname });
  }

  data(part: Buffer): void {
    if (this.#probe !== undefined) {
      this.#parts.push(part);
      this.#spans.push({ from: part.byteOffset, to: part.byteOffset + part.length, isLast: false });
      this.#steps.push({ kind: 'part', probe: this.#probe, part });
    } else if (this.#current?.name === 'manifest.json') {
      this.#manifestBytes += part.length;
      if (this.#manifestBytes > MANIFEST_BYTES_MAX) {
        throw new TypeError(`manifest.json is larger than ${String(MANIFEST_BYTES_MAX)} bytes`);
      }
      this.#manifest?.push(Buffer.from(part));
    }
  }

  end(): void {
    if (this.#probe !== undefined && this.#current !== undefined) {
      const { name, size } = this.#current;
      this.#parts.push(Buffer.alloc(paddingOf(size)));
      this.#spans.push({ from: 0, to: 0, isLast: true });
      this.#steps.push({ kind: 'end', probe: this.#probe, name });
    }
    this.#probe = undefined;
    this.#current = undefined;
  }

  get manifest(): string {
    if (this.#manifest === undefined) throw new TypeError('it has no manifest.json');
    return Buffer.concat(this.#manifest).toString('utf8');
  }

  /** What the engine gets of what was read since the last call. */
  takeParts(): readonly Buffer[] {
    const parts = this.#parts.filter(({ length }) => length > 0);
    this.#parts = [];
    return parts;
  }

  /** Finds out what the files are whose bytes lie in this piece. Until it settles, the piece must stay as it is. */
  async prove(piece: Piece, series: DigestSeries): Promise<void> {
    const before = this.#proving;
    const work = this.#prove(this.#steps, series.update(piece.buffer, this.#spans), before);
    this.#proving = work;
    this.#steps = [];
    this.#spans = [];
    await work;
  }

  async #prove(steps: readonly Step[], hashing: Promise<readonly string[]>, before: Promise<void>): Promise<void> {
    hashing.catch(() => undefined); // It is awaited below, unless something else fails before.
    await before;
    const files: (Omit<KnownFile, 'digests'> & { readonly name: string; readonly inflated: string | undefined })[] = [];
    // One after the other: each that is compressed takes a decompressor's memory.
    for (const step of steps) {
      const { probe } = step;
      if (step.kind === 'part') await probe.take(step.part);
      else files.push({ kind: 'file', name: step.name, inflated: await probe.inflatedDigest(), text: probe.text });
    }
    const digests = await hashing;
    for (const [index, { kind, name, inflated, text }] of files.entries()) {
      const own = digests[index] ?? '';
      this.contents.put(name, { kind, text, digests: inflated === undefined ? [own] : [own, inflated] });
    }
  }
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
  const pieces = source instanceof PieceStream ? source : new PieceStream(source);
  const images = Promise.withResolvers<readonly ArchivedImage[]>();
  images.promise.catch(() => undefined); // The consumer of the archive sees the same error first.
  /** By the last part that the engine gets of a piece. */
  const whenSent = new Map<Buffer, () => void>();
  async function* rewritten(): AsyncGenerator<Buffer> {
    try {
      using series = new DigestSeries();
      const rewriting = new Rewriting();
      const reader = new TarReader(rewriting);
      let before = Promise.resolve();
      for await (const piece of pieces as AsyncIterable<Piece>) {
        reader.push(piece);
        const parts = rewriting.takeParts();
        const proved = rewriting.prove(piece, series);
        proved.catch(() => undefined); // It is awaited with the next piece.
        const giveBack = (): void => {
          proved.then(() => pieces.giveBack(piece)).catch(() => undefined);
        };
        const last = parts.at(-1);
        if (last === undefined) giveBack();
        else whenSent.set(last, giveBack);
        for (const part of parts) yield part; // Not `yield*`: an array cannot be told that its reader is gone.
        await before;
        before = proved;
      }
      await before;
      reader.finish();
      const { text, images: known } = rewriteManifest(rewriting.manifest, rewriting.contents, options);
      yield manifestEntry(text);
      images.resolve(known);
    } catch (error) {
      const refusal = refusalOf(error);
      images.reject(refusal);
      throw refusal;
    } finally {
      images.reject(new Error('the archive was not read to its end'));
    }
  }
  return {
    archive: Readable.from(rewritten(), { highWaterMark: PARTS_AHEAD }),
    images: images.promise,
    onSent: (part) => {
      whenSent.get(part)?.();
      whenSent.delete(part);
    },
  };
}

function manifestEntry(text: string): Buffer {
  const bytes = Buffer.from(text);
  const header = { name: 'manifest.json', type: 'file', mode: 0o644, size: bytes.length, mtimeSeconds: 0, linkname: '' } as const;
  return Buffer.concat([headerBytes(header), bytes, Buffer.alloc(paddingOf(bytes.length) + END_BYTES)]);
}
