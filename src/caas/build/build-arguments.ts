/** ARG and ENV of a build: which value a variable has at an instruction. As moby's `builder/dockerfile/buildargs.go` and `evaluator.go`. */
import { dockerError } from '#caas/docker-api/docker-error.ts';
import { lineError } from './dockerfile-lines.ts';
import type { EscapeToken, Instruction } from './dockerfile-lines.ts';
import { expandWord, splitWords, WordError } from './dockerfile-words.ts';
import type { Lookup } from './dockerfile-words.ts';

/** `--build-arg`: null where only the name was given and the client has no value for it. */
export type GivenArguments = ReadonlyMap<string, string | null>;

type Declared = Map<string, string | undefined>;

/** The kernel takes no longer variable (MAX_ARG_STRLEN). Without a limit, `ENV a=$a$a` in forty lines is a terabyte, here and in the engine. */
const VALUE_CHARS_MAX = 128 * 1024;
/** Of one instruction with its variables: a line of them could make gigabytes in the engine, which is all tenants'. */
const GROWTH_CHARS_MAX = 4 * 1024 * 1024;
/** Instructions whose variables the engine expands (moby `evaluator.go`). */
const EXPANDED = new Set('add arg copy env expose label stopsignal user volume workdir'.split(' '));

/** Arguments that need no ARG (moby `builtinAllowedBuildArgs`). */
const BUILT_IN = new Set('HTTP_PROXY http_proxy HTTPS_PROXY https_proxy FTP_PROXY ftp_proxy NO_PROXY no_proxy'.split(' '));
const PATH_DEFAULT = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

export function expandAt(
  instruction: Instruction,
  word: string,
  scope: { readonly lookup: Lookup; readonly escape: EscapeToken },
): string {
  try {
    const expanded = expandWord(word, scope.lookup, scope.escape);
    if (expanded.length <= VALUE_CHARS_MAX) return expanded;
    throw lineError(instruction.line, `ecluse: with its variables it has more than ${String(VALUE_CHARS_MAX)} characters`);
  } catch (error) {
    if (error instanceof WordError) throw dockerError(400, `line ${String(instruction.line)}: ${error.message}`);
    throw error;
  }
}

/** The arguments before the first FROM. */
export class GlobalArguments {
  readonly #given: GivenArguments;
  readonly #declared: Declared = new Map();

  constructor(given: GivenArguments) {
    this.#given = given;
  }

  /** The value of an argument that `declared` declares. */
  valueOf(name: string, declared: ReadonlyMap<string, string | undefined>): string | undefined {
    if (!declared.has(name) && !BUILT_IN.has(name)) return undefined;
    return this.#given.get(name) ?? declared.get(name) ?? this.#declared.get(name);
  }

  readonly lookup: Lookup = (name) => this.valueOf(name, this.#declared);

  get values(): readonly (string | null | undefined)[] {
    return [...this.#given.values(), ...this.#declared.values()];
  }

  declare(instruction: Instruction, escape: EscapeToken): void {
    for (const [name, value] of argumentsOf(instruction, { lookup: this.lookup, escape })) this.#declared.set(name, value);
  }
}

function argumentsOf(
  instruction: Instruction,
  scope: { readonly lookup: Lookup; readonly escape: EscapeToken },
): readonly (readonly [string, string | undefined])[] {
  const words = splitWords(instruction.args, scope.escape);
  if (words.length === 0) throw lineError(instruction.line, 'ARG requires at least one argument');
  return words.map((word) => {
    const equals = word.indexOf('=');
    if (equals === 0) throw lineError(instruction.line, 'ARG names can not be blank');
    const name = expandAt(instruction, equals === -1 ? word : word.slice(0, equals), scope);
    return [name, equals === -1 ? undefined : expandAt(instruction, word.slice(equals + 1), scope)];
  });
}

/** The variables of one stage. */
export class StageVariables {
  readonly #global: GlobalArguments;
  readonly #escape: EscapeToken;
  readonly #declared: Declared = new Map();
  readonly #environment: Map<string, string>;

  /** `environment`: of the image that the stage begins with, as `NAME=value`. */
  constructor(global: GlobalArguments, escape: EscapeToken, environment: readonly string[]) {
    this.#global = global;
    this.#escape = escape;
    this.#environment = new Map(
      environment.map((entry) => {
        const equals = entry.indexOf('=');
        return equals === -1 ? [entry, ''] : [entry.slice(0, equals), entry.slice(equals + 1)];
      }),
    );
    if (!this.#environment.has('PATH')) this.#environment.set('PATH', PATH_DEFAULT);
  }

  readonly lookup: Lookup = (name) => this.#environment.get(name) ?? this.#global.valueOf(name, this.#declared);

  /** Throws where the engine, which expands these instructions by itself, would make too much of one. */
  checkGrowth({ keyword, text, line }: Instruction): void {
    if (!EXPANDED.has(keyword)) return;
    const values = [...this.#environment.values(), ...this.#declared.values(), ...this.#global.values];
    const longest = values.reduce((length, value) => Math.max(length, value?.length ?? 0), 0);
    const uses = text.split('$').length - 1;
    if (uses * longest <= GROWTH_CHARS_MAX) return;
    throw lineError(line, `ecluse: with its variables it could have more than ${String(GROWTH_CHARS_MAX)} characters`);
  }

  get environment(): readonly string[] {
    return [...this.#environment].map(([name, value]) => `${name}=${value}`);
  }

  expand(instruction: Instruction, word: string): string {
    return expandAt(instruction, word, { lookup: this.lookup, escape: this.#escape });
  }

  /** Takes over what an ARG or ENV says; other instructions change nothing. */
  apply(instruction: Instruction): void {
    if (instruction.keyword === 'arg') {
      const scope = { lookup: this.lookup, escape: this.#escape };
      for (const [name, value] of argumentsOf(instruction, scope)) this.#declared.set(name, value);
    } else if (instruction.keyword === 'env') {
      const pairs = this.#pairsOf(instruction).map(
        ([name, value]) => [this.expand(instruction, name), this.expand(instruction, value)] as const,
      );
      for (const [name, value] of pairs) this.#environment.set(name, value);
    }
  }

  #pairsOf(instruction: Instruction): readonly (readonly [string, string])[] {
    const { args, line } = instruction;
    const words = splitWords(args, this.#escape);
    const [first] = words;
    if (first === undefined) throw lineError(line, 'ENV requires at least one argument');
    if (!first.includes('=')) {
      const [, name = '', value] = /^([^\t\v\f\r ]*)[\t\v\f\r ]+(.*)$/su.exec(args) ?? [];
      if (value === undefined) throw lineError(line, 'ENV must have two arguments');
      return [[name, value]];
    }
    return words.map((word) => {
      const equals = word.indexOf('=');
      if (equals === -1) {
        throw lineError(
          line,
          `Syntax error - can't find = in ${JSON.stringify(word.slice(0, 200))}. Must be of the form: name=value`,
        );
      }
      if (equals === 0) throw lineError(line, 'ENV names can not be blank');
      return [word.slice(0, equals), word.slice(equals + 1)];
    });
  }
}
