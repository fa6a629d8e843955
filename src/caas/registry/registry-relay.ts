/**
 * The registry that engines see: a small server of the node, on an address that only the node's engines reach. An engine pulls
 * `127.0.0.1:PORT/NAME/library/busybox`; the relay carries that to the real registry with the tenant's credentials.
 *
 * So an engine never speaks to a place that a tenant chose: names, redirects, token servers and the places of uploads are checked here
 * (registry-client.ts), and Go's rule that loopback addresses bypass a proxy does not matter. Credentials never reach an engine. A reference that
 * was pulled exists on an engine under NAME only, which no other tenant's reference can be. And what the engine did not fetch because it had
 * it already is known, so that knowing a digest is not enough to get its content (image-registry.ts).
 *
 * Ownership: a session lives for one pull or push. NAME is a secret of the node, the same for a tenant's repository each time, because engines
 * remember by it which layers a repository has already.
 */
import { createHash, createHmac } from 'node:crypto';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { pipeline } from 'node:stream/promises';
import { EcluseError, reasonOf } from '#errors';
import type { Log } from '#log';
import { chunksOf } from '#caas/byte-stream.ts';
import { dockerError } from '#caas/docker-api/docker-error.ts';
import { RegistryError, RegistryUnavailable, throwUnlessGood } from './registry-client.ts';
import type { RegistryPolicy } from './registry-access.ts';
import { DIGEST, fetchManifest, fetchTags, manifestReference, targetOf } from './registry-manifests.ts';
import { RelaySession } from './registry-session.ts';
import type { RelayWish } from './registry-session.ts';
import { beginUpload, goOnUpload, takeManifest } from './registry-uploads.ts';
import type { RelayRequest } from './registry-uploads.ts';

type Answer = (request: RelayRequest) => Promise<void>;

export class RegistryRelay implements AsyncDisposable {
  readonly #log: Log;
  readonly #policy: RegistryPolicy;
  readonly #key: string;
  readonly #servers: Server[] = [];
  readonly #sessions = new Map<string, RelaySession>();

  /** `key`: a secret of the node from which names are derived. */
  constructor(log: Log, options: { readonly policy: RegistryPolicy; readonly key: string }) {
    this.#log = log;
    this.#policy = options.policy;
    this.#key = options.key;
  }

  /** Serves engines at an address; port 0: any. Returns the port. */
  async listen(host: string, port: number): Promise<number> {
    const server = createServer({ requestTimeout: 0 }, (incoming, response) => {
      this.#onRequest(incoming, response).catch((error: unknown) => {
        this.#log.debug({ reason: reasonOf(error) }, 'an answer to an engine was cut');
        response.destroy();
      });
    });
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    server.once('error', reject);
    server.listen({ host, port }, () => {
      resolve(undefined);
    });
    await promise;
    this.#servers.push(server);
    return addressOf(server).port;
  }

  /** The name of a tenant's repository on engines; says nothing of either, and cannot be guessed. */
  nameOf(tenant: string, repository: string): string {
    return createHmac('sha256', this.#key).update(`${tenant}\0${repository}`).digest('hex').slice(0, 32);
  }

  /** One at a time for a tenant's repository: the caller holds a lock. */
  open(wish: RelayWish): RelaySession {
    const name = this.nameOf(wish.tenant, wish.repository);
    const session = new RelaySession(name, wish, this.#policy, () => {
      if (this.#sessions.get(name) === session) this.#sessions.delete(name);
      this.#log.info({ tenant: wish.tenant, repository: wish.repository, bytes: session.bytes }, 'registry transfer ended');
    });
    this.#sessions.set(name, session);
    return session;
  }

  async #onRequest(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    response.setHeader('docker-distribution-api-version', 'registry/2.0');
    const url = URL.parse(incoming.url ?? '/', 'http://relay');
    if (url?.pathname === '/v2/') {
      sendJson(response, 200, {});
      return;
    }
    const parsed = /^\/v2\/([0-9a-f]{32})\/(.+?)\/((?:manifests|tags)\/[^/]+|blobs\/(?:uploads\/)?[^/]*)$/.exec(
      url?.pathname ?? '',
    );
    const session = this.#sessions.get(parsed?.[1] ?? '');
    if (url === null || session === undefined || session.path !== parsed?.[2]) {
      sendFaults(response, 404, [{ code: 'NAME_UNKNOWN', message: 'repository name not known to registry' }]);
      return;
    }
    const request = { session, rest: parsed[3] ?? '', query: url.searchParams, incoming, response };
    try {
      await answerFor(request)(request);
    } catch (error) {
      refuse(request, error);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const session of this.#sessions.values()) session.fail(dockerError(503, 'ecluse: the node is stopping'));
    await Promise.all(
      this.#servers.map(async (server) => {
        const { promise, resolve } = Promise.withResolvers<undefined>();
        server.close(() => {
          resolve(undefined);
        });
        server.closeAllConnections();
        await promise;
      }),
    );
  }
}

