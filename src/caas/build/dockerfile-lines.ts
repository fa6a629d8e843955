/**
 * A Dockerfile's text as instructions. Pure.
 *
 * It reads as moby's classic builder does (buildkit `frontend/dockerfile/parser`, of 20.10): parser directives, comments, continuation
 * lines. Where that one goes byte by byte or folds letters of other scripts, this one refuses: what the engine gets is written anew from what
 * was understood here, so the two may never differ.
 */
import { dockerError } from '#caas/docker-api/docker-error.ts';

export type EscapeToken = '\\' | '`';

export interface Instruction {
  /** Where it begins, from 1. */
  readonly line: number;
  /** In small letters. */
  readonly keyword: string;
  /** `--name=value` words before the arguments, without quotes. */
  readonly flags: readonly string[];
  /** What follows the flags. */
  readonly args: string;
  /** The whole instruction on one line, as Docker shows it. */
  readonly text: string;
}

export interface Dockerfile {
  readonly escape: EscapeToken;
  readonly instructions: readonly Instruction[];
}

/** Go's bufio.Scanner takes no longer line, so the engine would not either. */
export const LINE_BYTES_MAX = 64 * 1024 - 1;
/** Each makes an image; overlay file systems end at 127 layers. */
const INSTRUCTIONS_MAX = 2000;

