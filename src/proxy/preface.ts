/** What comes before HTTP and TLS on a connection from a proxy: its PROXY header. */
import type { Socket } from 'node:net';
import { lookAhead } from './look-ahead.ts';
import type { Look, LookOptions } from './look-ahead.ts';
import { createProxyHeader, proxyRefusalReason, readProxyHeader } from './wire/proxy-protocol.ts';
import type { ProxyHeader } from './wire/proxy-protocol.ts';

/** The longest header is 2 KiB; what comes with it in one read is put back. */
const HEADER_BYTES_MAX = 16 * 1024;

/** Reads the header, puts what follows back and gives what it told, or why it is refused. Once; never where the socket closes first. */
export function readPreface(
  socket: Socket,
  options: Pick<LookOptions<unknown>, 'wheel' | 'timeoutMs'>,
  done: (told: ProxyHeader | string) => void,
): void {
  const header = createProxyHeader();
  const look = (gathered: Buffer): Look<ProxyHeader | string> | undefined => {
    const after = readProxyHeader(gathered, 0, gathered.length, header);
    if (after > 0) return { found: header, after };
    if (after === 0 && gathered.length < HEADER_BYTES_MAX) return undefined;
    return { found: proxyRefusalReason(after), after: gathered.length };
  };
  lookAhead(socket, { ...options, late: 'the PROXY header did not come in time' }, look, done);
}
