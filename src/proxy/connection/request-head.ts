/**
 * The head of a client's requests as it goes to endpoints. Written to `OUTPUT`.
 *
 * PERF: where a client sends the same head again, what was written for it is sent again with another id.
 */
import { NO_FIT, createRequestEdits, writeRequestHead } from '#proxy/http1/rewrite.ts';
import type { RequestEdits } from '#proxy/http1/rewrite.ts';
import { writeProxyHeader } from '#proxy/wire/proxy-protocol.ts';
import type { PassageEnd } from './passage.ts';
import { OUTPUT } from './response-writer.ts';
import type { Upstream } from './upstream.ts';

export class RequestHead {
  readonly #client: PassageEnd;
  #edits: RequestEdits | undefined;
  #editsHostName = '';
  /** The head as it went to an endpoint, where the one at hand was the same as the one before; `#sentEdits`: what it was made with. */
  #sent: Buffer | undefined;
  #sentEdits: RequestEdits | undefined;
  #sentIdAt = 0;

  constructor(client: PassageEnd) {
    this.#client = client;
  }

  /** Writes the head at hand to the output. False: it does not fit. */
  write(upstream: Upstream): boolean {
    OUTPUT.at = 0;
    const edits = this.#editsFor(upstream.pool.endpoint.hostName);
    if (!this.#client.repeated) this.#sent = undefined;
    if (this.#sent === undefined || this.#sentEdits !== edits) return this.#writeAnew(upstream, edits);
    const { out } = OUTPUT;
    out.set(this.#sent, 0);
    out.set(this.#client.record.requestId, this.#sentIdAt);
    OUTPUT.at = this.#sent.length;
    return true;
  }

  #writeAnew(upstream: Upstream, edits: RequestEdits): boolean {
    const client = this.#client;
    const { bytes, view } = client.head();
    const { requestId } = client.record;
    edits.requestId = requestId;
    edits.upgrade = client.facts.upgrade;
    edits.trailers = client.facts.trailers;
    this.#introduce(upstream);
    const introduction = OUTPUT.at;
    if (writeRequestHead(bytes, view, edits, OUTPUT) === NO_FIT) return false;
    if (!client.repeated || introduction > 0) return true;
    const sent = Buffer.from(OUTPUT.out.subarray(0, OUTPUT.at));
    this.#sentIdAt = sent.lastIndexOf(requestId);
    this.#sentEdits = edits;
    this.#sent = this.#sentIdAt === -1 ? undefined : sent;
    return true;
  }

  /** PROXY protocol to endpoints that want it: the connection is this client's alone then. */
  #introduce(upstream: Upstream): void {
    const version = this.#client.record.service?.sendProxy;
    if (version === undefined) return;
    upstream.keepToOneClient();
    const header = writeProxyHeader(version, this.#client.peer.proxyFacts());
    header.copy(OUTPUT.out, 0);
    OUTPUT.at = header.length;
  }

  #editsFor(hostName: string): RequestEdits {
    if (this.#edits !== undefined && this.#editsHostName === hostName) return this.#edits;
    const { peer } = this.#client;
    this.#editsHostName = hostName;
    this.#edits = createRequestEdits({
      clientAddress: peer.peerAddress,
      proto: peer.tls === undefined ? 'http' : 'https',
      hostName,
      trusted: peer.trusted,
    });
    return this.#edits;
  }
}
