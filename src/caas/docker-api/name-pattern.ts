/**
 * Go's regular expressions, as far as filters of container names need them, matched in time that is linear in the text: Docker's `name` filter takes any
 * expression, and JavaScript's own engine could be made to run for hours by one. A set of states walks over the text (Thompson); nothing
 * backtracks. Pure.
 */

import { dockerError } from './docker-error.ts';

/** Expressions of one request that are more than a name. */
const PATTERNS_MAX = 5;
/** Expressions for names are short. Repetitions with bounds unfold, so the program has a bound too: a list runs it over a thousand names. */
const PATTERN_CHARS_MAX = 256;
const STEPS_MAX = 150;

type CharTest = (code: number) => boolean;

type Node =
  | { readonly kind: 'char'; readonly test: CharTest }
  | { readonly kind: 'start' | 'end' }
  | { readonly kind: 'empty' }
  | { readonly kind: 'sequence' | 'choice'; readonly parts: readonly Node[] }
  | { readonly kind: 'repeat'; readonly of: Node; readonly min: number; readonly max: number };

type Step =
  | { readonly kind: 'char'; readonly test: CharTest }
  | { readonly kind: 'start' | 'end' | 'match' }
  | { readonly kind: 'split'; readonly targets: readonly number[] };

export type NamePattern =
  | { readonly kind: 'pattern'; readonly isPlain: boolean; readonly matches: (text: string) => boolean }
  | { readonly kind: 'refused'; readonly reason: string };

const isDigit: CharTest = (code) => code >= 0x30 && code <= 0x39;
const isWord: CharTest = (code) =>
  isDigit(code) || code === 0x5f || (code >= 0x41 && code <= 0x5a) || (code >= 0x61 && code <= 0x7a);
const isSpace: CharTest = (code) => [0x20, 0x09, 0x0a, 0x0c, 0x0d].includes(code);
const not =
  (test: CharTest): CharTest =>
  (code) =>
    !test(code);
const anyChar: CharTest = (code) => code !== 0x0a;
const CLASSES: Readonly<Record<string, CharTest>> = {
  d: isDigit,
  D: not(isDigit),
  w: isWord,
  W: not(isWord),
  s: isSpace,
  S: not(isSpace),
};

function exactly(char: string): CharTest {
  const code = char.charCodeAt(0);
  return (other) => other === code;
}

/** Recursive descent over the pattern. Throws a SyntaxError with the reason. */
class PatternReader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  read(): Node {
    const node = this.#choice();
    if (this.#at < this.#text.length) throw new SyntaxError('unexpected )');
    return node;
  }

