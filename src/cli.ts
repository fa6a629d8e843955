/** The command line: arguments in, `Command` out. Pure. Errors: ECLUSE_USAGE, which says what was probably meant. */
import { parseArgs } from 'node:util';
import { codeOf, reasonOf } from '#errors';
import type { Command } from './cli-command.ts';
import { usageError } from './cli-spec.ts';
import type { CommandSpec, FlagSpec, Given } from './cli-spec.ts';
import { COMMANDS_TO_COME } from './cli-spec.ts';
import { COMMAND_SPECS } from './cli-table.ts';
import { nearestWord } from './suggest.ts';

const HELP_FLAG: FlagSpec = { name: 'help', short: 'h', about: 'say how the command is used' };

export function parseCommandLine(argv: readonly string[]): Command {
  const [first, second] = argv;
  if (first === undefined || first === '--help' || first === '-h') return { kind: 'help', topic: '' };
  if (first === '--version' || first === '-v') return { kind: 'version', json: argv.includes('--json') };
  if (first === 'help') return helpOn(argv.slice(1));
  if (first.startsWith('-'))
    throw usageError(`there is no command before ${first}`, 'flags come after the command; see: ecluse help');
  const two = `${first} ${second ?? ''}`;
  const spec = COMMAND_SPECS.find(({ words }) => words === first || words === two);
  if (spec !== undefined) return commandOf(spec, argv.slice(spec.words === first ? 1 : 2));
  if (COMMANDS_TO_COME.has(first) || COMMANDS_TO_COME.has(two)) {
    return { kind: 'not-implemented', name: COMMANDS_TO_COME.has(first) ? first : two };
  }
  return groupOf(first, second);
}

/** A first word that needs a second one (`tenant`), or a wrong word. */
function groupOf(first: string, second: string | undefined): Command {
  const members = COMMAND_SPECS.flatMap(({ words }) => (words.startsWith(`${first} `) ? [words.slice(first.length + 1)] : []));
  if (members.length === 0) throw unknownCommand(first);
  if (second === '--help' || second === '-h') return { kind: 'help', topic: first };
  if (second === undefined || second.startsWith('-'))
    throw usageError(`${first} needs one of ${members.join(', ')}`, `see: ecluse help ${first}`);
  const meant = nearestWord(second, members);
  throw usageError(
    `there is no command "${first} ${second}"`,
    meant === undefined ? `use one of ${members.join(', ')}` : `did you mean ${first} ${meant}?`,
  );
}

function unknownCommand(word: string): Error {
  const known = COMMAND_SPECS.filter(({ hidden }) => hidden !== true).map(({ words }) => words.split(' ')[0] ?? words);
  const meant = nearestWord(word, [...new Set([...known, 'help'])]);
  return usageError(`there is no command "${word}"`, meant === undefined ? 'see: ecluse help' : `did you mean ${meant}?`);
}

function helpOn(words: readonly string[]): Command {
  const topic = words.filter((word) => !word.startsWith('-')).join(' ');
  const isKnown = topic === '' || COMMAND_SPECS.some((spec) => spec.words === topic || spec.words.startsWith(`${topic} `));
  if (isKnown) return { kind: 'help', topic };
  if (COMMANDS_TO_COME.has(topic)) return { kind: 'not-implemented', name: topic };
  throw unknownCommand(topic);
}

function commandOf(spec: CommandSpec, rest: readonly string[]): Command {
  const flags = [...spec.flags, HELP_FLAG];
  const { values, positionals } = parseFlags(spec, flags, rest);
  if (values['help'] === true) return { kind: 'help', topic: spec.words };
  checkOperands(spec, positionals);
  for (const { name } of flags) {
    if (values[name] === '') throw usageError(`--${name} has an empty value`);
  }
  return spec.command(givenOf(values, positionals));
}

type Values = Readonly<Record<string, string | boolean | (string | boolean)[] | undefined>>;

function optionsOf(
  flags: readonly FlagSpec[],
): Record<string, { type: 'string' | 'boolean'; short?: string; multiple?: boolean }> {
  return Object.fromEntries(
    flags.map(({ name, short, value, repeats }) => [
      name,
      {
        type: value === undefined ? ('boolean' as const) : ('string' as const),
        ...(short === undefined ? {} : { short }),
        ...(repeats === true ? { multiple: true } : {}),
      },
    ]),
  );
}

function parseFlags(
  spec: CommandSpec,
  flags: readonly FlagSpec[],
  rest: readonly string[],
): { readonly values: Values; readonly positionals: readonly string[] } {
  const options = optionsOf(flags);
  try {
    return parseArgs({ args: [...rest], options, strict: true, allowPositionals: true });
  } catch (error) {
    const seeAlso = `see: ecluse help ${spec.words}`;
    if (codeOf(error) !== 'ERR_PARSE_ARGS_UNKNOWN_OPTION') throw usageError(reasonOf(error).replace(/\.$/, ''), seeAlso);
    const { tokens } = parseArgs({ args: [...rest], options, strict: false, allowPositionals: true, tokens: true });
    const unknown = tokens.find((token) => token.kind === 'option' && !(token.name in options));
    const written = unknown?.kind === 'option' ? unknown.rawName : 'that flag';
    const meant = nearestWord(
      written.replace(/^-+/, ''),
      flags.map(({ name }) => name),
    );
    throw usageError(`${spec.words} has no flag ${written}`, meant === undefined ? seeAlso : `did you mean --${meant}?`);
  }
}

function checkOperands(spec: CommandSpec, given: readonly string[]): void {
  const missing = spec.operands[given.length];
  if (missing?.startsWith('[') === false)
    throw usageError(`${spec.words} needs ${missing.replace('…', '')}`, `see: ecluse help ${spec.words}`);
  const surplus = spec.operands.at(-1)?.endsWith('…') === true ? undefined : given[spec.operands.length];
  if (surplus !== undefined) throw usageError(`${spec.words} does not take "${surplus}"`, `see: ecluse help ${spec.words}`);
  if (given.includes('')) throw usageError(`${spec.words} has an empty operand`);
}

function givenOf(values: Values, positionals: readonly string[]): Given {
  return {
    has: (flag) => values[flag] === true,
    text: (flag) => textOf(values[flag]),
    texts: (flag) => {
      const value = values[flag];
      return Array.isArray(value) ? value.map(String) : undefined;
    },
    operand: (index) => positionals[index] ?? '',
    operands: positionals,
  };
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}
