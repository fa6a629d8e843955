/** Headers of tar archives that we write: ustar, with PAX records where a name or a size does not fit. */
import { paddingOf } from './tar-reader.ts';

const BLOCK_BYTES = 512;
/** Eleven octal digits. */
const SIZE_MAX = 8 ** 11 - 1;
const NAME_BYTES_MAX = 100;

export interface WrittenHeader {
  readonly name: string;
  readonly type: 'file' | 'directory' | 'symlink';
  readonly size: number;
  readonly mode: number;
  readonly mtimeSeconds: number;
  readonly linkname: string;
}

const FLAGS = { file: '0', directory: '5', symlink: '2' } as const;

interface Fields extends Omit<WrittenHeader, 'type'> {
  readonly flag: string;
}

function blockOf(fields: Fields): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES);
  const octal = (value: number, from: number, digits: number): void => {
    block.write(value.toString(8).padStart(digits, '0'), from, 'latin1');
  };
  block.write(fields.name, 0, NAME_BYTES_MAX, 'utf8');
  octal(fields.mode, 100, 7);
  octal(0, 108, 7);
  octal(0, 116, 7);
  octal(Math.min(fields.size, SIZE_MAX), 124, 11);
  octal(Math.min(fields.mtimeSeconds, SIZE_MAX), 136, 11);
  block.write(fields.flag, 156, 'latin1');
  block.write(fields.linkname, 157, NAME_BYTES_MAX, 'utf8');
  block.write('ustar\u000000', 257, 'latin1');
  block.fill(' ', 148, 156);
  octal(
    block.reduce((sum, byte) => sum + byte, 0),
    148,
    6,
  );
  block[154] = 0;
  return block;
}

/** One record; its length counts itself. */
function paxRecord(key: string, value: string): string {
  const rest = Buffer.byteLength(` ${key}=${value}\n`);
  let length = rest + String(rest).length;
  if (String(length).length > String(rest).length) length = rest + String(length).length;
  return `${String(length)} ${key}=${value}\n`;
}

function fits(name: string): boolean {
  return name.length <= NAME_BYTES_MAX && /^[\x20-\x7e]*$/.test(name);
}

/** The header's bytes, PAX records before it included. */
export function headerBytes(header: WrittenHeader): Buffer {
  const { name, linkname, size, type } = header;
  const records = [
    fits(name) ? '' : paxRecord('path', name),
    fits(linkname) ? '' : paxRecord('linkpath', linkname),
    size > SIZE_MAX ? paxRecord('size', String(size)) : '',
  ].join('');
  const own = blockOf({ ...header, flag: FLAGS[type] });
  if (records === '') return own;
  const bytes = Buffer.from(records);
  const before = blockOf({ ...header, name: 'PaxHeader', linkname: '', size: bytes.length, flag: 'x' });
  return Buffer.concat([before, bytes, Buffer.alloc(paddingOf(bytes.length)), own]);
}
