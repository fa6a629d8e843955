/**
 * Words of Dockerfile instructions: how they are split, quoted and expanded. Pure. As moby's classic builder does (buildkit
 * `frontend/dockerfile/shell`, `parser/line_parsers.go`, of 20.10).
 */
import { SPACES } from './dockerfile-lines.ts';
import type { EscapeToken } from './dockerfile-lines.ts';

/** The value of a variable, or undefined where it is not set. */
export type Lookup = (name: string) => string | undefined;

/** A word that cannot be expanded; the message is moby's. */
export class WordError extends TypeError {}

const SPECIAL_PARAMETERS = '@*#?-$!0';

class Expander {
  readonly #chars: readonly string[];
  readonly #lookup: Lookup;
  readonly #escape: EscapeToken;
  #at = 0;

  constructor(word: string, lookup: Lookup, escape: EscapeToken) {
    // Go's scanner drops a byte order mark at the start.
    this.#chars = Array.from(word.replace(/^\uFEFF/, ''));
    this.#lookup = lookup;
    this.#escape = escape;
  }

  #peek(): string | undefined {
    return this.#chars[this.#at];
  }

  #next(): string | undefined {
    const char = this.#chars[this.#at];
    this.#at += 1;
    return char;
  }

  /** Up to `stop`, which is taken too; undefined: to the end. */
  until(stop: string | undefined): string {
    let result = '';
    for (let char = this.#next(); char !== undefined; char = this.#next()) {
      if (char === stop) return result;
      if (char === "'") result += this.#singleQuoted();
      else if (char === '"') result += this.#doubleQuoted();
      else if (char === '$') result += this.#dollar();
      else if (char === this.#escape) result += this.#next() ?? '';
      else result += char;
    }
    if (stop !== undefined) throw new WordError(`unexpected end of statement while looking for matching ${stop}`);
    return result;
  }

  #singleQuoted(): string {
    let result = '';
    for (let char = this.#next(); char !== "'"; char = this.#next()) {
      if (char === undefined) throw new WordError('unexpected end of statement while looking for matching single-quote');
      result += char;
    }
    return result;
  }

  #doubleQuoted(): string {
    let result = '';
    for (let char = this.#next(); char !== '"'; char = this.#next()) {
      if (char === undefined) throw new WordError('unexpected end of statement while looking for matching double-quote');
      if (char === '$') {
        result += this.#dollar();
      } else if (char === this.#escape) {
        const escaped = this.#peek();
        if (escaped === undefined) continue;
        result += ['"', '$', this.#escape].includes(escaped) ? (this.#next() ?? '') : char;
      } else result += char;
    }
    return result;
  }

  #name(): string {
    const first = this.#peek() ?? '';
    if (/^\p{Nd}$/u.test(first)) return this.#run(/^\p{Nd}$/u);
    if (first !== '' && SPECIAL_PARAMETERS.includes(first)) return this.#next() ?? '';
    return this.#run(/^[\p{L}\p{Nd}_]$/u);
  }

  #run(pattern: RegExp): string {
    let result = '';
    while (pattern.test(this.#peek() ?? '')) result += this.#next() ?? '';
    return result;
  }

  #dollar(): string {
    if (this.#peek() !== '{') {
      const name = this.#name();
      return name === '' ? '$' : (this.#lookup(name) ?? '');
    }
    this.#next();
    const first = this.#peek();
    if (first === undefined) throw new WordError("syntax error: missing '}'");
    if (['{', '}', ':'].includes(first)) throw new WordError('syntax error: bad substitution');
    const name = this.#name();
    const value = this.#lookup(name);
    const operator = this.#next();
    if (operator === '}') return value ?? '';
    if (operator === '?') return this.#required(name, value, this.#operand());
    if (operator !== ':') throw new WordError("missing ':' in substitution");
    return this.#modified(name, value);
  }

  #operand(): string {
    try {
      return this.until('}');
    } catch (error) {
      throw this.#peek() === undefined ? new WordError("syntax error: missing '}'") : error;
    }
  }

  #required(name: string, value: string | undefined, message: string): string {
    if (value === undefined) throw new WordError(`${name}: ${message === '' ? 'is not allowed to be unset' : message}`);
    return value;
  }

  #modified(name: string, value: string | undefined): string {
    const modifier = this.#next() ?? '';
    const operand = this.#operand();
    if (modifier === '+') return value === undefined || value === '' ? '' : operand;
    if (modifier === '-') return value === undefined || value === '' ? operand : value;
    if (modifier !== '?') throw new WordError(`unsupported modifier (${modifier}) in substitution`);
    const known = this.#required(name, value, operand);
    if (known === '') throw new WordError(`${name}: ${operand === '' ? 'is not allowed to be empty' : operand}`);
    return known;
  }
}

