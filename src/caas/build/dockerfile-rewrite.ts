/**
 * A tenant's Dockerfile becomes the engine's: names of images, which mean the tenant's own, become image ids.
 *
 * Engines share their names and ids between tenants, so nothing may reach one that it could look up by itself: every FROM and `COPY --from` is
 * written anew with the id of an image of the tenant's or the name of a stage, every ADD with its sources as plain words, so that none can
 * become a URL by an expansion that we did not foresee. All else goes through as it stands, one instruction a line. What images run as
 * ONBUILD triggers cannot be rewritten (it is in the image), so it is refused where it would need to be.
 */
import { dockerError } from '#caas/docker-api/docker-error.ts';
import { expandAt, GlobalArguments, StageVariables } from './build-arguments.ts';
import type { GivenArguments } from './build-arguments.ts';
import { lineError, parseDockerfile, parseInstruction, writeDockerfile } from './dockerfile-lines.ts';
import type { Dockerfile, EscapeToken, Instruction } from './dockerfile-lines.ts';
import { quoteWord, splitPaths, WordError } from './dockerfile-words.ts';

/** An image of the tenant's, as far as a build must know it. */
export interface BaseImage {
  /** `sha256:…`. */
  readonly imageId: string;
  readonly environment: readonly string[];
  readonly triggers: readonly string[];
}

/** A file from the web, brought to the engine as an image that has nothing else. */
export interface RemoteFile {
  readonly imageId: string;
  /** Its path in that image. */
  readonly path: string;
  /** False where neither the URL nor the server gave it a name. */
  readonly isNamed: boolean;
}

export interface RewriteOptions {
  readonly arguments: GivenArguments;
  /** The stage to end with; empty: the last. */
  readonly target: string;
  /** `--label`s: the engine makes a step of each. */
  readonly labels: number;
  /** The tenant's image of that name, pulled if it must be. `step` is how Docker announces the instruction that needs it. */
  readonly imageOf: (reference: string, need: { readonly platform: string; readonly step: string }) => Promise<BaseImage>;
  /** Fetches what an ADD names. */
  readonly fetch: (url: string) => Promise<RemoteFile>;
}

export interface RewrittenDockerfile {
  readonly text: string;
  /** Rewritten instruction → what the tenant wrote. */
  readonly originals: ReadonlyMap<string, string>;
  /** Image id without `sha256:` → the tenant's name for it. */
  readonly names: ReadonlyMap<string, string>;
  /** For each stage whether another one begins with it. */
  readonly isBase: readonly boolean[];
}

interface Stage {
  readonly index: number;
  readonly name: string;
  readonly variables: StageVariables;
  /** ONBUILD of this stage: run where a later stage begins with it. */
  readonly triggers: string[];
}

/** What a flag may hold to be written again without quotes. */
const PLAIN_FLAG = /^--[A-Za-z][A-Za-z0-9-]*(?:=[A-Za-z0-9._:@/${}+,=*~%?-]*)?$/;
const PLAIN_TRIGGER = /^[ -~]*$/;
const URL_START = /^https?:\/\//i;
/** Printable, and nothing that a scanner drops or replaces. */
const ODD_CHARACTER = /[\p{Cc}\p{Cs}\uFEFF\uFFFD]/u;

function flagOf(instruction: Instruction, name: string): string | undefined {
  const given = instruction.flags.filter((flag) => flag === `--${name}` || flag.startsWith(`--${name}=`));
  if (given.length > 1) throw lineError(instruction.line, `Duplicate flag specified: ${name}`);
  const [flag] = given;
  if (flag === undefined) return undefined;
  if (!flag.includes('=')) throw lineError(instruction.line, `Missing a value on flag: ${name}`);
  return flag.slice(name.length + 3);
}

/** The other flags as they are written again. */
function flagsWithout(instruction: Instruction, name: string): readonly string[] {
  return instruction.flags
    .filter((flag) => flag !== `--${name}` && !flag.startsWith(`--${name}=`))
    .map((flag) => {
      if (PLAIN_FLAG.test(flag)) return flag;
      throw lineError(instruction.line, `ecluse: the flag ${flag.slice(0, 100)} has characters that are not taken`);
    });
}

