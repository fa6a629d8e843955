/**
 * Tar archives, read without copies and without waiting: headers as objects, contents as parts of what was pushed.
 *
 * As strict as Go's reader, and stricter where readers differ: checksums, numbers and PAX records must be whole. Formats: ustar, GNU (long names),
 * PAX (`path`, `linkpath`, `size`; other records are left out).
 */

const BLOCK_BYTES = 512;
/** Of PAX records and long names. */
const LONG_HEADER_BYTES_MAX = 4 * 1024 * 1024;
const EMPTY = Buffer.alloc(0);

export interface TarHeader {
  readonly name: string;
  readonly type: string;
  readonly size: number;
  readonly mtimeSeconds: number;
  readonly linkname: string;
}

export interface TarSink {
  readonly entry: (header: TarHeader) => void;
  /** Some of the entry's content; the memory is the pushed one's. */
  readonly data: (part: Buffer) => void;
  readonly end: () => void;
}

const TYPES: ReadonlyMap<string, string> = new Map([
  ['\0', 'file'],
  ['0', 'file'],
  ['1', 'link'],
  ['2', 'symlink'],
  ['3', 'character-device'],
  ['4', 'block-device'],
  ['5', 'directory'],
  ['6', 'fifo'],
  ['7', 'file'],
  ['x', 'pax'],
  ['g', 'pax-global'],
  ['K', 'long-link'],
  ['L', 'long-name'],
]);
const LONG = new Set(['pax', 'pax-global', 'long-link', 'long-name']);

function invalid(what: string): TypeError {
  return new TypeError(`Invalid tar header: ${what}`);
}

function textAt(block: Buffer, from: number, bytes: number): string {
  const field = block.subarray(from, from + bytes);
  const end = field.indexOf(0);
  return field.toString('utf8', 0, end === -1 ? bytes : end);
}

/** Octal digits, or binary where the first bit is set (GNU). */
function numberAt(block: Buffer, from: number, bytes: number): number {
  if (((block[from] ?? 0) & 0x80) !== 0) {
    const value = block.subarray(from + 1, from + bytes).reduce((sum, byte) => sum * 256 + byte, 0);
    if (block[from] !== 0x80 || !Number.isSafeInteger(value)) throw invalid('a number is out of range');
    return value;
  }
  const digits = /^[ \0]*([0-7]*)[ \0]*/.exec(block.toString('latin1', from, from + bytes))?.[1] ?? '';
  return digits === '' ? 0 : Number.parseInt(digits, 8);
}

function checksumOf(block: Buffer): number {
  let sum = 0;
  for (let at = 0; at < BLOCK_BYTES; at += 1) sum += at >= 148 && at < 156 ? 32 : (block[at] ?? 0);
  return sum;
}

/** One header block; undefined for one of zeros. */
function headerOf(block: Buffer): TarHeader | undefined {
  const sum = checksumOf(block);
  if (sum === 8 * 32) return undefined;
  if (sum !== numberAt(block, 148, 8)) throw invalid('its checksum does not match');
  const magic = block.toString('latin1', 257, 265);
  if (!magic.startsWith('ustar\0') && magic !== 'ustar  \0') throw invalid('unknown format');
  const prefix = magic.startsWith('ustar\0') ? textAt(block, 345, 155) : '';
  const ownName = textAt(block, 0, 100);
  const name = prefix === '' ? ownName : `${prefix}/${ownName}`;
  const flag = String.fromCharCode(block[156] ?? 0);
  const type = TYPES.get(flag) ?? 'unknown';
  return {
    name,
    // Old archives tell directories by their names.
    type: type === 'file' && name.endsWith('/') ? 'directory' : type,
    size: numberAt(block, 124, 12),
    mtimeSeconds: numberAt(block, 136, 12),
    linkname: textAt(block, 157, 100),
  };
}

