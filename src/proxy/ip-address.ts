/**
 * IP addresses as 16 bytes, so that one address has one form whatever it was written like. An IPv4 address is its IPv4-mapped IPv6 address
 * (RFC 4291 §2.5.5.2), and is written as IPv4: a dual-stack socket tells `::ffff:192.0.2.1` of a client that is `192.0.2.1`. Pure.
 */
import { isIPv4, isIPv6 } from 'node:net';

/** Length of an address here. */
export const ADDRESS_BYTES = 16;
/** Where the four bytes of an IPv4 address begin. */
export const IPV4_OFFSET = 12;

/**
 * Writes the address that `text` is into `out`, 16 bytes from `offset`. Returns false, and writes nothing, where it is none. A zone
 * (`fe80::1%eth0`) is left out: it means something on one machine only.
 */
export function readAddress(text: string, out: Uint8Array, offset = 0): boolean {
  if (isIPv4(text)) {
    out.fill(0, offset, offset + 10).fill(0xff, offset + 10, offset + IPV4_OFFSET);
    writeQuad(text, out, offset + IPV4_OFFSET);
    return true;
  }
  if (!isIPv6(text)) return false;
  const zone = text.indexOf('%');
  const [front = '', back] = (zone === -1 ? text : text.slice(0, zone)).split('::');
  out.fill(0, offset, offset + ADDRESS_BYTES);
  writeGroups(front, out, offset);
  if (back !== undefined) writeGroups(back, out, offset + ADDRESS_BYTES - groupBytes(back));
  return true;
}

/** Whether the 16 bytes from `offset` are an IPv4 address. */
export function isMapped(bytes: Uint8Array, offset = 0): boolean {
  for (let index = 0; index < 10; index += 1) if (bytes[offset + index] !== 0) return false;
  return bytes[offset + 10] === 0xff && bytes[offset + 11] === 0xff;
}

/** The 16 bytes from `offset` as RFC 5952 writes them; an IPv4 address with dots. */
export function addressText(bytes: Uint8Array, offset = 0): string {
  if (isMapped(bytes, offset)) return quadText(bytes, offset + IPV4_OFFSET);
  const groups = Array.from(
    { length: 8 },
    (_, group) => ((bytes[offset + 2 * group] ?? 0) << 8) | (bytes[offset + 2 * group + 1] ?? 0),
  );
  const texts = groups.map((group) => group.toString(16));
  const [start, length] = longestZeros(groups);
  if (length < 2) return texts.join(':');
  return `${texts.slice(0, start).join(':')}::${texts.slice(start + length).join(':')}`;
}

/** The IPv4 address in the four bytes from `offset`. */
export function quadText(bytes: Uint8Array, offset: number): string {
  const [one = 0, two = 0, three = 0, four = 0] = bytes.subarray(offset, offset + 4);
  return `${String(one)}.${String(two)}.${String(three)}.${String(four)}`;
}

const scratch = new Uint8Array(ADDRESS_BYTES);

/** The one spelling of an address, or undefined where `text` is none. */
export function canonicalAddress(text: string): string | undefined {
  return readAddress(text, scratch) ? addressText(scratch) : undefined;
}

function writeQuad(text: string, out: Uint8Array, offset: number): void {
  let place = offset;
  let value = 0;
  for (let index = 0; index < text.length; index += 1) {
    const digit = text.charCodeAt(index) - 48;
    if (digit >= 0) value = value * 10 + digit;
    else {
      out[place] = value;
      place += 1;
      value = 0;
    }
  }
  out[place] = value;
}

/** Groups between colons; the last may be an IPv4 address. */
function writeGroups(text: string, out: Uint8Array, offset: number): void {
  if (text === '') return;
  let place = offset;
  for (const group of text.split(':')) {
    if (group.includes('.')) writeQuad(group, out, place);
    else {
      const value = Number.parseInt(group, 16);
      out[place] = value >> 8;
      out[place + 1] = value & 0xff;
    }
    place += 2;
  }
}

function groupBytes(text: string): number {
  if (text === '') return 0;
  return 2 * (text.split(':').length + (text.includes('.') ? 1 : 0));
}

/** The first of the longest runs of zeros: where it starts, and how long it is. */
function longestZeros(groups: readonly number[]): readonly [start: number, length: number] {
  let [start, length, run] = [0, 0, 0];
  for (const [index, group] of groups.entries()) {
    run = group === 0 ? run + 1 : 0;
    if (run > length) [start, length] = [index + 1 - run, run];
  }
  return [start, length];
}
