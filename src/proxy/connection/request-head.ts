/**
 * The head of a client's requests as it goes to endpoints. Written to `OUTPUT`.
 *
 * PERF: where a client sends the same head again, what was written for it is sent again with another id.
 */
import { NO_FIT, createRequestEdits, writeRequestHead } from '#proxy/http1/rewrite.ts';
import type { FieldEdits, RequestEdits } from '#proxy/http1/rewrite.ts';
import type { PreparedActions } from '#proxy/actions/prepared.ts';
import { TARGET_FORM } from '#proxy/http1/head-view.ts';
import type { HeadView } from '#proxy/http1/head-view.ts';
import { pathKey } from '#proxy/http1/target.ts';
import type { ExchangeRecord } from '#proxy/record.ts';
import { sentPath } from '#routing/rewritten-path.ts';
import { writeProxyHeader } from '#proxy/wire/proxy-protocol.ts';
import type { PassageEnd } from './passage.ts';
import { OUTPUT } from './response-writer.ts';
import type { Upstream } from './upstream.ts';

const NOTHING = Buffer.alloc(0);

export class RequestHead {
  readonly #client: PassageEnd;
  #edits: RequestEdits | undefined;
  #editsHostName = '';
  /** The head as it went to an endpoint, where the one at hand was the same as the one before; `#sentEdits`: what it was made with. */
  #sent: Buffer | undefined;
  #sentEdits: RequestEdits | undefined;
  #sentActions: PreparedActions | undefined;
  #sentIdentity: Buffer = NOTHING;
  #sentIdAt = 0;
  /** Octets before the head that was written last: a PROXY header. */
  introductionBytes = 0;

  constructor(client: PassageEnd) {
    this.#client = client;
  }

  /** Writes the head at hand to the output. False: it does not fit. */
  write(upstream: Upstream): boolean {
    OUTPUT.at = 0;
    const edits = this.#editsFor(upstream.pool.endpoint.hostName);
    if (!this.#client.repeated) this.#sent = undefined;
    const { actions, passed, identity } = this.#client.record;
    const isSame = this.#sentEdits === edits && this.#sentActions === actions && this.#sentIdentity === identity;
    if (this.#sent === undefined || !isSame || passed !== '') return this.#writeAnew(upstream, edits);
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
    applyActions(edits, client.record, bytes, view);
    this.#introduce(upstream);
    this.introductionBytes = OUTPUT.at;
    if (writeRequestHead(bytes, view, edits, OUTPUT) === NO_FIT) return false;
    if (!client.repeated || this.introductionBytes > 0 || client.record.passed !== '') return true;
    const sent = Buffer.from(OUTPUT.out.subarray(0, OUTPUT.at));
    this.#sentIdAt = sent.lastIndexOf(requestId);
    this.#sentEdits = edits;
    this.#sentActions = client.record.actions;
    this.#sentIdentity = client.record.identity;
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

/** What the route of a request does to its head. */
function applyActions(edits: RequestEdits, { actions, passed, identity }: ExchangeRecord, bytes: Buffer, view: HeadView): void {
  edits.path = NOTHING;
  edits.host = NOTHING;
  edits.fields = undefined;
  edits.identity = identity;
  if (actions === undefined) return;
  const { host, requestFields, actions: settings } = actions;
  edits.host = host;
  edits.fields = passed === '' ? requestFields : fieldsWith(requestFields, passed);
  if (settings.stripPrefix === undefined || view.targetForm === TARGET_FORM.authority) return;
  const path = pathKey(bytes, view);
  const sent = sentPath(path, settings.stripPrefix);
  if (sent !== path) edits.path = Buffer.from(sent, 'latin1');
}

function fieldsWith(fields: FieldEdits | undefined, passed: string): FieldEdits {
  const { drops = [], lines = NOTHING } = fields ?? {};
  return { drops, lines: Buffer.concat([lines, Buffer.from(passed, 'latin1')]) };
}
