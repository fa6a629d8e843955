/** The commands for the edge's certificates. Pure. */
import { remote, REMOTE_FLAGS } from './cli-flags.ts';
import { usageError } from './cli-spec.ts';
import type { CommandSpec, Given } from './cli-spec.ts';

function fileOf(given: Given, flag: string): string {
  const file = given.text(flag);
  if (file === undefined || file === '') throw usageError(`--${flag} is missing`, 'see: ecluse help cert add');
  return file;
}

/** Null: all. */
function hostOf(given: Given): string | null {
  const host = given.operands[0];
  if (given.has('all') === (host !== undefined)) throw usageError('one HOST is wanted, or --all', 'see: ecluse help cert renew');
  return host ?? null;
}

export const CERT_COMMAND_SPECS: readonly CommandSpec[] = [
  {
    words: 'cert ls',
    operands: [],
    about: 'list the certificates that were added, and what is wrong with them',
    flags: REMOTE_FLAGS,
    command: (given) => ({ kind: 'cert-ls', ...remote(given) }),
  },
  {
    words: 'cert add',
    operands: ['NAME'],
    about: 'serve a certificate for the hosts that it names, in place of what has its NAME',
    flags: [
      { name: 'cert', value: 'FILE', about: 'the certificate and its intermediates (PEM)' },
      { name: 'key', value: 'FILE', about: 'its private key (PEM, not encrypted)' },
      { name: 'force', about: 'also where it has expired, or is not valid yet' },
      ...REMOTE_FLAGS,
    ],
    command: (given) => ({
      kind: 'cert-add',
      ...remote(given),
      name: given.operand(0),
      certFile: fileOf(given, 'cert'),
      keyFile: fileOf(given, 'key'),
      force: given.has('force'),
    }),
  },
  {
    words: 'cert renew',
    operands: ['[HOST]'],
    about: 'ask the CA again for the certificate of a host (or --all), whatever failed before',
    flags: [
      { name: 'all', about: 'all hosts that get certificates of a CA' },
      { name: 'force', about: 'also where it is not time yet' },
      ...REMOTE_FLAGS,
    ],
    command: (given) => ({ kind: 'cert-renew', ...remote(given), host: hostOf(given), force: given.has('force') }),
  },
  {
    words: 'cert rm',
    operands: ['NAME'],
    about: "stop serving a certificate; its hosts get the node's own again",
    flags: REMOTE_FLAGS,
    command: (given) => ({ kind: 'cert-rm', ...remote(given), name: given.operand(0) }),
  },
];
