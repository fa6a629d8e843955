/**
 * The tar of `PUT /containers/{id}/archive`, unpacked, read entry by entry and written anew. What the engine unpacks is what was checked: sizes are real
 * (no sparse file that a kilobyte blows up to a terabyte), and there are no device nodes, which containers may not have.
 */
import { spawn } from 'node:child_process';
import { PassThrough, Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { extract, pack } from 'tar-stream';
import type { Header } from 'tar-stream';
import { EcluseError, reasonOf } from '#errors';
import { bufferOf, chunksOf } from '#caas/byte-stream.ts';
import { tarFault } from '#caas/images/plain-archive.ts';
import { dockerError } from './docker-error.ts';

/** A tree of source code has hundreds of thousands of files. */
const ENTRIES_MAX = 5_000_000;
/** As Linux: longer ones can be no files. tar-stream takes any length from PAX records. */
const NAME_CHARS_MAX = 4096;
/** An xz stream names the memory that its reader needs; the largest preset needs 65 MiB. */
const XZ_MEMORY = '--memlimit-decompress=128MiB';
const MAGIC_BYTES = 6;

type PlainHeader = Partial<Header> & Pick<Header, 'name'>;

/** PAX records that go on: names and sizes are written anew; attributes with bytes that are no text would not survive. */
function paxOf(header: Header): Record<string, string> | undefined {
  const kept = Object.entries(header.pax ?? {}).filter(
    ([key, value]) =>
      !['path', 'linkpath', 'size'].includes(key) && !key.startsWith('GNU.') && !/[^\x20-\x7e]/.test(`${key}${value}`),
  );
  return kept.length === 0 ? undefined : Object.fromEntries(kept);
}

function checkedHeader(header: Header): PlainHeader {
  const { name, mode, uid, gid, uname, gname, mtime, linkname } = header;
  const names: readonly (string | null)[] = [name, linkname]; // A file has no link name, whatever the type says.
  if (names.some((one) => one !== null && one.length > NAME_CHARS_MAX)) throw new TypeError('a name is too long');
  const pax = paxOf(header);
  const base = { name, mode, uid, gid, uname, gname, mtime, ...(pax === undefined ? {} : { pax }) };
  switch (header.type) {
    case 'file':
    case 'contiguous-file':
      return { ...base, type: 'file', size: header.size };
    case 'directory':
    case 'fifo':
      return { ...base, type: header.type, size: 0 };
    case 'link':
    case 'symlink':
      return { ...base, type: header.type, linkname, size: 0 };
    case 'block-device':
    case 'character-device':
      throw dockerError(403, `ecluse: ${name.slice(0, 200)} in the archive is a device, and containers have none of their own`);
    default:
      throw new TypeError(`${name.slice(0, 200)} is of a kind that is not supported`);
  }
}

/** An archive that cannot be read is refused in moby's manner. */
function damaged(error: unknown): Error {
  if (error instanceof EcluseError) return error;
  return dockerError(400, tarFault(error) ?? `Error processing tar file(exit status 1): ${reasonOf(error)}`);
}

/** The archive as the engine gets it. Faults of the client's archive are thrown as refusals. */
export async function* rewriteArchive(source: Readable): AsyncGenerator<Buffer> {
  const reader = extract();
  const writer = pack();
  const copying = (async () => {
    const feeding = pipeline(unpacked(source), reader);
    feeding.catch(() => undefined); // The loop below reports what goes wrong.
    let entries = 0;
    for await (const entry of reader) {
      entries += 1;
      if (entries > ENTRIES_MAX) throw new TypeError(`more than ${String(ENTRIES_MAX)} entries`);
      const body = Readable.from(entry, { objectMode: false });
      body.on('error', () => undefined);
      const header = checkedHeader(entry.header);
      if (header.type === 'file') await pipeline(body, writer.entry(header));
      else {
        body.resume();
        writer.entry(header);
      }
    }
    await feeding;
    writer.finalize();
  })();
  copying.catch((error: unknown) => {
    writer.destroy(damaged(error));
  });
  try {
    for await (const chunk of writer) {
      if (chunk instanceof Uint8Array) yield Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    }
    await copying;
  } catch (error) {
    throw damaged(error);
  } finally {
    // Not `source`: it is the client's connection, on which the refusal has to go out.
    reader.destroy();
    writer.destroy();
  }
}

/** What a compressed stream holds, as Docker takes it: gzip, bzip2, xz, zstd or none. */
async function* unpacked(source: Readable): AsyncGenerator<Buffer> {
  const chunks = chunksLeaving(source);
  const first: Buffer[] = [];
  let bytes = 0;
  while (bytes < MAGIC_BYTES) {
    const next = await chunks.next();
    if (next.done === true) break;
    first.push(next.value);
    bytes += next.value.length;
  }
  const head = Buffer.concat(first);
  const whole = Readable.from(prefixed(head, chunks), { objectMode: false });
  const plain = decompressorOf(head);
  if (plain === undefined) yield* chunksOf(whole);
  else yield* chunksOf(plain(whole));
}

/** The chunks of the client's stream, which stays open when nobody wants more of it. */
async function* chunksLeaving(source: Readable): AsyncGenerator<Buffer> {
  for await (const chunk of source.iterator({ destroyOnReturn: false })) yield bufferOf(chunk);
}

async function* prefixed(head: Buffer, rest: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  if (head.length > 0) yield head;
  yield* rest;
}

function decompressorOf(head: Buffer): ((source: Readable) => Readable) | undefined {
  const hex = head.toString('hex', 0, MAGIC_BYTES);
  if (hex.startsWith('1f8b08')) return (source) => joined(source, createGunzip());
  if (hex.startsWith('28b52ffd')) return (source) => joined(source, createZstdDecompress());
  if (hex.startsWith('425a68')) return (source) => throughProgram(source, 'bzip2', ['-dc']);
  if (hex.startsWith('fd377a585a00')) return (source) => throughProgram(source, 'xz', ['-dc', '-q', XZ_MEMORY]);
  return undefined;
}

function joined(source: Readable, target: NodeJS.ReadWriteStream & Readable): Readable {
  source.on('error', (error) => target.destroy(error));
  source.pipe(target);
  return target;
}

/** The user `nobody`, as every Linux has it. */
const NOBODY_ID = 65_534;

/** A decompressor that Node does not have. It reads what no one has checked: so it is nobody, and gets no environment. */
function throughProgram(source: Readable, program: string, args: readonly string[]): Readable {
  const child = spawn(program, args, {
    stdio: ['pipe', 'pipe', 'ignore'],
    env: { PATH: process.env['PATH'] },
    cwd: '/',
    uid: NOBODY_ID,
    gid: NOBODY_ID,
  });
  const output = new PassThrough();
  child.once('error', () =>
    output.destroy(dockerError(400, `ecluse: this node cannot read ${program} archives; send it as gzip`)),
  );
  child.once('close', (code) => {
    if (code === 0) output.end();
    else output.destroy(new TypeError(`${program} cannot read it`));
  });
  pipeline(source, child.stdin).catch(() => undefined); // A program that ends early says so by its code.
  child.stdout.pipe(output, { end: false });
  output.once('close', () => child.kill('SIGKILL'));
  return output;
}
