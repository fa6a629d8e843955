/** Listen addresses as people write them: `:80`, `127.0.0.1:8080`, `[::1]:443`, `off`. Pure. */
import { isIP } from 'node:net';

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

export type ParsedListenAddress =
  | { readonly kind: 'address'; readonly address: ListenAddress }
  | { readonly kind: 'off' }
  | { readonly kind: 'invalid'; readonly why: string };

/** What an address may look like, for JSON Schema; `parseListenAddress` has the last word. */
export const LISTEN_ADDRESS_PATTERN = /^(?:off|(?:\[[0-9a-fA-F:.]+\]|[^\s:[\]]*):\d{1,5})$/;

export const LISTEN_ADDRESS_EXAMPLES = '":8080", "127.0.0.1:8080", "[::1]:8080" or "off"';

const PORT_MAX = 65_535;
const HOST_NAME = /^[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?$/;

/** Reads an address; no host means every IPv4 address of the machine. */
export function parseListenAddress(text: string): ParsedListenAddress {
  if (text === 'off') return { kind: 'off' };
  const colon = text.lastIndexOf(':');
  if (!LISTEN_ADDRESS_PATTERN.test(text) || colon === -1) {
    return invalid(`"${text}" is not an address; write it like ${LISTEN_ADDRESS_EXAMPLES}`);
  }
  const port = Number(text.slice(colon + 1));
  if (port > PORT_MAX) return invalid(`port ${String(port)} of "${text}" is above ${String(PORT_MAX)}`);
  const written = text.slice(0, colon);
  if (written === '') return { kind: 'address', address: { host: '0.0.0.0', port } };
  const isBracketed = written.startsWith('[');
  const host = isBracketed ? written.slice(1, -1) : written;
  // `300.1.2.3` would be looked up as a name and fail much later.
  const isHost = isBracketed ? isIP(host) === 6 : isIP(host) === 4 || (HOST_NAME.test(host) && !/^[\d.]+$/.test(host));
  return isHost ? { kind: 'address', address: { host, port } } : invalid(`"${host}" is neither an IP address nor a host name`);
}

/** The address as it is written and shown. */
export function formatListenAddress({ host, port }: ListenAddress): string {
  return `${isIP(host) === 6 ? `[${host}]` : host}:${String(port)}`;
}

function invalid(why: string): ParsedListenAddress {
  return { kind: 'invalid', why };
}
