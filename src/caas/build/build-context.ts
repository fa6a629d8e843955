/**
 * A build's context on its way to an engine, as a stream: entries are checked and their headers built anew; the Dockerfile is read on the way
 * and written at the end, rewritten, under a name of ours. So nothing is kept but that one file and the .dockerignore.
 *
 * The engine takes the Dockerfile and the .dockerignore out of the context where the .dockerignore says so (moby
 * `builder/remotecontext/detect.go`). Ours must not be there for COPY, so the .dockerignore names it; the tenant's own two stay or go as its
 * .dockerignore says. Extended attributes do not pass.
 */
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { posix } from 'node:path';
import { extract, pack } from 'tar-stream';
import type { Header, Pack } from 'tar-stream';
import * as z from 'zod';
import { EcluseError } from '#errors';
import { bufferOf, chunksOf, readWhole } from '#caas/byte-stream.ts';
import { dockerError } from '#caas/docker-api/docker-error.ts';
import { ignores } from './dockerignore.ts';

export interface ContextLimits {
  /** Sum of the files. */
  readonly bytesMax: number;
  readonly entriesMax: number;
  /** Of the Dockerfile. */
  readonly textBytesMax: number;
}

export const CONTEXT_LIMITS: ContextLimits = {
  bytesMax: 2 * 1024 * 1024 * 1024,
  entriesMax: 200_000,
  textBytesMax: 1024 * 1024,
};

/** The engine's name for the rewritten Dockerfile. */
export const ENGINE_DOCKERFILE = '.ecluse-dockerfile';
const IGNORE = '.dockerignore';
/** Every pattern of it is tried on every character of the Dockerfile's path: a larger one could hold the node up. */
const IGNORE_BYTES_MAX = 64 * 1024;
/** As Linux has it; tar-stream takes names of megabytes. */
const PATH_CHARS_MAX = 4096;
const DEFAULT_DOCKERFILE = 'Dockerfile';

export interface ContextOptions {
  /** Path of the Dockerfile, as the client gave it. */
  readonly dockerfile: string;
  readonly limits: ContextLimits;
  /** The engine's Dockerfile; `name` is the path that the Dockerfile was found at. Called when all of the context is read. */
  readonly rewrite: (dockerfile: Buffer, name: string) => Promise<string>;
}

interface Held {
  readonly header: PlainHeader;
  readonly bytes: Buffer;
}

type PlainHeader = Partial<Header> & Pick<Header, 'name'>;

/** A path as the engine will clean it; refused where it climbs. */
function cleanPath(path: string): string {
  if (path.length > PATH_CHARS_MAX)
    throw dockerError(400, `ecluse: the path ${path.slice(0, 200)}… in the build context is too long`);
  const clean = posix.normalize(`./${path}`).replace(/\/$/, '');
  if (!path.split('/').includes('..') && !path.includes('\0')) return clean.replace(/^\/+/, '');
  throw dockerError(400, `ecluse: the path ${path.slice(0, 200)} in the build context is not plain`);
}

/** Docker's words for an archive that cannot be read. */
function unreadable(reason: string): EcluseError {
  return dockerError(500, reason);
}

/** Where a link leads. tar-stream has null for none. */
function targetOf(header: Header): string {
  const parsed = z.string().min(1).safeParse(header.linkname);
  if (parsed.success) return parsed.data;
  throw unreadable('archive/tar: invalid tar header');
}

class ContextCopy {
  readonly #writer: Pack;
  readonly #options: ContextOptions;
  readonly #candidates: ReadonlySet<string>;
  readonly #held = new Map<string, Held>();
  readonly #links = new Set<string>();
  #bytes = 0;
  #entries = 0;

  constructor(writer: Pack, options: ContextOptions) {
    this.#writer = writer;
    this.#options = options;
    const { dockerfile } = options;
    // Docker also takes `dockerfile` where none is named.
    this.#candidates = new Set(dockerfile === DEFAULT_DOCKERFILE ? [dockerfile, dockerfile.toLowerCase()] : [dockerfile]);
  }