function checkArgs(instruction: Instruction): string {
  if (!instruction.args.startsWith('--')) return instruction.args;
  throw lineError(instruction.line, 'ecluse: an argument that begins with -- is not taken');
}

class Rewriting {
  readonly #options: RewriteOptions;
  readonly #escape: EscapeToken;
  readonly #steps: number;
  readonly #global: GlobalArguments;
  readonly #stages: Stage[] = [];
  readonly #written: { readonly line: number; readonly text: string }[] = [];
  readonly #originals = new Map<string, string>();
  readonly #names = new Map<string, string>();
  readonly #bases = new Set<number>();

  constructor(escape: EscapeToken, steps: number, options: RewriteOptions) {
    this.#options = options;
    this.#escape = escape;
    this.#steps = steps;
    this.#global = new GlobalArguments(options.arguments);
  }

  get result(): RewrittenDockerfile {
    return {
      text: writeDockerfile(this.#escape, this.#written),
      originals: this.#originals,
      names: this.#names,
      isBase: this.#stages.map((stage) => this.#bases.has(stage.index)),
    };
  }

  async take(instruction: Instruction): Promise<void> {
    const text = await this.#rewritten(instruction);
    this.#written.push({ line: instruction.line, text });
    if (text !== instruction.text) this.#originals.set(text, instruction.text);
  }

  async #rewritten(instruction: Instruction): Promise<string> {
    if (instruction.keyword === 'from') return await this.#from(instruction);
    const stage = this.#stages.at(-1);
    if (stage === undefined) {
      if (instruction.keyword !== 'arg') throw dockerError(400, 'no build stage in current context');
      this.#global.declare(instruction, this.#escape);
      return instruction.text;
    }
    stage.variables.checkGrowth(instruction);
    switch (instruction.keyword) {
      case 'copy':
        return await this.#copy(instruction);
      case 'add':
        return await this.#add(instruction, stage);
      case 'onbuild':
        return onBuild(instruction, stage);
      default:
        stage.variables.apply(instruction);
        return instruction.text;
    }
  }

