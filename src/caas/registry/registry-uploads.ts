/** The way of an engine's pushes: uploads of blobs, wherever the registry wants them, and manifests. */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { chunksOf, readWhole } from '#caas/byte-stream.ts';
import { dockerError } from '#caas/docker-api/docker-error.ts';
import { RegistryError, throwUnlessGood } from './registry-client.ts';
import { DIGEST, digestOf, MANIFEST_BYTES_MAX, MANIFEST_TYPES, manifestReference, targetOf } from './registry-manifests.ts';
import type { RelaySession } from './registry-session.ts';

/** Uploads of one push that are begun and not ended; an engine has five at a time. */
const UPLOADS_MAX = 1000;

/** One request of an engine to the relay. */
export interface RelayRequest {
  readonly session: RelaySession;
  /** `manifests/latest`, `blobs/sha256:…`, `blobs/uploads/…`, `tags/list`. */
  readonly rest: string;
  readonly query: URLSearchParams;
  readonly incoming: IncomingMessage;
  readonly response: ServerResponse;
}

export async function takeManifest({ session, rest, incoming, response }: RelayRequest): Promise<void> {
  const reference = manifestReference(rest.slice('manifests/'.length));
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
export async function beginUpload({ session, incoming, response }: RelayRequest): Promise<void> {
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

const PASSED = ['content-length', 'content-range', 'content-type'] as const;

function passedHeaders({ headers }: IncomingMessage): OutgoingHttpHeaders {
  return Object.fromEntries(PASSED.flatMap((name) => (headers[name] === undefined ? [] : [[name, headers[name]]])));
}

/** What an engine uploads, counted. */
function bodyOf(session: RelaySession, incoming: IncomingMessage): { readonly body?: Readable } {
  if (incoming.method !== 'PATCH' && incoming.method !== 'PUT') return {};
  const counted = async function* counted(): AsyncGenerator<Buffer> {
    for await (const chunk of chunksOf(incoming)) {
      session.count(chunk.length);
      yield chunk;
    }
  };
  return { body: Readable.from(counted(), { objectMode: false }) };
}

export async function goOnUpload({ session, rest, query, incoming, response }: RelayRequest): Promise<void> {
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
  const answer = await session.client.call({ method, target, headers: passedHeaders(incoming), ...bodyOf(session, incoming) });
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