  async take(header: Header, body: Readable): Promise<void> {
    const name = cleanPath(header.name);
    this.#count(header);
    if (name === '.' || name === '') {
      if (header.type !== 'directory') throw unreadable('the root of the context is not a directory');
      body.resume();
      return;
    }
    if (name === ENGINE_DOCKERFILE || name.startsWith(`${ENGINE_DOCKERFILE}/`)) {
      throw dockerError(400, `ecluse: the name ${ENGINE_DOCKERFILE} in a build context is taken; rename the file or ignore it`);
    }
    const plain = this.#headerOf(header, name);
    const isHeld = this.#candidates.has(name) || name === IGNORE;
    if (!isHeld) {
      await this.#pass(plain, body);
      return;
    }
    this.#held.delete(name);
    if (plain.type !== 'file') {
      if (plain.type === 'directory') this.#writer.entry(plain);
      else this.#links.add(name);
      body.resume();
      return;
    }
    const bytesMax = name === IGNORE ? IGNORE_BYTES_MAX : this.#options.limits.textBytesMax;
    const bytes = await readWhole(body, bytesMax);
    if (bytes === undefined) throw dockerError(413, `ecluse: ${name.slice(0, 200)} has more than ${String(bytesMax)} bytes`);
    this.#links.delete(name);
    this.#held.set(name, { header: plain, bytes });
  }

  #count(header: Header): void {
    const { limits } = this.#options;
    this.#entries += 1;
    if (!Number.isSafeInteger(header.size) || header.size < 0) throw unreadable('archive/tar: invalid tar header');
    this.#bytes += header.type === 'file' || header.type === 'contiguous-file' ? header.size : 0;
    if (this.#entries > limits.entriesMax) {
      throw dockerError(413, `ecluse: the build context has more than ${String(limits.entriesMax)} entries`);
    }
    if (this.#bytes > limits.bytesMax) {
      throw dockerError(
        413,
        `ecluse: the build context has more than ${String(limits.bytesMax)} bytes; leave out what the build does not need with a .dockerignore`,
      );
    }
  }

  #headerOf(header: Header, name: string): PlainHeader {
    if (Object.keys(header.pax ?? {}).some((key) => key.startsWith('GNU.sparse'))) throw unreadable('sparse files are not taken');
    const base = { name, mode: header.mode & 0o7777, uid: 0, gid: 0, mtime: header.mtime };
    switch (header.type) {
      case 'file':
      case 'contiguous-file':
        return { ...base, type: 'file', size: header.size };
      case 'directory':
        return { ...base, type: 'directory', size: 0 };
      case 'symlink':
        return { ...base, type: 'symlink', linkname: targetOf(header), size: 0 };
      case 'link':
        return { ...base, type: 'link', linkname: cleanPath(targetOf(header)), size: 0 };
      case 'block-device':
      case 'character-device':
      case 'fifo':
      default:
        throw dockerError(400, `ecluse: ${name.slice(0, 200)} in the build context is a device, a pipe or a socket; ignore it`);
    }
  }

  async #pass(plain: PlainHeader, body: Readable): Promise<void> {
    const target = plain.type === 'link' ? this.#held.get(plain.linkname ?? '') : undefined;
    if (target !== undefined) {
      // The file that it links to is not written yet.
      body.resume();
      this.#writeText({ ...target, header: { ...target.header, name: plain.name } });
    } else if (plain.type === 'file') {
      await pipeline(body, this.#writer.entry(plain));
    } else {
      body.resume();
      this.#writer.entry(plain);
    }
  }

  #writeText({ header, bytes }: Held): void {
    this.#writer.entry({ ...header, size: bytes.length }, bytes);
  }

  /** The Dockerfile as it was found. */
  get #dockerfile(): readonly [string, Held] {
    const { dockerfile } = this.#options;
    for (const name of this.#candidates) {
      const held = this.#held.get(name);
      if (held !== undefined) return [name, held];
      if (this.#links.has(name)) {
        throw dockerError(
          400,
          `ecluse: the Dockerfile ${name.slice(0, 200)} is a link; name the file that it leads to with --file`,
        );
      }
    }
    throw dockerError(500, `Cannot locate specified Dockerfile: ${dockerfile.slice(0, 500)}`);
  }

  async finish(): Promise<void> {
    const [name, found] = this.#dockerfile;
    const text = await this.#options.rewrite(found.bytes, name);
    const ignore = this.#held.get(IGNORE);
    const ignoreText = ignore?.bytes.toString('utf8') ?? '';
    for (const [path, held] of this.#held) {
      if (path !== IGNORE && !(path === name && ignores(ignoreText, path))) this.#writeText(held);
    }
    // Where the tenant's own stays in the context it gets one line more; else it is ours alone, and goes with the Dockerfile.
    const staysVisible = ignore !== undefined && !ignores(ignoreText, IGNORE);
    const lines = staysVisible
      ? `${ignoreText.replace(/\n?$/, '\n')}${ENGINE_DOCKERFILE}\n`
      : `${IGNORE}\n${ENGINE_DOCKERFILE}\n`;
    if (this.#links.has(IGNORE)) throw dockerError(400, 'ecluse: .dockerignore is a link; make it a file');
    this.#writeText({ header: { ...(ignore?.header ?? { name: IGNORE, mode: 0o644 }) }, bytes: Buffer.from(lines) });
    this.#writeText({ header: { name: ENGINE_DOCKERFILE, mode: 0o600 }, bytes: Buffer.from(text) });
    this.#writer.finalize();
  }
}