function addressOf(server: Server): AddressInfo {
  const address = server.address();
  if (typeof address !== 'object' || address === null) throw new Error('the relay has no port');
  return address;
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  const text = JSON.stringify(value);
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) });
  response.end(text);
}

function sendFaults(
  response: ServerResponse,
  status: number,
  errors: readonly { readonly code: string; readonly message: string }[],
): void {
  sendJson(response, status, { errors });
}

/** What an engine gets for a fault. Words of the registry pass; a fault of ours ends the session, and the tenant gets its words from there. */
function refuse({ session, rest, response }: RelayRequest, error: unknown): void {
  if (response.headersSent || response.destroyed) {
    response.destroy();
    return;
  }
  if (error instanceof RegistryError) {
    const faults = error.faults.map(({ code, message, detail }) => ({
      code,
      message,
      ...(detail === undefined || detail === null ? {} : { detail: {} }),
    }));
    sendFaults(response, error.status, faults);
    return;
  }
  if (error instanceof EcluseError) {
    session.lastFault = error;
    // A blob is asked for again; without a manifest there is nothing to do, and what is refused stays so.
    if (!rest.startsWith('blobs/') || !(error instanceof RegistryUnavailable)) session.fail(error);
  }
  sendFaults(response, 502, [{ code: 'UNKNOWN', message: 'the registry cannot be reached' }]);
}

function answerFor({ rest, incoming, session }: RelayRequest): Answer {
  const { method = 'GET' } = incoming;
  const isRead = method === 'GET' || method === 'HEAD';
  session.signal.throwIfAborted();
  if (rest === 'tags/list' && method === 'GET') return sendTags;
  if (rest.startsWith('manifests/') && isRead) return sendManifest;
  if (rest.startsWith('manifests/') && method === 'PUT') return takeManifest;
  if (rest === 'blobs/uploads/' && method === 'POST') return beginUpload;
  if (rest.startsWith('blobs/uploads/')) return goOnUpload;
  if (rest.startsWith('blobs/') && isRead) return sendBlob;
  return unknownCall;
}

async function unknownCall({ response }: RelayRequest): Promise<void> {
  sendFaults(response, 405, [{ code: 'UNSUPPORTED', message: 'the operation is unsupported' }]);
  await Promise.resolve();
}

async function sendManifest({ session, rest, incoming, response }: RelayRequest): Promise<void> {
  const reference = manifestReference(rest.slice('manifests/'.length));
  const { type, digest, body } = await fetchManifest(session, reference, incoming.method === 'HEAD' ? 'HEAD' : undefined);
  response.writeHead(200, { 'content-type': type, 'docker-content-digest': digest, 'content-length': body.length });
  response.end(incoming.method === 'HEAD' ? undefined : body);
}

async function sendBlob({ session, rest, incoming, response }: RelayRequest): Promise<void> {
  const digest = decodeURIComponent(rest.slice('blobs/'.length));
  if (!DIGEST.test(digest)) throw dockerError(400, 'invalid digest');
  const { range } = incoming.headers;
  const answer = await session.client.call({
    method: incoming.method === 'HEAD' ? 'HEAD' : 'GET',
    target: targetOf(session, `blobs/${digest}`),
    headers: range === undefined ? {} : { range },
  });
  await throwUnlessGood(answer);
  const { 'content-length': length, 'content-range': contentRange } = answer.headers;
  response.writeHead(answer.statusCode === 206 ? 206 : 200, {
    'content-type': 'application/octet-stream',
    'docker-content-digest': digest,
    ...(length === undefined ? {} : { 'content-length': length }),
    ...(contentRange === undefined ? {} : { 'content-range': contentRange }),
  });
  if (incoming.method === 'HEAD') {
    answer.resume();
    response.end();
    return;
  }
  const hash = createHash('sha256');
  await pipeline(
    answer,
    async function* counted(source: IncomingMessage) {
      for await (const chunk of chunksOf(source)) {
        session.count(chunk.length);
        session.signal.throwIfAborted();
        hash.update(chunk);
        yield chunk;
      }
    },
    response,
  );
  if (answer.statusCode === 200 && `sha256:${hash.digest('hex')}` === digest) session.proven.add(digest);
}

async function sendTags({ session, query, response }: RelayRequest): Promise<void> {
  sendJson(response, 200, { name: session.name, tags: await fetchTags(session, query) });
}