  #peek(): string {
    return this.#text[this.#at] ?? '';
  }

  #take(): string {
    const char = this.#peek();
    this.#at += 1;
    return char;
  }

  #choice(): Node {
    const parts = [this.#sequence()];
    while (this.#peek() === '|') {
      this.#at += 1;
      parts.push(this.#sequence());
    }
    return parts.length === 1 && parts[0] !== undefined ? parts[0] : { kind: 'choice', parts };
  }

  #sequence(): Node {
    const parts: Node[] = [];
    while (!['', '|', ')'].includes(this.#peek())) parts.push(this.#repeated());
    return { kind: 'sequence', parts };
  }

  #repeated(): Node {
    let node = this.#atom();
    for (;;) {
      const bounds = this.#bounds();
      if (bounds === undefined) return node;
      if (this.#peek() === '?') this.#at += 1; // Lazy: which of several matches is taken does not matter here.
      node = { kind: 'repeat', of: node, ...bounds };
    }
  }

  #bounds(): { readonly min: number; readonly max: number } | undefined {
    switch (this.#peek()) {
      case '*':
        this.#at += 1;
        return { min: 0, max: Number.POSITIVE_INFINITY };
      case '+':
        this.#at += 1;
        return { min: 1, max: Number.POSITIVE_INFINITY };
      case '?':
        this.#at += 1;
        return { min: 0, max: 1 };
      default: {
        const found = /^\{(\d{1,4})(,(\d{0,4}))?\}/.exec(this.#text.slice(this.#at, this.#at + 12));
        if (found === null) return undefined;
        this.#at += found[0].length;
        const min = Number(found[1]);
        const max = found[2] === undefined ? min : found[3] === '' ? Number.POSITIVE_INFINITY : Number(found[3]);
        if (max < min || min > 1000) throw new SyntaxError('invalid repeat count');
        return { min, max };
      }
    }
  }

  #atom(): Node {
    const char = this.#take();
    switch (char) {
      case '(': {
        if (this.#peek() === '?') {
          if (!this.#text.startsWith('?:', this.#at)) throw new SyntaxError('flags and names of groups are not supported');
          this.#at += 2;
        }
        const node = this.#choice();
        if (this.#take() !== ')') throw new SyntaxError('missing closing )');
        return node;
      }
      case '[':
        return { kind: 'char', test: this.#set() };
      case '.':
        return { kind: 'char', test: anyChar };
      case '^':
        return { kind: 'start' };
      case '$':
        return { kind: 'end' };
      case '*':
      case '+':
      case '?':
        throw new SyntaxError('missing argument to repetition operator');
      case '\\':
        return this.#escaped();
      default:
        return { kind: 'char', test: exactly(char) };
    }
  }

  #escaped(): Node {
    const char = this.#take();
    if (char === 'A') return { kind: 'start' };
    if (char === 'z') return { kind: 'end' };
    return { kind: 'char', test: escapeTest(char) };
  }

  #set(): CharTest {
    const isNegated = this.#peek() === '^';
    if (isNegated) this.#at += 1;
    const tests: CharTest[] = [];
    for (let first = true; first || this.#peek() !== ']'; first = false) {
      const low = this.#setMember();
      if (this.#peek() === '-' && this.#text[this.#at + 1] !== ']') {
        this.#at += 1;
        const high = this.#setMember();
        if (typeof low !== 'string' || typeof high !== 'string' || low > high)
          throw new SyntaxError('invalid character class range');
        tests.push((code) => code >= low.charCodeAt(0) && code <= high.charCodeAt(0));
      } else tests.push(typeof low === 'string' ? exactly(low) : low);
    }
    this.#at += 1;
    const any: CharTest = (code) => tests.some((test) => test(code));
    return isNegated ? not(any) : any;
  }

  #setMember(): string | CharTest {
    const char = this.#take();
    if (char === '') throw new SyntaxError('missing closing ]');
    if (char === '[' && this.#peek() === ':') throw new SyntaxError('named classes are not supported');
    if (char !== '\\') return char;
    const escaped = this.#take();
    return CLASSES[escaped] ?? (isWord(escaped.charCodeAt(0)) ? escapeTest(escaped) : escaped);
  }
}

function escapeTest(char: string): CharTest {
  const known = CLASSES[char];
  if (known !== undefined) return known;
  if (char === '') throw new SyntaxError('trailing backslash');
  if (isWord(char.charCodeAt(0))) throw new SyntaxError(`\\${char} is not supported`);
  return exactly(char);
}

function compileInto(steps: Step[], node: Node): void {
  if (steps.length > STEPS_MAX) throw new SyntaxError('expression too large');
  switch (node.kind) {
    case 'empty':
      return;
    case 'char':
    case 'start':
    case 'end':
      steps.push(node);
      return;
    case 'sequence':
      for (const part of node.parts) compileInto(steps, part);
      return;
    case 'choice':
      compileChoice(steps, node.parts);
      return;
    case 'repeat':
      for (let count = 0; count < node.min; count += 1) {
        const before = steps.length;
        compileInto(steps, node.of);
        if (steps.length === before) break; // An empty group, which adds nothing to the bound however often it is repeated: `((){1000}){1000}`.
      }
      if (node.max === Number.POSITIVE_INFINITY) compileLoop(steps, node.of);
      else for (let count = node.min; count < node.max; count += 1) compileChoice(steps, [node.of, { kind: 'empty' }]);
      return;
  }
}

function compileChoice(steps: Step[], parts: readonly Node[]): void {
  const split = steps.length;
  const targets: number[] = [];
  const exits: number[] = [];
  steps.push({ kind: 'split', targets });
  for (const part of parts) {
    targets.push(steps.length);
    compileInto(steps, part);
    exits.push(steps.length);
    steps.push({ kind: 'split', targets: [] });
  }
  for (const exit of exits) steps[exit] = { kind: 'split', targets: [steps.length] };
  steps[split] = { kind: 'split', targets };
}

function compileLoop(steps: Step[], of: Node): void {
  const split = steps.length;
  steps.push({ kind: 'split', targets: [] });
  compileInto(steps, of);
  steps.push({ kind: 'split', targets: [split] });
  steps[split] = { kind: 'split', targets: [split + 1, steps.length] };
}

/** The steps that a match may be at, without doubles. */
class Places {
  readonly #isIn: Uint8Array;
  readonly list: number[] = [];

  constructor(size: number) {
    this.#isIn = new Uint8Array(size);
  }

  /** True where it was not in yet. */
  add(at: number): boolean {
    if (this.#isIn[at] === 1) return false;
    this.#isIn[at] = 1;
    this.list.push(at);
    return true;
  }

  clear(): void {
    for (const at of this.list) this.#isIn[at] = 0;
    this.list.length = 0;
  }
}

interface Place {
  readonly atStart: boolean;
  readonly atEnd: boolean;
}

/** Adds `entry` and the steps that can be reached from it without taking a character. */
function follow(steps: readonly Step[], places: Places, entry: number, place: Place): void {
  const waiting = [entry];
  for (let at = waiting.pop(); at !== undefined; at = waiting.pop()) {
    if (!places.add(at)) continue;
    const step = steps[at];
    if (step?.kind === 'split') waiting.push(...step.targets);
    else if ((step?.kind === 'start' && place.atStart) || (step?.kind === 'end' && place.atEnd)) waiting.push(at + 1);
  }
}

function runOn(steps: readonly Step[], text: string): boolean {
  let now = new Places(steps.length);
  let next = new Places(steps.length);
  const last = steps.length - 1;
  for (let at = 0; ; at += 1) {
    const place = { atStart: at === 0, atEnd: at === text.length };
    follow(steps, now, 0, place); // A match may begin anywhere.
    if (now.list.includes(last)) return true;
    if (place.atEnd) return false;
    const code = text.charCodeAt(at);
    const after = { atStart: false, atEnd: at + 1 === text.length };
    for (const state of now.list) {
      const step = steps[state];
      if (step?.kind === 'char' && step.test(code)) follow(steps, next, state + 1, after);
    }
    now.clear();
    [now, next] = [next, now];
  }
}

/** What most clients send: a name, perhaps anchored. */
const PLAIN = /^(\^?)(\/?[A-Za-z0-9_-]+)(\$?)$/;

function plainTest(pattern: string): ((text: string) => boolean) | undefined {
  const found = PLAIN.exec(pattern);
  if (found === null) return undefined;
  const [, start, name = '', end] = found;
  if (start === '^' && end === '$') return (text) => text === name;
  if (start === '^') return (text) => text.startsWith(name);
  return end === '$' ? (text) => text.endsWith(name) : (text) => text.includes(name);
}

/** Compiles an expression. One that Go takes and this does not, or that is none at all, is refused. */
export function compileNamePattern(pattern: string): NamePattern {
  if (pattern.length > PATTERN_CHARS_MAX) return { kind: 'refused', reason: 'the expression is too long' };
  const plain = plainTest(pattern);
  if (plain !== undefined) return { kind: 'pattern', isPlain: true, matches: plain };
  try {
    const steps: Step[] = [];
    compileInto(steps, new PatternReader(pattern).read());
    steps.push({ kind: 'match' });
    return { kind: 'pattern', isPlain: false, matches: (text) => runOn(steps, text) };
  } catch (error) {
    if (error instanceof SyntaxError) return { kind: 'refused', reason: error.message };
    throw error;
  }
}

/**
 * The expressions of one filter. One that is none is left to the caller, as Docker's lists differ there. More than a few real ones are refused: each runs
 * over every name.
 */
export function compileNamePatterns(patterns: readonly string[]): readonly NamePattern[] {
  const compiled = patterns.map(compileNamePattern);
  if (compiled.filter((one) => one.kind === 'pattern' && !one.isPlain).length > PATTERNS_MAX)
    throw dockerError(400, `ecluse: more than ${String(PATTERNS_MAX)} expressions for names`);
  return compiled;
}
