/** Tables over the 256 octets: what each may stand in. Source: RFC 9110 §5.5, §5.6.2; RFC 3986 §3. */

/** For octets of a token: the octet in lower case, `_` as `-`. For all others: 0. */
export const FOLDED: Uint8Array = foldedTokens();
/** 1 for what a field value may hold: visible characters, spaces, tabs and obs-text; no control octet. */
export const IN_VALUE: Uint8Array = ofOctets((octet) => octet === 0x09 || (octet >= 0x20 && octet !== 0x7f));
/**
 * 1 for what a request target may hold: visible ASCII but `#`, since a fragment never goes on the wire. More than RFC 3986 has, because
 * browsers send `|`, `{` and the like as they are; nothing of it changes where a target ends.
 */
export const IN_TARGET: Uint8Array = ofOctets((octet) => octet > 0x20 && octet < 0x7f && octet !== 0x23);
/** 1 for letters, digits, dot, hyphen and underscore: names and IPv4 addresses, as `normaliseRequestHost` takes them. */
export const IN_HOST: Uint8Array = ofOctets((octet) => /[\w.-]/.test(String.fromCodePoint(octet)));
/** The value of a hexadecimal digit, -1 for all others. */
export const HEX: Int8Array = hexDigits();

function ofOctets(has: (octet: number) => boolean): Uint8Array {
  return Uint8Array.from({ length: 256 }, (_, octet) => (has(octet) ? 1 : 0));
}

function foldedTokens(): Uint8Array {
  const table = new Uint8Array(256);
  for (let octet = 0x21; octet < 0x7f; octet += 1) {
    const character = String.fromCodePoint(octet);
    if (/[\w!#$%&'*+.^`|~-]/.test(character))
      table[octet] = character === '_' ? 0x2d : (character.toLowerCase().codePointAt(0) ?? 0);
  }
  return table;
}

function hexDigits(): Int8Array {
  const table = new Int8Array(256).fill(-1);
  for (const digit of '0123456789abcdefABCDEF') table[digit.codePointAt(0) ?? 0] = Number.parseInt(digit, 16);
  return table;
}

/** A name of ASCII as `FOLDED` has its octets. */
export function foldedName(name: string): Uint8Array {
  return Uint8Array.from(name, (character) => FOLDED[character.codePointAt(0) ?? 0] ?? 0);
}