  /** How Docker announces the instruction that is being looked at. */
  #stepOf(instruction: Instruction): string {
    return `Step ${String(this.#written.length + 1)}/${String(this.#steps)} : ${instruction.text}\n`;
  }

  async #image(instruction: Instruction, reference: string, platform: string): Promise<BaseImage> {
    const image = await this.#options.imageOf(reference, { platform, step: this.#stepOf(instruction) });
    this.#names.set(hexOf(image.imageId), reference);
    return image;
  }

  #stageNamed(name: string): Stage | undefined {
    // The stage that is being made does not count.
    return name === '' ? undefined : this.#stages.find((stage) => stage.name === name.toLowerCase());
  }

  async #from(instruction: Instruction): Promise<string> {
    const { line } = instruction;
    const words = checkArgs(instruction).split(/[\t\v\f\r ]+/);
    const [given = '', as, alias = ''] = words;
    const isNamed = words.length === 3 && /^as$/i.test(as ?? '');
    if (given === '' || (words.length !== 1 && !isNamed)) throw lineError(line, 'FROM requires either one or three arguments');
    const name = alias.toLowerCase();
    if (isNamed && !/^[a-z][a-z0-9-_.]*$/.test(name)) {
      throw lineError(
        line,
        `invalid name for build stage: ${JSON.stringify(alias.slice(0, 100))}, name can't start with a number or contain symbols`,
      );
    }
    const expand = (word: string): string => expandAt(instruction, word, { lookup: this.#global.lookup, escape: this.#escape });
    const base = expand(given);
    if (base === '') throw dockerError(400, `base name (${given.slice(0, 200)}) should not be blank`);
    if (this.#stageNamed(name) !== undefined) throw dockerError(400, `${name} stage name already used`);
    const platform = expand(flagOf(instruction, 'platform') ?? '');
    const source = await this.#begin(instruction, base, { name, platform });
    const flags = flagsWithout(instruction, 'platform');
    const words2 = ['FROM', ...(platform === '' ? [] : [`--platform=${checkedPlatform(platform, line)}`]), ...flags, source];
    return [...words2, ...(isNamed ? ['AS', name] : [])].join(' ');
  }

  /** Begins a stage and runs the triggers of what it begins with. Returns what FROM shall name. */
  async #begin(
    instruction: Instruction,
    base: string,
    as: { readonly name: string; readonly platform: string },
  ): Promise<string> {
    const earlier = this.#stageNamed(base);
    const image = earlier !== undefined || base === 'scratch' ? undefined : await this.#image(instruction, base, as.platform);
    if (earlier !== undefined) this.#bases.add(earlier.index);
    const environment = earlier?.variables.environment ?? image?.environment ?? [];
    const stage: Stage = {
      index: this.#stages.length,
      name: as.name,
      variables: new StageVariables(this.#global, this.#escape, environment),
      triggers: [],
    };
    const triggers = earlier?.triggers ?? image?.triggers ?? [];
    for (const trigger of triggers) this.#runTrigger(trigger, stage, { base, line: instruction.line });
    this.#stages.push(stage);
    if (earlier !== undefined) return earlier.name;
    return image === undefined ? 'scratch' : hexOf(image.imageId);
  }

  /** What a trigger will do in this build; refused where it would have to be rewritten. */
  #runTrigger(trigger: string, stage: Stage, at: { readonly base: string; readonly line: number }): void {
    const refusal = (reason: string): Error =>
      lineError(at.line, `ecluse: ${at.base.slice(0, 200)} runs "ONBUILD ${trigger.slice(0, 200)}", ${reason}`);
    if (!PLAIN_TRIGGER.test(trigger)) throw refusal('which has characters that are not taken');
    const instruction = parseInstruction(trigger, at.line);
    stage.variables.checkGrowth(instruction);
    if (instruction.keyword === 'onbuild') {
      stage.triggers.push(parseInstruction(instruction.args, at.line).text);
    } else if (instruction.keyword === 'copy') {
      const from = flagOf(instruction, 'from') ?? '';
      if (from !== '' && !this.#isStageIndex(from) && this.#stageNamed(from) === undefined) {
        throw refusal('which takes files from an image; name a stage of your Dockerfile so');
      }
      flagsWithout(instruction, 'from');
      checkArgs(instruction);
    } else if (instruction.keyword === 'add') {
      flagsWithout(instruction, '');
      const sources = pathsOf(instruction).slice(0, -1);
      if (sources.some((source) => URL_START.test(source) || /['"$\\]/.test(source))) {
        throw refusal('which could fetch from the network; write that ADD in your Dockerfile');
      }
    } else stage.variables.apply(instruction);
  }

  #isStageIndex(from: string): boolean {
    return /^[+-]?\d{1,9}$/.test(from); // One that is out of bounds is the engine's to refuse: it never means an image.
  }

  async #copy(instruction: Instruction): Promise<string> {
    const from = flagOf(instruction, 'from') ?? '';
    const flags = flagsWithout(instruction, 'from');
    const args = checkArgs(instruction);
    if (from === '') return ['COPY', ...flags, args].join(' ');
    return ['COPY', `--from=${await this.#sourceOf(instruction, from)}`, ...flags, args].join(' ');
  }

  async #sourceOf(instruction: Instruction, from: string): Promise<string> {
    if (this.#isStageIndex(from)) return from;
    const current = this.#stages.length - 1;
    const stage = this.#stageNamed(from);
    if (stage !== undefined && stage.index < current) return stage.name;
    return hexOf((await this.#image(instruction, from, '')).imageId);
  }

  async #add(instruction: Instruction, stage: Stage): Promise<string> {
    const flags = flagsWithout(instruction, '');
    const paths = pathsOf(instruction);
    const destination = paths.at(-1) ?? '';
    const sources = paths.slice(0, -1).map((word) => {
      const source = stage.variables.expand(instruction, word);
      if (!ODD_CHARACTER.test(source)) return source;
      throw lineError(instruction.line, 'ecluse: a source of ADD has characters that are not taken');
    });
    if (paths.length < 2) {
      throw lineError(
        instruction.line,
        'ADD requires at least two arguments, but only one was provided. Destination could not be determined',
      );
    }
    const urls = sources.filter((source) => URL_START.test(source));
    if (urls.length > 0) return await this.#addRemote(instruction, { urls, sources, destination, flags });
    const words = [...sources.map((source) => quoteWord(source, this.#escape)), destination];
    return ['ADD', ...flags, goJson(words)].join(' ');
  }

  async #addRemote(
    instruction: Instruction,
    add: {
      readonly urls: readonly string[];
      readonly sources: readonly string[];
      readonly destination: string;
      readonly flags: readonly string[];
    },
  ): Promise<string> {
    const { urls, sources, destination, flags } = add;
    const [url = ''] = urls;
    if (sources.length > 1) throw lineError(instruction.line, 'ecluse: an ADD of a URL takes that one source only');
    const file = await this.#options.fetch(url);
    if (!file.isNamed && destination.endsWith('/'))
      throw lineError(instruction.line, `cannot determine filename for source ${url}`);
    this.#names.set(hexOf(file.imageId), url);
    const words = [quoteWord(file.path, this.#escape), destination];
    return ['COPY', `--from=${hexOf(file.imageId)}`, ...flags, goJson(words)].join(' ');
  }
}

/** Without the prefix: a reference of 64 hex digits can only be an id, so an engine that lacks it refuses instead of pulling `sha256`. */
function hexOf(imageId: string): string {
  return imageId.replace(/^sha256:/, '');
}

function goJson(words: readonly string[]): string {
  return JSON.stringify(words);
}

function checkedPlatform(platform: string, line: number): string {
  if (/^[A-Za-z0-9_-]+(?:\/[A-Za-z0-9._-]+){0,2}$/.test(platform)) return platform;
  throw lineError(line, `failed to parse platform ${platform.slice(0, 100)}`);
}

function pathsOf(instruction: Instruction): readonly string[] {
  try {
    return splitPaths(checkArgs(instruction));
  } catch (error) {
    if (error instanceof WordError) throw lineError(instruction.line, error.message);
    throw error;
  }
}

/** It is run where an image is built on this one, and judged there. */
function onBuild(instruction: Instruction, stage: Stage): string {
  if (instruction.flags.length > 0) throw lineError(instruction.line, 'ecluse: ONBUILD takes no flags');
  if (instruction.args === '') throw lineError(instruction.line, 'ONBUILD requires at least one argument');
  const trigger = parseInstruction(instruction.args, instruction.line);
  if (trigger.keyword === 'onbuild') throw lineError(instruction.line, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
  if (trigger.keyword === 'from' || trigger.keyword === 'maintainer') {
    throw lineError(instruction.line, `${trigger.keyword.toUpperCase()} isn't allowed as an ONBUILD trigger`);
  }
  stage.triggers.push(trigger.text);
  return `ONBUILD ${trigger.text}`;
}

/** The instructions up to the end of the target stage. */
function upToTarget(instructions: readonly Instruction[], target: string): readonly Instruction[] {
  if (target === '') return instructions;
  const wanted = target.toLowerCase();
  const isTarget = ({ keyword, args }: Instruction): boolean => {
    const words = args.split(/[\t\v\f\r ]+/);
    return keyword === 'from' && words.length === 3 && words[2]?.toLowerCase() === wanted;
  };
  const start = instructions.findIndex(isTarget);
  if (start === -1) throw dockerError(400, `failed to reach build target ${target.slice(0, 200)} in Dockerfile`);
  const next = instructions.findIndex(({ keyword }, index) => index > start && keyword === 'from');
  return next === -1 ? instructions : instructions.slice(0, next);
}

export async function rewriteDockerfile(dockerfile: Dockerfile, options: RewriteOptions): Promise<RewrittenDockerfile> {
  const instructions = upToTarget(dockerfile.instructions, options.target);
  const rewriting = new Rewriting(dockerfile.escape, instructions.length + options.labels, options);
  for (const instruction of instructions) await rewriting.take(instruction);
  const { result } = rewriting;
  checkSame(result.text, dockerfile.escape, instructions);
  return result;
}

/** What was written must read back as the same instructions: a difference would be a hole. */
function checkSame(text: string, escape: EscapeToken, instructions: readonly Instruction[]): void {
  const again = parseDockerfile(Buffer.from(text), 'Dockerfile');
  const isSame = again.escape === escape && again.instructions.length === instructions.length;
  if (isSame) return;
  throw dockerError(400, 'ecluse: this Dockerfile cannot be read without doubt; write each instruction on lines of its own');
}
