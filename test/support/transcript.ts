/**
 * Transcripts: the same `docker` commands at two engines, side by side, and what differs.
 *
 * A scenario is a list of commands on empty engines. Each command runs at both at the same time; exit code, standard output and standard
 * error must agree once what must differ was replaced (transcript-normaliser.ts).
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, readlink, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { extract } from 'tar-stream';
import type { Header } from 'tar-stream';
import { createNormaliser } from './transcript-normaliser.ts';
import type { Normaliser } from './transcript-normaliser.ts';

/** What Écluse says instead of what Docker says, and why. A field that is not named here must be the same. */
export interface Difference {
  readonly reason: string;
  readonly exitCode?: number;
  readonly stdout?: string | RegExp;
  readonly stderr?: string | RegExp;
}

export interface CommandStep {
  /** The words after `docker`, with quotes as in a shell and nothing else of it. `%name%` and `%name:12%` stand for what was captured. */
  readonly command: string;
  readonly input?: string | Buffer;
  /** Its input does not end: somebody at a keyboard. */
  readonly inputStaysOpen?: boolean;
  /** The captured output that is its input. */
  readonly inputFrom?: string;
  /** Keeps standard output under a name. */
  readonly capture?: string;
  /** How to read standard output: a tar is compared by its entries; lines whose order is up to chance are sorted. */
  readonly stdout?: 'text' | 'tar' | 'any order';
  /** Is run again until the output matches: things that happen later. */
  readonly until?: RegExp;
  /** Goes on while the next steps run; a step with `join` takes its outcome. */
  readonly background?: string;
  /** In a terminal. */
  readonly terminal?: boolean;
  /** A file or folder of the client's directory that the command writes; compared as well. */
  readonly writes?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** What else is up to chance in its output. */
  readonly hide?: readonly (readonly [RegExp, string])[];
  readonly differs?: Difference;
}

export interface JoinStep {
  readonly join: string;
  /** It would go on for ever: Ctrl-C. */
  readonly interrupt?: boolean;
  readonly differs?: Difference;
}

export type Step = string | CommandStep | JoinStep;

export interface Scenario {
  readonly name: string;
  /** Is run with every client and version. */
  readonly core?: boolean;
  /** Files in the client's directory, in which the commands run. */
  readonly files?: Readonly<Record<string, string>>;
  readonly steps: readonly Step[];
}

/** One engine and how to reach it. */
export interface Side {
  readonly env: NodeJS.ProcessEnv;
}

export interface TranscriptOptions {
  /** The client's program. */
  readonly client: string;
  readonly docker: Side;
  readonly ecluse: Side;
  /** Image ids that both engines have. They stay when everything else is removed. */
  readonly imageIds: readonly string[];
  /** What `%name%` stands for without having been captured. */
  readonly values?: Readonly<Record<string, string>>;
  /** Both sides are Docker: expected differences are none. */
  readonly sidesAreAlike?: boolean;
  /** Hears what Docker said, command by command. */
  readonly onStep?: (command: string, atDocker: Outcome) => void;
}

export interface Outcome {
  readonly exitCode: number | string;
  readonly stdout: string;
  readonly stderr: string;
  readonly written?: string;
}

export interface Mismatch {
  readonly step: number;
  readonly command: string;
  readonly docker: Outcome | string;
  readonly ecluse: Outcome;
}

const COMMAND_LIMIT_MS = 60_000;
const UNTIL_LIMIT_MS = 20_000;
const UNTIL_PAUSE_MS = 150;
/** Until a background command has connected, or has heard the last of what happened. */
const SETTLE_MS = 1000;

/** Runs a scenario at both sides; empty if they said the same. Both are emptied afterwards. */
export async function compareTranscripts(scenario: Scenario, options: TranscriptOptions): Promise<readonly Mismatch[]> {
  const [docker, ecluse] = await Promise.all([
    startSession(scenario, options.docker, options),
    startSession(scenario, options.ecluse, options),
  ]);
  try {
    return await compareSteps(scenario, options, { docker, ecluse });
  } finally {
    await Promise.all([docker.end(), ecluse.end()]);
  }
}

