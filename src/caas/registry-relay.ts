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
import { createHash, createHmac, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import type { IncomingMessage, OutgoingHttpHeaders, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import * as z from 'zod';
import { EcluseError, reasonOf } from '#errors';
import type { Log } from '#log';
import { chunksOf, readWhole } from './byte-stream.ts';
import { dockerError } from './docker-api/docker-error.ts';
import { RegistryClient, RegistryError, throwUnlessGood } from './registry-client.ts';
import type { RegistryTarget } from './registry-client.ts';
import type { RegistryPolicy } from './registry-access.ts';

/** As in registries (OCI distribution: 4 MiB). */
const MANIFEST_BYTES_MAX = 4 * 1024 * 1024;
/** Of one pull or push: the largest images in use are some ten gigabytes, and the engine's disk is shared. */
export const TRANSFER_BYTES_MAX = 32 * 1024 ** 3;
/** Uploads of one push that are begun and not ended; an engine has five at a time. */
const UPLOADS_MAX = 1000;
const DIGEST = /^sha256:[0-9a-f]{64}$/;
const TAG = /^\w[\w.-]{0,127}$/;

const MANIFEST_TYPES = [
  'application/vnd.docker.distribution.manifest.v2+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.oci.image.index.v1+json',
];

const descriptor = z.object({ digest: z.string().regex(DIGEST) });
const imageManifest = z.object({ config: descriptor, layers: z.array(descriptor).max(1000) });
const listManifest = z.object({
  manifests: z
    .array(
      descriptor.extend({ platform: z.object({ os: z.string().default(''), architecture: z.string().default('') }).optional() }),
    )
    .max(1000),
});
const tagsAnswer = z.object({ tags: z.array(z.string().regex(TAG)).nullish() });

export interface PulledManifest {
  readonly digest: string;
  readonly config: string;
  readonly layers: readonly string[];
}

export interface RelayWish {
  readonly tenant: string;
  /** `docker.io/library/busybox`. */
  readonly repository: string;
  readonly target: Omit<RegistryTarget, 'signal'>;
  readonly signal: AbortSignal | undefined;
  /** Tags that a pull of all tags may take. */
  readonly tagsMax: number;
}

/** One pull or push under way. */
export class RelaySession implements Disposable {
  /** The repository's name on an engine, behind the relay's address. */
  readonly name: string;
  readonly path: string;
  readonly client: RegistryClient;
  readonly tagsMax: number;
  /** Manifests of images (not of lists) that the registry gave. */
  readonly manifests: PulledManifest[] = [];
  /** Manifests that lists named, with their platforms (`linux/amd64`). */
  readonly listed = new Map<string, string>();
  /** Blobs whose whole content came from the registry in this session, so that the tenant has it. */
  readonly proven = new Set<string>();
  readonly uploads = new Map<string, URL>();
  bytes = 0;
  /** Why it must end; what the engine says then is a consequence. */
  failure: EcluseError | undefined;
  /** What went wrong last with the registry; an engine may have tried again since. */
  lastFault: EcluseError | undefined;
  readonly #stop = new AbortController();
  readonly #onEnd: () => void;

  constructor(name: string, wish: RelayWish, policy: RegistryPolicy, onEnd: () => void) {
    this.path = wish.repository.slice(wish.repository.indexOf('/') + 1);
    this.name = `${name}/${this.path}`;
    this.tagsMax = wish.tagsMax;
    this.#onEnd = onEnd;
    wish.signal?.addEventListener('abort', () => {
      this.#stop.abort();
    });
    if (wish.signal?.aborted === true) this.#stop.abort();
    this.client = new RegistryClient(policy, { ...wish.target, signal: this.#stop.signal });
  }

  /** Aborts when the client went away or the session failed. */
  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  fail(error: EcluseError): void {
    this.failure ??= error;
    this.#stop.abort();
  }

  count(bytes: number): void {
    this.bytes += bytes;
    if (this.bytes > TRANSFER_BYTES_MAX) {
      this.fail(dockerError(413, `ecluse: the image is larger than ${String(TRANSFER_BYTES_MAX)} bytes`));
    }
  }

  [Symbol.dispose](): void {
    this.#stop.abort();
    this.client[Symbol.dispose]();
    this.#onEnd();
  }
}

interface RelayRequest {
  readonly session: RelaySession;
  /** `manifests/latest`, `blobs/sha256:…`, `blobs/uploads/…`, `tags/list`. */
  readonly rest: string;
  readonly query: URLSearchParams;
  readonly incoming: IncomingMessage;
  readonly response: ServerResponse;
}

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
    const request = { session, rest: parsed?.[3] ?? '', query: url.searchParams, incoming, response };
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
    // A blob is asked for again; a refusal of ours stays one, and without a manifest there is nothing to do.
    if (!rest.startsWith('blobs/') || error.status < 500) session.fail(error);
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

function targetOf(session: RelaySession, rest: string): string {
  return `/v2/${session.path}/${rest}`;
}

function digestOf(content: Buffer): string {
  return `sha256:${createHash('sha256').update(content).digest('hex')}`;
}

const manifestUnsupported = (): EcluseError =>
  dockerError(
    400,
    'ecluse: the registry has this image in a format that is not taken (manifest schema 1); push it there again with a newer Docker',
  );

/**
 * A manifest of the registry, whole and checked. Also where an engine only asks whether it is there: it may have the manifest itself from somebody's
 * earlier pull, and would believe the digest that the registry says.
 */
export async function fetchManifest(
  session: RelaySession,
  reference: string,
): Promise<{ readonly type: string; readonly digest: string; readonly body: Buffer }> {
  const answer = await session.client.call({
    method: 'GET',
    target: targetOf(session, `manifests/${reference}`),
    headers: { accept: MANIFEST_TYPES.join(', ') },
  });
  await throwUnlessGood(answer);
  const type = (answer.headers['content-type'] ?? '').split(';')[0]?.trim() ?? '';
  if (!MANIFEST_TYPES.includes(type)) throw manifestUnsupported();
  const body = await readWhole(answer, MANIFEST_BYTES_MAX);
  if (body === undefined) throw dockerError(413, `ecluse: the manifest is larger than ${String(MANIFEST_BYTES_MAX)} bytes`);
  const digest = digestOf(body);
  if (DIGEST.test(reference) && digest !== reference)
    throw dockerError(502, `manifest verification failed for digest ${reference}`);
  rememberManifest(session, digest, body);
  session.count(body.length);
  return { type, digest, body };
}

async function sendManifest({ session, rest, incoming, response }: RelayRequest): Promise<void> {
  const reference = decodeURIComponent(rest.slice('manifests/'.length));
  if (!DIGEST.test(reference) && !TAG.test(reference)) throw dockerError(400, 'invalid reference format');
  const { type, digest, body } = await fetchManifest(session, reference);
  response.writeHead(200, { 'content-type': type, 'docker-content-digest': digest, 'content-length': body.length });
  response.end(incoming.method === 'HEAD' ? undefined : body);
}

function rememberManifest(session: RelaySession, digest: string, body: Buffer): void {
  const value = parseJson(body);
  const list = listManifest.safeParse(value);
  if (list.success) {
    for (const one of list.data.manifests)
      session.listed.set(one.digest, `${one.platform?.os ?? ''}/${one.platform?.architecture ?? ''}`);
    return;
  }
  const parsed = imageManifest.safeParse(value);
  if (!parsed.success) throw dockerError(502, 'ecluse: the registry gave a manifest that is none');
  const { config, layers } = parsed.data;
  session.manifests.push({ digest, config: config.digest, layers: layers.map((layer) => layer.digest) });
}

function parseJson(body: Buffer | undefined): unknown {
  try {
    const value: unknown = JSON.parse(body?.toString('utf8') ?? '');
    return value;
  } catch {
    return undefined;
  }
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
  const page = new URLSearchParams();
  for (const key of ['n', 'last']) {
    const value = query.get(key);
    if (value !== null) page.set(key, value);
  }
  const answer = await session.client.call({ method: 'GET', target: `${targetOf(session, 'tags/list')}?${page.toString()}` });
  await throwUnlessGood(answer);
  const body = await readWhole(answer, MANIFEST_BYTES_MAX);
  const parsed = tagsAnswer.safeParse(parseJson(body));
  if (!parsed.success) throw dockerError(502, 'ecluse: the registry gave a list of tags that is none');
  const tags = parsed.data.tags ?? [];
  if (tags.length > session.tagsMax) {
    throw dockerError(
      403,
      `ecluse: the repository has ${String(tags.length)} tags, and the quota of images leaves room for ${String(session.tagsMax)}`,
    );
  }
  sendJson(response, 200, { name: session.name, tags });
}

async function takeManifest({ session, rest, incoming, response }: RelayRequest): Promise<void> {
  const reference = decodeURIComponent(rest.slice('manifests/'.length));
  if (!DIGEST.test(reference) && !TAG.test(reference)) throw dockerError(400, 'invalid reference format');
  const body = await readWhole(incoming, MANIFEST_BYTES_MAX);
  if (body === undefined) throw dockerError(413, `ecluse: the manifest is larger than ${String(MANIFEST_BYTES_MAX)} bytes`);
  const answer = await session.client.call({
    method: 'PUT',
    target: targetOf(session, `manifests/${reference}`),
    headers: { 'content-type': incoming.headers['content-type'] ?? MANIFEST_TYPES[0], 'content-length': body.length },
    body,
  });
  await throwUnlessGood(answer);
  answer.resume();
  session.count(body.length);
  const digest = digestOf(body);
  response.writeHead(201, { 'docker-content-digest': digest, location: targetFor(session, `manifests/${digest}`) });
  response.end();
}

/** A path of the relay. */
function targetFor(session: RelaySession, rest: string): string {
  return `/v2/${session.name}/${rest}`;
}

/** The head of an answer about an upload: where it goes on is kept here, the engine gets a name for it. */
function uploadHead(session: RelaySession, id: string, answer: IncomingMessage, at: URL): OutgoingHttpHeaders {
  const { location, range } = answer.headers;
  const next = location === undefined ? at : URL.parse(location, at);
  if (next === null) throw dockerError(502, 'ecluse: the registry gave no place for an upload');
  session.uploads.set(id, next);
  return {
    location: targetFor(session, `blobs/uploads/${id}`),
    'docker-upload-uuid': id,
    'content-length': 0,
    ...(range === undefined ? {} : { range }),
  };
}

/** Without `mount` and `from`: what an engine remembers of other repositories is not for this tenant to use. */
async function beginUpload({ session, incoming, response }: RelayRequest): Promise<void> {
  incoming.resume();
  if (session.uploads.size >= UPLOADS_MAX) throw dockerError(400, 'ecluse: too many uploads in one push');
  const target = targetOf(session, 'blobs/uploads/');
  const answer = await session.client.call({ method: 'POST', target, headers: { 'content-length': 0 } });
  await throwUnlessGood(answer);
  answer.resume();
  const at = new URL(target, await session.client.origin());
  response.writeHead(202, uploadHead(session, randomUUID(), answer, at));
  response.end();
}

async function goOnUpload({ session, rest, query, incoming, response }: RelayRequest): Promise<void> {
  const id = rest.slice('blobs/uploads/'.length);
  const at = session.uploads.get(id);
  const { method } = incoming;
  if (at === undefined || (method !== 'PATCH' && method !== 'PUT' && method !== 'GET' && method !== 'DELETE')) {
    throw new RegistryError(404, [{ code: 'BLOB_UPLOAD_UNKNOWN', message: 'blob upload unknown to registry' }]);
  }
  const target = new URL(at);
  const digest = query.get('digest');
  if (digest !== null) {
    if (!DIGEST.test(digest)) throw dockerError(400, 'invalid digest');
    target.searchParams.set('digest', digest);
  }
  const { 'content-length': length, 'content-range': contentRange, 'content-type': type } = incoming.headers;
  const body = async function* counted(): AsyncGenerator<Buffer> {
    for await (const chunk of chunksOf(incoming)) {
      session.count(chunk.length);
      yield chunk;
    }
  };
  const hasBody = method === 'PATCH' || method === 'PUT';
  const answer = await session.client.call({
    method,
    target,
    headers: {
      ...(length === undefined ? {} : { 'content-length': length }),
      ...(contentRange === undefined ? {} : { 'content-range': contentRange }),
      ...(type === undefined ? {} : { 'content-type': type }),
    },
    ...(hasBody ? { body: Readable.from(body(), { objectMode: false }) } : {}),
  });
  await throwUnlessGood(answer);
  answer.resume();
  if (answer.statusCode === 201) {
    session.uploads.delete(id);
    const told = digest ?? '';
    response.writeHead(201, {
      'docker-content-digest': told,
      location: targetFor(session, `blobs/${told}`),
      'content-length': 0,
    });
  } else response.writeHead(answer.statusCode ?? 202, uploadHead(session, id, answer, at));
  response.end();
}
