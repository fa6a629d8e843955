/** `hash-password`: a password in, what can be kept of it out. It is read from standard input, since arguments are seen by everybody on the machine. */
import { createInterface } from 'node:readline/promises';
import { Writable } from 'node:stream';
import { EcluseError } from '#errors';
import { hashPassword } from '#proxy/actions/password.ts';
import type { Output } from './cli-output.ts';

/** As NIST SP 800-63B §5.1.1.2 has it at least; and far beyond what anybody types. */
const LENGTH_LEAST = 8;
const LENGTH_MOST = 512;

export async function printPasswordHash(output: Output): Promise<void> {
  const isTerminal = process.stdin.isTTY;
  if (isTerminal) process.stderr.write('password: ');
  const password = await firstLine();
  if (isTerminal) process.stderr.write('\n');
  if (password.length < LENGTH_LEAST || password.length > LENGTH_MOST) {
    throw new EcluseError({
      code: 'ECLUSE_PASSWORD_INVALID',
      source: 'usage',
      status: 400,
      message: `the password has ${String(password.length)} characters, not ${String(LENGTH_LEAST)} to ${String(LENGTH_MOST)}`,
      mend: 'choose another, or pipe it in: printf %s PASSWORD | ecluse hash-password',
    });
  }
  output.write(`${await hashPassword(password)}\n`);
}

/** Without an echo, where somebody types it. */
async function firstLine(): Promise<string> {
  const silent = new Writable({
    write: (_chunk, _encoding, done) => {
      done();
    },
  });
  const lines = createInterface({ input: process.stdin, output: silent, terminal: process.stdin.isTTY });
  try {
    for await (const line of lines) return line;
    return '';
  } finally {
    lines.close();
  }
}