/** A word with its quotes taken off and its variables replaced. */
export function expandWord(word: string, lookup: Lookup, escape: EscapeToken): string {
  try {
    return new Expander(word, lookup, escape).until(undefined);
  } catch (error) {
    if (error instanceof WordError)
      throw new WordError(`failed to process ${JSON.stringify(word.slice(0, 200))}: ${error.message}`);
    throw error;
  }
}

/** A word that `expandWord` makes `literal` of, whatever the variables are. */
export function quoteWord(literal: string, escape: EscapeToken): string {
  return literal.replaceAll(/['"$\\`]/g, (char) =>
    (char === '`' && escape !== '`') || (char === '\\' && escape !== '\\') ? char : `${escape}${char}`,
  );
}

/** Escaped characters, quoted text, and what is neither: the parts of a word between spaces. */
const WORDS: Readonly<Record<EscapeToken, RegExp>> = {
  '\\': wordsWith(String.raw`\\`),
  '`': wordsWith('`'),
};

function wordsWith(escape: string): RegExp {
  const escaped = `${escape}[^]`;
  const doubleQuoted = `"(?:${escaped}|[^"${escape}])*(?:"|${escape}?$)`;
  return new RegExp(`(?:${escaped}|${doubleQuoted}|'[^']*(?:'|$)|[^${SPACES}${escape}"'])+`, 'gu');
}

/** Words of ENV and ARG: separated by spaces, with their quotes still on. */
export function splitWords(text: string, escape: EscapeToken): readonly string[] {
  return text.match(WORDS[escape]) ?? [];
}

/** Where a JSON array ends that `text` begins with; undefined where it does not end. Go's decoder reads one value and leaves what follows. */
function endOfArray(text: string): number | undefined {
  let depth = 0;
  let isString = false;
  for (let at = 0; at < text.length; at += 1) {
    const char = text.charAt(at);
    if (isString) {
      if (char === '\\') at += 1;
      else if (char === '"') isString = false;
    } else if (char === '"') isString = true;
    else if (char === '[' || char === '{') depth += 1;
    else if (char === ']' || char === '}') {
      depth -= 1;
      if (depth === 0) return at + 1;
    }
  }
  return undefined;
}

/** Sources and destination of ADD and COPY: a JSON array of strings, or words between spaces. */
export function splitPaths(args: string): readonly string[] {
  const end = args.startsWith('[') ? endOfArray(args) : undefined;
  if (end !== undefined) {
    let parsed: unknown;
    try {
      parsed = JSON.parse(args.slice(0, end));
    } catch {
      parsed = undefined; // Not JSON: then it is words.
    }
    if (Array.isArray(parsed)) {
      const words: string[] = [];
      for (const word of parsed) {
        if (typeof word !== 'string')
          throw new WordError('when using JSON array syntax, arrays must be comprised of strings only');
        words.push(word);
      }
      return words;
    }
  }
  return args.split(/[\t\v\f\r ]+/).filter((word) => word !== '');
}