const KEYWORDS = new Set(
  'add arg cmd copy entrypoint env expose from healthcheck label maintainer onbuild run shell stopsignal user volume workdir'.split(
    ' ',
  ),
);
/** What Go's unicode.IsSpace takes for a space. JavaScript's `\s` differs in two. */
export const SPACES = String.raw`\t\n\v\f\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000`;
const LEADING = new RegExp(`^[${SPACES}]+`, 'u');
const SPACE = new RegExp(`[${SPACES}]`, 'u');
const DIRECTIVE = /^#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(\S.*)$/;
/** Directives of moby and BuildKit; any other comment ends the place for them. */
const DIRECTIVES = new Set(['escape', 'syntax', 'check']);
const CONTINUATIONS: Readonly<Record<EscapeToken, RegExp>> = {
  '\\': /([^\\])\\[ \t]*$|^\\[ \t]*$/u,
  '`': /([^`])`[ \t]*$|^`[ \t]*$/u,
};

/** What is wrong with a line, in the words of moby's `dockerfile parse error`. */
export function lineError(line: number, reason: string): Error {
  return dockerError(400, `dockerfile parse error line ${String(line)}: ${reason}`);
}

export function trimSpaces(text: string): string {
  // The end by hand: an expression for it takes quadratic time on a long run of spaces, and a line has up to a mebibyte.
  let end = text.length;
  while (end > 0 && SPACE.test(text.charAt(end - 1))) end -= 1;
  return text.slice(0, end).replace(LEADING, '');
}

function textOf(bytes: Buffer, line: number): string {
  // A comment may be in any encoding: it goes no further.
  if (/^[\t\v\f\r ]*#/.test(bytes.toString('latin1'))) return bytes.toString('utf8');
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw lineError(line, 'ecluse: it is not UTF-8');
  }
}

function linesOf(bytes: Buffer, name: string): readonly string[] {
  const lines: string[] = [];
  for (let at = 0; at < bytes.length;) {
    const newline = bytes.indexOf(0x0a, at);
    const end = newline === -1 ? bytes.length : newline;
    const line = bytes.subarray(at, end > at && bytes[end - 1] === 0x0d ? end - 1 : end);
    if (line.length > LINE_BYTES_MAX) {
      throw dockerError(
        400,
        `failed to parse ${name}: dockerfile line greater than max allowed size of ${String(LINE_BYTES_MAX)}`,
      );
    }
    const text = textOf(line, lines.length + 1);
    lines.push(lines.length === 0 ? text.replace(/^\uFEFF/, '') : text);
    at = end + 1;
  }
  return lines;
}

function escapeOf(value: string, name: string): EscapeToken {
  if (value === '\\' || value === '`') return value;
  throw dockerError(400, `failed to parse ${name}: invalid escape token '${value.slice(0, 20)}' does not match \` or \\`);
}

/** The directives at the top, and the index of the first line behind them. */
function readDirectives(lines: readonly string[], name: string): { readonly escape: EscapeToken; readonly next: number } {
  const seen = new Set<string>();
  let escape: EscapeToken = '\\';
  for (const [index, line] of lines.entries()) {
    const match = DIRECTIVE.exec(line.replace(LEADING, ''));
    const key = match?.[1]?.toLowerCase() ?? '';
    if (!DIRECTIVES.has(key)) return { escape, next: index };
    if (seen.has(key)) throw dockerError(400, `failed to parse ${name}: only one ${key} parser directive can be used`);
    seen.add(key);
    if (key === 'escape') escape = escapeOf((match?.[2] ?? '').trimEnd(), name);
  }
  return { escape, next: lines.length };
}

/** The `--flag` words at the start of an instruction, and what follows them. Quotes and backslashes are as moby's extractBuilderFlags takes them. */
function splitFlags(text: string, line: number): { readonly flags: readonly string[]; readonly args: string } {
  const flags: string[] = [];
  let at = 0;
  for (;;) {
    while (at < text.length && /[\t\n\v\f\r ]/.test(text.charAt(at))) at += 1;
    if (!text.startsWith('--', at)) return { flags, args: trimSpaces(text.slice(at)) };
    const { word, end } = readFlag(text, at, line);
    at = end;
    if (word === '--') throw lineError(line, 'ecluse: -- is not taken as the end of the flags');
    flags.push(word);
  }
}

function readFlag(text: string, start: number, line: number): { readonly word: string; readonly end: number } {
  let word = '';
  let quote = '';
  let at = start;
  for (; at < text.length; at += 1) {
    let char = text.charAt(at);
    if (char > '~') throw lineError(line, 'ecluse: a flag has a character that is not ASCII');
    if (quote === '' && /[\t\n\v\f\r ]/.test(char)) break;
    if (char === quote) {
      quote = '';
    } else if (quote === '' && (char === '"' || char === "'")) {
      quote = char;
    } else {
      if (char === '\\') {
        at += 1;
        if (at === text.length) break;
        char = text.charAt(at);
        if (char > '~') throw lineError(line, 'ecluse: a flag has a character that is not ASCII');
      }
      word += char;
    }
  }
  return { word, end: at };
}

/** One instruction on one line. */
export function parseInstruction(line: string, number: number): Instruction {
  const text = trimSpaces(line);
  const [, word = '', rest = ''] = /^([^\t\v\f\r ]*)[\t\v\f\r ]*(.*)$/su.exec(text) ?? [];
  // Not toLowerCase() alone: Go folds the Kelvin sign and the dotted I into ASCII letters.
  const keyword = /^[A-Za-z]+$/.test(word) ? word.toLowerCase() : '';
  if (!KEYWORDS.has(keyword)) throw lineError(number, `unknown instruction: ${word.slice(0, 100).toUpperCase()}`);
  return { line: number, keyword, text, ...splitFlags(rest, number) };
}

/** Parses a Dockerfile; what it cannot is refused in moby's words, with the line. `name` is its path in the context, for messages. */
export function parseDockerfile(bytes: Buffer, name: string): Dockerfile {
  if (bytes.length === 0) throw dockerError(400, `the Dockerfile (${name}) cannot be empty`);
  const lines = linesOf(bytes, name);
  const { escape, next } = readDirectives(lines, name);
  const continuation = CONTINUATIONS[escape];
  const instructions: Instruction[] = [];
  for (let index = next; index < lines.length; index += 1) {
    const number = index + 1;
    const first = (lines[index] ?? '').replace(LEADING, '');
    if (first === '' || first.startsWith('#')) continue;
    let joined = first.replace(continuation, '$1');
    let goesOn = continuation.test(first);
    while (goesOn && index + 1 < lines.length) {
      index += 1;
      const piece = lines[index] ?? '';
      const bare = piece.replace(LEADING, '');
      if (bare === '' || bare.startsWith('#')) continue; // Comments and empty lines do not end an instruction.
      joined += piece.replace(continuation, '$1');
      goesOn = continuation.test(piece);
    }
    const instruction = parseInstruction(joined, number);
    if (continuation.test(instruction.text)) throw lineError(number, `ecluse: it ends with ${escape} and an unusual space`);
    instructions.push(instruction);
    if (instructions.length > INSTRUCTIONS_MAX)
      throw lineError(number, `ecluse: more than ${String(INSTRUCTIONS_MAX)} instructions`);
  }
  if (instructions.length === 0) throw dockerError(400, `failed to parse ${name}: file with no instructions`);
  return { escape, instructions };
}

/**
 * Writes instructions as a Dockerfile that reads back as them, each where it began (for the line numbers in engines' messages). A line that
 * is too long for the engine is continued, at a place where the two pieces join again to what they were.
 */
export function writeDockerfile(
  escape: EscapeToken,
  instructions: readonly { readonly line: number; readonly text: string }[],
): string {
  const lines: string[] = escape === '\\' ? [] : [`# escape=${escape}`];
  for (const { line, text } of instructions) {
    while (lines.length < line - 1) lines.push('');
    let rest = text;
    while (Buffer.byteLength(rest) > LINE_BYTES_MAX) {
      const at = breakOf(rest, escape);
      if (at === undefined)
        throw lineError(line, `ecluse: more than ${String(LINE_BYTES_MAX)} bytes without a place to break them`);
      lines.push(`${rest.slice(0, at)}${escape}`);
      rest = rest.slice(at);
    }
    lines.push(rest);
  }
  return `${lines.join('\n')}\n`;
}

/** Characters are at most three bytes each in UTF-8 for one of a string's units. */
const PIECE_UNITS_MAX = Math.floor(LINE_BYTES_MAX / 3) - 1;

function breakOf(text: string, escape: EscapeToken): number | undefined {
  for (let at = PIECE_UNITS_MAX; at > 1; at -= 1) {
    if (/[!-~]/.test(text.charAt(at - 1)) && text.charAt(at - 1) !== escape && /[$-~]/.test(text.charAt(at))) return at;
  }
  return undefined;
}
