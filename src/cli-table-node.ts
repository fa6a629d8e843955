/** The commands about a node as a whole, as `cli-table.ts` has the others. Pure. */
import { parseDurationMs } from '#units';
import { remote, REMOTE_FLAGS, withUnit } from './cli-flags.ts';
import type { CommandSpec } from './cli-spec.ts';

export const NODE_COMMAND_SPECS: readonly CommandSpec[] = [
  {
    words: 'status',
    operands: [],
    about: 'show the node: addresses, workers, hosts',
    flags: REMOTE_FLAGS,
    command: (given) => ({ kind: 'status', ...remote(given) }),
  },
  {
    words: 'reload',
    operands: [],
    about: 'read ecluse.yaml again, and change what can change while the node runs',
    flags: REMOTE_FLAGS,
    command: (given) => ({ kind: 'reload', ...remote(given) }),
  },
  {
    words: 'upgrade',
    operands: [],
    about: 'put the program that is installed now in the place of the one that runs, without dropping a connection',
    flags: [
      { name: 'drain', value: 'TIME', about: 'what connections of the old workers get to end (default: 60s)' },
      ...REMOTE_FLAGS,
    ],
    command: (given) => ({
      kind: 'upgrade',
      ...remote(given),
      drainMs: withUnit('drain', given.text('drain') ?? '60s', parseDurationMs),
    }),
  },
];