async function compareSteps(
  scenario: Scenario,
  options: TranscriptOptions,
  { docker, ecluse }: { readonly docker: Session; readonly ecluse: Session },
): Promise<readonly Mismatch[]> {
  const found: Mismatch[] = [];
  for (const [index, step] of scenario.steps.map(asStep).entries()) {
    const [atDocker, atEcluse] = await Promise.all([docker.take(step), ecluse.take(step)]);
    const expected = 'differs' in step && options.sidesAreAlike !== true ? step.differs : undefined;
    const command = 'join' in step ? `(the end of ${step.join})` : step.command;
    options.onStep?.(command, atDocker);
    const wrong = judge(atDocker, atEcluse, expected);
    if (wrong !== undefined) found.push({ step: index + 1, command, docker: wrong, ecluse: atEcluse });
  }
  return found;
}

/** Mismatches as text, for a person; empty if there are none. */
export function mismatchText(mismatches: readonly Mismatch[]): string {
  const said = (outcome: Outcome | string): string =>
    typeof outcome === 'string'
      ? outcome
      : `exit ${String(outcome.exitCode)}\n${outcome.stdout}[stderr] ${outcome.stderr}\n${outcome.written ?? ''}`;
  return mismatches
    .map(
      ({ step, command, docker, ecluse }) =>
        `${String(step)}. docker ${command}\nDocker: ${said(docker)}\nÉcluse: ${said(ecluse)}\n`,
    )
    .join('\n');
}

/** The words of all commands, without the ones that only wait for another. */
export function commandsOf(scenarios: readonly Scenario[]): readonly string[] {
  return scenarios.flatMap((scenario) => scenario.steps.map(asStep).flatMap((step) => ('join' in step ? [] : [step.command])));
}

