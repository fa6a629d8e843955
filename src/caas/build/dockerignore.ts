/**
 * Whether a .dockerignore excludes a file. Pure. Clients leave out of a context what it excludes, but must send the Dockerfile and the
 * .dockerignore itself: who builds takes those two out again. Patterns as in moby's `pkg/fileutils` (of 20.10), matched in linear time.
 */
import { posix } from 'node:path';

type Token =
  | { readonly kind: 'character'; readonly matches: (char: string) => boolean }
  /** `*`: anything without a slash. */
  | { readonly kind: 'star' }
  /** `**`: any folders, or anything where it is the last. */
  | { readonly kind: 'deep'; readonly isLast: boolean };

interface Pattern {
  readonly tokens: readonly Token[];
  readonly isNegated: boolean;
  readonly depth: number;
}

const LINES_MAX = 10_000;

/** A character class up to its `]`; undefined where it does not end: then `[` is a character. */
function classAt(chars: readonly string[], start: number): { readonly token: Token; readonly next: number } | undefined {
  const end = chars.indexOf(']', start + 2);
  if (end === -1) return undefined;
  const isNegated = chars[start + 1] === '^';
  const inside = chars.slice(start + (isNegated ? 2 : 1), end);
  const ranges: (readonly [string, string])[] = [];
  for (let at = 0; at < inside.length; at += 1) {
    const low = inside[at] ?? '';
    const high = inside[at + 1] === '-' && at + 2 < inside.length ? (inside[at + 2] ?? '') : low;
    if (high !== low) at += 2;
    ranges.push([low, high]);
  }
  const has = (char: string): boolean => ranges.some(([low, high]) => char >= low && char <= high);
  return { token: { kind: 'character', matches: (char) => has(char) !== isNegated }, next: end + 1 };
}

function literal(char: string): Token {
  return { kind: 'character', matches: (other) => other === char };
}

function tokensOf(pattern: string): readonly Token[] {
  const chars = Array.from(pattern);
  const tokens: Token[] = [];
  for (let at = 0; at < chars.length;) {
    const char = chars[at] ?? '';
    at += 1;
    if (char === '*' && chars[at] === '*') {
      at += chars[at + 1] === '/' ? 2 : 1;
      tokens.push({ kind: 'deep', isLast: at >= chars.length });
    } else if (char === '*') {
      tokens.push({ kind: 'star' });
    } else if (char === '?') {
      tokens.push({ kind: 'character', matches: (other) => other !== '/' });
    } else if (char === '\\' && at < chars.length) {
      tokens.push(literal(chars[at] ?? ''));
      at += 1;
    } else {
      const found = char === '[' ? classAt(chars, at - 1) : undefined;
      tokens.push(found?.token ?? literal(char));
      if (found !== undefined) at = found.next;
    }
  }
  return tokens;
}

/** Whether the tokens fit the whole path. After each token: at which offsets its match may end. */
function matches(tokens: readonly Token[], path: string): boolean {
  const chars = Array.from(path);
  let ends: readonly boolean[] = [true, ...chars.map(() => false)];
  for (const token of tokens) ends = endsAfter(token, ends, chars);
  return ends[chars.length] === true;
}

function endsAfter(token: Token, ends: readonly boolean[], chars: readonly string[]): readonly boolean[] {
  if (token.kind === 'character') {
    return ends.map((_end, at) => at > 0 && ends[at - 1] === true && token.matches(chars[at - 1] ?? ''));
  }
  // A match that began at any earlier offset goes on to here.
  let goesOn = false;
  return ends.map((isEnd, at) => {
    const before = chars[at - 1];
    if (token.kind === 'star' && before === '/') goesOn = false;
    const reaches = goesOn && (token.kind === 'star' || token.isLast || before === '/');
    goesOn ||= isEnd;
    return isEnd || reaches;
  });
}

function patternOf(line: string): Pattern | undefined {
  if (line.startsWith('#')) return undefined;
  const trimmed = line.trim();
  const isNegated = trimmed.startsWith('!');
  const bare = isNegated ? trimmed.slice(1).trim() : trimmed;
  if (bare === '') return undefined;
  const clean = posix
    .normalize(bare)
    .replace(/(.)\/$/, '$1')
    .replace(/^\/(?=.)/, '');
  return { tokens: tokensOf(clean), isNegated, depth: clean.split('/').length };
}

/** Tells for paths of a context whether `ignore`, the text of its .dockerignore, excludes them. */
export function ignores(ignore: string, path: string): boolean {
  const folders = path.split('/').slice(0, -1);
  let isIgnored = false;
  for (const line of ignore
    .replace(/^\uFEFF/, '')
    .split('\n')
    .slice(0, LINES_MAX)) {
    const pattern = patternOf(line);
    if (pattern === undefined) continue;
    const isFolder = folders.length > 0 && pattern.depth <= folders.length;
    const isHit =
      matches(pattern.tokens, path) || (isFolder && matches(pattern.tokens, folders.slice(0, pattern.depth).join('/')));
    if (isHit) isIgnored = !pattern.isNegated;
  }
  return isIgnored;
}