/** `LENGTH KEY=VALUE\n`, again and again. */
function paxOf(bytes: Buffer): Map<string, string> {
  const records = new Map<string, string>();
  for (let at = 0; at < bytes.length;) {
    const space = bytes.indexOf(0x20, at);
    const length = space === -1 ? '' : bytes.toString('latin1', at, space);
    const end = at + Number(length);
    if (!/^\d{1,7}$/.test(length) || end > bytes.length || bytes[end - 1] !== 0x0a) throw invalid('damaged PAX records');
    const record = bytes.toString('utf8', space + 1, end - 1);
    const equals = record.indexOf('=');
    if (equals < 1) throw invalid('damaged PAX records');
    records.set(record.slice(0, equals), record.slice(equals + 1));
    at = end;
  }
  return records;
}

function sizeOf(text: string): number {
  const size = Number(text);
  if (!/^\d{1,16}$/.test(text) || !Number.isSafeInteger(size)) throw invalid('a number is out of range');
  return size;
}

export class TarReader {
  readonly #sink: TarSink;
  /** The beginning of a block or of a long header that is not whole yet. */
  #held = EMPTY;
  /** Of the content of an entry. */
  #left = 0;
  #padding = 0;
  #long: TarHeader | undefined;
  #global = new Map<string, string>();
  #next: { pax?: Map<string, string>; name?: string; linkname?: string } = {};

  constructor(sink: TarSink) {
    this.#sink = sink;
  }

  push(piece: Buffer): void {
    for (let at = 0; at < piece.length;) at += this.#take(piece.subarray(at));
  }

  /** To be called at the end of the archive. */
  finish(): void {
    const isWhole = this.#left + this.#padding + this.#held.length === 0 && this.#long === undefined;
    if (!isWhole || Object.keys(this.#next).length > 0) throw new TypeError('Unexpected end of data');
  }

  /** Returns how many bytes it used. */
  #take(bytes: Buffer): number {
    if (this.#left > 0) {
      const part = bytes.length > this.#left ? bytes.subarray(0, this.#left) : bytes;
      this.#left -= part.length;
      this.#sink.data(part);
      if (this.#left === 0) this.#sink.end();
      return part.length;
    }
    if (this.#padding > 0) {
      const skipped = Math.min(this.#padding, bytes.length);
      this.#padding -= skipped;
      return skipped;
    }
    const wanted = this.#long?.size ?? BLOCK_BYTES;
    const used = Math.min(wanted - this.#held.length, bytes.length);
    // A copy: what was pushed is used again.
    this.#held = Buffer.concat([this.#held, bytes.subarray(0, used)]);
    if (this.#held.length === wanted) {
      const whole = this.#held;
      this.#held = EMPTY;
      if (this.#long === undefined) this.#onHeader(whole);
      else this.#onLong(this.#long, whole);
    }
    return used;
  }

  #onHeader(block: Buffer): void {
    const header = headerOf(block);
    if (header === undefined) return;
    if (LONG.has(header.type)) {
      if (header.size > LONG_HEADER_BYTES_MAX) throw new TypeError('Header exceeds max size');
      if (header.size === 0) throw invalid('an empty one where a name or records should be');
      this.#long = header;
      return;
    }
    const { pax, name, linkname } = this.#next;
    this.#next = {};
    const record = (key: string): string | undefined => pax?.get(key) ?? this.#global.get(key);
    const size = record('size');
    const entry: TarHeader = {
      ...header,
      name: record('path') ?? name ?? header.name,
      linkname: record('linkpath') ?? linkname ?? header.linkname,
      size: size === undefined ? header.size : sizeOf(size),
    };
    this.#sink.entry(entry);
    // Readers agree that only files have contents behind their header, whatever it says.
    this.#left = entry.type === 'file' ? entry.size : 0;
    this.#padding = paddingOf(this.#left);
    if (this.#left === 0) this.#sink.end();
  }

  #onLong(header: TarHeader, bytes: Buffer): void {
    this.#long = undefined;
    this.#padding = paddingOf(header.size);
    if (header.type === 'long-name') this.#next.name = textAt(bytes, 0, bytes.length);
    else if (header.type === 'long-link') this.#next.linkname = textAt(bytes, 0, bytes.length);
    else if (header.type === 'pax') this.#next.pax = paxOf(bytes);
    else this.#global = paxOf(bytes);
  }
}

/** From the end of a content to the next block. */
export function paddingOf(bytes: number): number {
  return (BLOCK_BYTES - (bytes % BLOCK_BYTES)) % BLOCK_BYTES;
}