/** A command line as words: blanks part them, quotes keep them together. */
export function wordsOf(line: string): readonly string[] {
  const words = line.matchAll(/(?:[^\s'"]+|'[^']*'|"[^"]*")+/g);
  return [...words].map(([word]) =>
    word.replaceAll(/'([^']*)'|"([^"]*)"/g, (_, single?: string, double?: string) => single ?? double ?? ''),
  );
}

/** What Docker should have said, or undefined where all is well. */
function judge(docker: Outcome, ecluse: Outcome, expected: Difference | undefined): Outcome | string | undefined {
  const agree = JSON.stringify(docker) === JSON.stringify(ecluse);
  if (expected === undefined) return agree ? undefined : docker;
  if (agree) return `the same, though a difference was expected: ${expected.reason}`;
  const fields = ['exitCode', 'stdout', 'stderr'] as const;
  const wrong = fields.filter((field) => !fits(ecluse[field], expected[field] ?? docker[field]));
  return wrong.length === 0 ? undefined : `other words at ${wrong.join(', ')} for: ${expected.reason}`;
}

function fits(value: string | number, wanted: string | number | RegExp): boolean {
  return wanted instanceof RegExp ? wanted.test(String(value)) : value === wanted;
}

function asStep(step: Step): CommandStep | JoinStep {
  return typeof step === 'string' ? { command: step } : step;
}

interface Session {
  readonly take: (step: CommandStep | JoinStep) => Promise<Outcome>;
  /** Empties the engine. */
  readonly end: () => Promise<void>;
}

/** A command that goes on while others run. */
interface Background {
  readonly outcome: Promise<Outcome>;
  readonly interrupt: AbortController;
}

interface Raw {
  readonly exitCode: number | string;
  readonly stdout: Buffer;
  readonly stderr: Buffer;
}

async function startSession(scenario: Scenario, side: Side, options: TranscriptOptions): Promise<Session> {
  const directory = await mkdtemp('/tmp/ecl-transcript-');
  for (const [name, text] of Object.entries(scenario.files ?? {})) {
    await mkdir(dirname(join(directory, name)), { recursive: true });
    await writeFile(join(directory, name), text);
  }
  const normalise = createNormaliser({ sameIds: options.imageIds, directory });
  const values = Object.entries(options.values ?? {}).map(([name, value]) => [name, Buffer.from(value)] as const);
  const captured = new Map<string, Buffer>(values);
  const inBackground = new Map<string, Background>();

  const execute = async (step: CommandStep, interrupt?: AbortSignal): Promise<Outcome> => {
    const args = wordsOf(step.command).map((word) => withCaptured(word, captured));
    const given = typeof step.input === 'string' ? withCaptured(step.input, captured) : step.input;
    const input = step.inputFrom === undefined ? given : captured.get(step.inputFrom);
    const clientConfig = join(directory, '.docker');
    const env = {
      ...side.env,
      DOCKER_CONFIG: clientConfig,
      DOCKER_BUILDKIT: '0',
      DOCKER_CLI_HINTS: 'false',
      LC_ALL: 'C',
      TZ: 'UTC',
      ...step.env,
    };
    const deadline = Date.now() + UNTIL_LIMIT_MS;
    const stays = step.inputStaysOpen === true;
    const execOptions = { env, directory, input, inputStaysOpen: stays, terminal: step.terminal === true, interrupt };
    let raw = await execCommand(options.client, args, execOptions);
    while (step.until !== undefined && !step.until.test(`${String(raw.stdout)}${String(raw.stderr)}`) && Date.now() < deadline) {
      await delay(UNTIL_PAUSE_MS);
      raw = await execCommand(options.client, args, execOptions);
    }
    if (step.capture !== undefined) captured.set(step.capture, raw.stdout);
    const written = step.writes === undefined ? {} : { written: normalise(await describePath(join(directory, step.writes))) };
    return { ...(await outcomeOf(raw, step, normalise)), ...written };
  };

  return {
    take: async (step) => {
      if ('join' in step) {
        const running = inBackground.get(step.join);
        if (running === undefined) throw new Error(`nothing runs under the name ${step.join}`);
        await delay(SETTLE_MS);
        if (step.interrupt === true) running.interrupt.abort();
        return await running.outcome;
      }
      if (step.background === undefined) return await execute(step);
      const interrupt = new AbortController();
      inBackground.set(step.background, { outcome: execute(step, interrupt.signal), interrupt });
      await delay(SETTLE_MS);
      return { exitCode: 'runs', stdout: '', stderr: '' };
    },
    end: async () => {
      await emptyEngine(side.env, options.imageIds);
      for (const running of inBackground.values()) running.interrupt.abort();
      await Promise.all([...inBackground.values()].map(async (running) => await running.outcome));
      await rm(directory, { recursive: true, force: true });
    },
  };
}

function withCaptured(word: string, captured: ReadonlyMap<string, Buffer>): string {
  return word.replaceAll(/%(\w+)(?::(\d+))?%/g, (whole, name: string, digits?: string) => {
    const value = captured.get(name)?.toString('utf8').trim();
    if (value === undefined) throw new Error(`nothing was captured as ${whole}`);
    return digits === undefined ? value : value.slice(0, Number(digits));
  });
}

async function outcomeOf(raw: Raw, step: CommandStep, normalise: Normaliser): Promise<Outcome> {
  const clean = (text: string): string => {
    const hidden = (step.hide ?? []).reduce((rest, [pattern, name]) => rest.replaceAll(pattern, name), text);
    return normalise(hidden);
  };
  const stdout = clean(step.stdout === 'tar' ? await describeTar(raw.stdout) : raw.stdout.toString('utf8'));
  const sorted = step.stdout === 'any order' ? stdout.split('\n').toSorted().join('\n') : stdout;
  return { exitCode: raw.exitCode, stdout: sorted, stderr: clean(raw.stderr.toString('utf8')) };
}

interface ExecOptions {
  readonly env: NodeJS.ProcessEnv;
  readonly directory: string;
  readonly input: string | Buffer | undefined;
  readonly inputStaysOpen?: boolean;
  readonly terminal: boolean;
  readonly interrupt?: AbortSignal | undefined;
}

async function execCommand(client: string, args: readonly string[], options: ExecOptions): Promise<Raw> {
  const quoted = [client, ...args].map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ');
  const [program, words] = options.terminal ? ['script', ['-qefc', quoted, '/dev/null']] : [client, args];
  const child = spawn(program, [...words], {
    env: options.env,
    cwd: options.directory,
    timeout: COMMAND_LIMIT_MS,
    killSignal: 'SIGKILL',
  });
  options.interrupt?.addEventListener('abort', () => child.kill('SIGINT'));
  child.stdin.on('error', () => undefined); // It may end without reading.
  child.stdin.write(options.input ?? '');
  if (options.inputStaysOpen !== true) child.stdin.end();
  const [stdout, stderr] = await Promise.all([buffer(child.stdout), buffer(child.stderr), once(child, 'close')]);
  return { exitCode: child.exitCode ?? child.signalCode ?? 'unknown', stdout, stderr };
}

/** Removes everything but the images that are to stay. What fails here shows in the next scenario. */
async function emptyEngine(env: NodeJS.ProcessEnv, imageIds: readonly string[]): Promise<void> {
  const list = async (...args: readonly string[]): Promise<readonly string[]> => {
    const { stdout } = await execCommand('docker', args, { env, directory: '/', input: undefined, terminal: false });
    return [...new Set(stdout.toString('utf8').split('\n'))].filter((line) => line !== '');
  };
  const containers = await list('ps', '--all', '--quiet');
  if (containers.length > 0) await list('rm', '--force', '--volumes', ...containers);
  const [networks, volumes, images] = await Promise.all([
    list('network', 'ls', '--filter', 'type=custom', '--quiet'),
    list('volume', 'ls', '--quiet'),
    list('images', '--all', '--no-trunc', '--format', '{{.ID}} {{.Repository}}:{{.Tag}}'),
  ]);
  const kept = (line: string): boolean => imageIds.some((id) => line.includes(id)) && line.endsWith(' bb:latest');
  const names = images.filter((line) => !kept(line)).map((line) => line.replace(/^(\S+) .*<none>.*$/, '$1').replace(/^\S+ /, ''));
  if (networks.length > 0) await list('network', 'rm', ...networks);
  if (volumes.length > 0) await list('volume', 'rm', ...volumes);
  if (names.length > 0) await list('rmi', '--force', ...names);
}

/** One line an entry: what a user would notice. */
async function describeTar(archive: Buffer): Promise<string> {
  const lines: string[] = [];
  const parser = extract();
  parser.end(archive);
  try {
    for await (const entry of parser) lines.push(describeEntry(entry.header, await buffer(entry)));
  } catch (error) {
    return `not a tar: ${String(error)}: ${archive.toString('utf8')}`;
  }
  return lines.join('\n');
}

function describeEntry({ name, type, mode, uid, gid, linkname }: Header, content: Buffer): string {
  const text = name.endsWith('/layer.tar') ? '(a layer)' : content.toString('utf8');
  return `${name} ${type} ${(mode & 0o7777).toString(8)} ${String(uid)}:${String(gid)} ${type === 'file' ? text : linkname}`;
}

async function describePath(path: string): Promise<string> {
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) return 'absent';
  const mode = (found.mode & 0o7777).toString(8);
  if (found.isFile()) return `${mode} ${(await readFile(path)).toString('utf8')}`;
  const entries = (await readdir(path, { withFileTypes: true })).toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const lines = entries.map(async (entry) => {
    const inner = join(path, entry.name);
    return `${entry.name}: ${entry.isSymbolicLink() ? `-> ${await readlink(inner)}` : await describePath(inner)}`;
  });
  return [mode, ...(await Promise.all(lines))].join('\n');
}