/** The chunks of the request. It is not destroyed where they are not all wanted: it is still to be answered. */
async function* received(source: Readable): AsyncGenerator<Buffer> {
  for await (const chunk of source.iterator({ destroyOnReturn: false })) yield bufferOf(chunk);
}

/** The bytes of a context without its compression. */
async function* plainBytes(source: Readable): AsyncGenerator<Buffer> {
  const chunks = received(source);
  let head = Buffer.alloc(0);
  while (head.length < 6) {
    const next = await chunks.next();
    if (next.done === true) break;
    head = Buffer.concat([head, next.value]);
  }
  const isXz = head.subarray(0, 6).equals(Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]));
  if (isXz || head.subarray(0, 3).toString('latin1') === 'BZh') {
    throw dockerError(
      400,
      'ecluse: a build context is taken as a tar archive, plain or compressed with gzip; this one is in another format',
    );
  }
  async function* whole(): AsyncGenerator<Buffer> {
    yield head;
    yield* chunks;
  }
  if (head[0] !== 0x1f || head[1] !== 0x8b) {
    yield* whole();
    return;
  }
  const unzip = createGunzip();
  const feeding = pipeline(whole, unzip);
  feeding.catch(() => undefined); // Seen below: a fault of the source destroys `unzip` with it.
  yield* chunksOf(unzip);
  await feeding;
}

/** What a fault in the archive is called; faults of ours keep their words. */
function faultOf(error: unknown): unknown {
  if (error instanceof EcluseError) return error;
  const text = error instanceof Error ? error.message : '';
  return unreadable(/unexpected end/i.test(text) ? 'unexpected EOF' : 'archive/tar: invalid tar header');
}

/** The context as the engine gets it. A fault makes the returned stream fail with Docker's kind of error. */
export function rewriteContext(source: Readable, options: ContextOptions): Readable {
  const reader = extract();
  const writer = pack();
  writer.on('error', () => undefined); // It may fail before anybody reads: see bytesOf.
  const copy = new ContextCopy(writer, { ...options, dockerfile: cleanPath(options.dockerfile) });
  const copying = (async () => {
    try {
      const feeding = pipeline(plainBytes(source), reader);
      feeding.catch(() => undefined); // The loop below reports what goes wrong.
      for await (const entry of reader) {
        const body = Readable.from(entry, { objectMode: false });
        // An entry that is left half-read fails when the reader is torn down; by then its fault is known.
        body.on('error', () => undefined);
        await copy.take(entry.header, body);
      }
      await feeding;
      await copy.finish();
    } catch (error) {
      const fault = faultOf(error);
      writer.destroy(fault instanceof Error ? fault : undefined);
      throw fault;
    }
  })();
  copying.catch(() => undefined); // The reader of the context sees the same error.
  return Readable.from(bytesOf(writer, copying), { objectMode: false });
}

/** What the engine reads. A fault has the reason that `copying` has: the writer may have been torn down by a part of it. */
async function* bytesOf(writer: AsyncIterable<unknown>, copying: Promise<unknown>): AsyncGenerator {
  try {
    yield* writer;
  } catch (error) {
    await copying;
    throw error;
  }
  await copying;
}
