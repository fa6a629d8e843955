/** Who is at the other end of a client's connection, and what it may say about those before it. */
import { isIPv6 } from 'node:net';
import type { ClientCertificate } from '#proxy/client-certificate.ts';
import { normaliseRequestHost } from '#routing/host-name.ts';
import { FIELD, isIn } from '#proxy/http1/field-names.ts';
import { FIELD_STRIDE, valueEnd, valueStart } from '#proxy/http1/head-view.ts';
import type { HeadView } from '#proxy/http1/head-view.ts';
import { REQUEST_ID_LENGTH_MAX } from '#proxy/limits.ts';
import type { ExchangeRecord, TlsFacts } from '#proxy/record.ts';
import { clientOf } from '#proxy/trusted-proxies.ts';
import type { TrustedProxies } from '#proxy/trusted-proxies.ts';
import type { ProxyHeader } from '#proxy/wire/proxy-protocol.ts';
import type { ReadPath } from '#proxy/wire/wire.ts';
import { FOLDED } from '#proxy/http1/octets.ts';

/** As far as a chain of forwarding proxies is read. */
const CHAIN_LENGTH_MAX = 1024;
const SLASH = 47;
const EQUALS = 61;

export interface PeerFacts {
  /** The address that the connection came from, or that a PROXY header told. */
  readonly address: string;
  readonly port: number;
  /** Our end. PERF: of a socket it is asked for only where it is needed, as that is a system call. */
  readonly local: { readonly localAddress?: string | undefined; readonly localPort?: number | undefined };
  readonly tls: TlsFacts | undefined;
  /** Undefined: the handshake asked for no certificate. */
  readonly client: ClientCertificate | undefined;
  readonly trusted: boolean;
}

export class ClientPeer {
  readonly peerAddress: string;
  readonly tls: TlsFacts | undefined;
  /** Who it is by its certificate; undefined: it was not asked for one. */
  readonly client: ClientCertificate | undefined;
  /** The host of its handshake, as requests name it. */
  readonly serverName: string | undefined;
  /** Whether what it says about its clients is believed. */
  readonly trusted: boolean;
  readonly readPath: ReadPath;
  readonly #facts: PeerFacts;
  readonly #proxies: TrustedProxies;

  constructor(facts: PeerFacts, readPath: ReadPath, proxies: TrustedProxies) {
    this.#facts = facts;
    this.#proxies = proxies;
    this.peerAddress = facts.address;
    this.tls = facts.tls;
    this.client = facts.client;
    this.serverName = facts.tls?.sni === undefined ? undefined : normaliseRequestHost(facts.tls.sni);
    this.trusted = facts.trusted;
    this.readPath = readPath;
  }

  get address(): string {
    return this.peerAddress;
  }

  /** Takes over what a trusted proxy says: the client's address and the id of the request. */
  readChain(bytes: Buffer, view: HeadView, record: ExchangeRecord): void {
    if (isIn(view.seen, FIELD.xForwardedFor))
      record.client = clientOf(this.#proxies, this.peerAddress, joined(bytes, view, FIELD.xForwardedFor));
    if (!isIn(view.seen, FIELD.xRequestId) || isIn(view.repeated, FIELD.xRequestId)) return;
    const start = valueStart(view, FIELD.xRequestId);
    const end = valueEnd(view, FIELD.xRequestId);
    if (isRequestId(bytes, start, end)) record.requestId = Buffer.from(bytes.subarray(start, end));
  }

  /** What a PROXY header says of this client. */
  proxyFacts(): ProxyHeader {
    const { address, port, local } = this.#facts;
    return {
      kind: 'proxied',
      sourceAddress: address,
      sourcePort: port,
      destinationAddress: plainAddress(local.localAddress),
      destinationPort: local.localPort ?? 0,
    };
  }
}

/** IPv4 clients of a dual-stack socket show as `::ffff:1.2.3.4`. */
export function plainAddress(address: string | undefined): string {
  if (address === undefined) return '';
  const mapped = address.startsWith('::ffff:') && isIPv6(address) ? address.slice('::ffff:'.length) : address;
  return mapped.includes('.') || !address.startsWith('::ffff:') ? mapped : address;
}

function joined(bytes: Buffer, view: HeadView, code: number): string {
  const values: string[] = [];
  for (let index = 0; index < view.fieldCount; index += 1) {
    const at = index * FIELD_STRIDE;
    if (view.fields[at + 4] === code) values.push(bytes.toString('latin1', view.fields[at + 2], view.fields[at + 3]));
  }
  return values.join(', ').slice(-CHAIN_LENGTH_MAX);
}

/** A harmless token, so that it can go into logs and heads. */
function isRequestId(bytes: Buffer, start: number, end: number): boolean {
  if (end === start || end - start > REQUEST_ID_LENGTH_MAX) return false;
  for (let index = start; index < end; index += 1) {
    const octet = bytes[index] ?? 0;
    if (FOLDED[octet] === 0 && octet !== SLASH && octet !== EQUALS) return false;
  }
  return true;
}
