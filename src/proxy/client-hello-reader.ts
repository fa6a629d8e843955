/** The ClientHello of a connection, read and put back, so that it is known who is asked for before TLS begins. */
import type { Socket } from 'node:net';
import { HELLO_BYTES_MAX, readClientHello } from '#tls/client-hello.ts';
import { lookAhead } from './look-ahead.ts';
import type { Look, LookOptions } from './look-ahead.ts';

export type Greeting =
  /** No server name: it names no host, or it cannot be told. */
  | { readonly kind: 'name'; readonly serverName: string | undefined; readonly protocols: readonly string[] }
  | { readonly kind: 'closed' }
  | { readonly kind: 'late' };

const NO_HELLO = { serverName: undefined, protocols: [] } as const;

function look(gathered: Buffer): Look<Greeting> | undefined {
  const read = readClientHello(gathered);
  if (read.kind === 'more' && gathered.length < HELLO_BYTES_MAX) return undefined;
  const { serverName, protocols } = read.kind === 'hello' ? read : NO_HELLO;
  return { found: { kind: 'name', serverName, protocols }, after: 0 };
}

/** Calls `done` once. What was read is put back. */
export function readGreeting(
  socket: Socket,
  options: Pick<LookOptions<unknown>, 'wheel' | 'timeoutMs'>,
  done: (greeting: Greeting) => void,
): void {
  lookAhead(socket, { ...options, late: { kind: 'late' }, closed: { kind: 'closed' } }, look, done);
}
