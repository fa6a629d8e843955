/** What `ecluse help` says, from the table of commands. Pure. */
import type { CommandSpec, FlagSpec } from './cli-spec.ts';
import { COMMAND_SPECS } from './cli-table.ts';

function columns(rows: readonly (readonly [string, string])[]): readonly string[] {
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`);
}

function synopsis({ words, operands }: CommandSpec): string {
  return [words, ...operands].join(' ');
}

function flagText({ name, short, value }: FlagSpec): string {
  const long = value === undefined ? `--${name}` : `--${name} ${value}`;
  return short === undefined ? long : `-${short}, ${long}`;
}

function overview(specs: readonly CommandSpec[]): readonly string[] {
  return columns(specs.filter(({ hidden }) => hidden !== true).map((spec) => [synopsis(spec), spec.about]));
}

function commandHelp(spec: CommandSpec): readonly string[] {
  const usage = `Usage: ecluse ${synopsis(spec)}${spec.flags.length === 0 ? '' : ' [flags]'}`;
  const flags = spec.flags.length === 0 ? [] : ['', 'Flags:', ...columns(spec.flags.map((flag) => [flagText(flag), flag.about]))];
  return [usage, '', `${spec.about.slice(0, 1).toUpperCase()}${spec.about.slice(1)}.`, ...flags];
}

/** Help on everything (an empty topic), a group of commands, or one command. */
export function helpText(topic: string): string {
  const one = COMMAND_SPECS.find(({ words }) => words === topic);
  const group = COMMAND_SPECS.filter(({ words }) => words.startsWith(`${topic} `));
  const lines =
    one === undefined
      ? [
          `Usage: ecluse ${topic === '' ? 'COMMAND' : `${topic} COMMAND`} [flags]`,
          '',
          ...(topic === '' ? ['Écluse: an edge reverse proxy and a container service in one program.', ''] : []),
          'Commands:',
          ...overview(topic === '' ? COMMAND_SPECS : group),
          '',
          'See: ecluse help COMMAND',
        ]
      : commandHelp(one);
  return `${lines.join('\n')}\n`;
}
