/**
 * What an ADD fetches from the web. Engines do not: one would follow a redirect to its own loopback interface. The file is fetched here, from
 * public addresses only, every hop checked, and goes to the engine as an image that has nothing else in it.
 */
import { lookup } from 'node:dns';
import { request as httpRequest } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { isIP } from 'node:net';
import type { LookupFunction } from 'node:net';
import { posix } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { pack } from 'tar-stream';
import type { Pack } from 'tar-stream';
import { reasonOf } from '#errors';
import type { EcluseError } from '#errors';
import { readWhole } from '#caas/byte-stream.ts';
import { dockerError } from '#caas/docker-api/docker-error.ts';
import { failureOf, jsonLines } from '#caas/engine/engine-progress.ts';
import type { Host } from '#caas/host.ts';
import { isForeignAddress } from '#caas/registry/registry-access.ts';
import type { RemoteFile } from './dockerfile-rewrite.ts';

const REDIRECTS_MAX = 5;
/** A connection on which nothing moves any more. */
const IDLE_LIMIT_MS = 60_000;
const BYTES_MAX = 2 * 1024 * 1024 * 1024;
/** An archive begins with the size of its file: a file whose server does not tell it is held in memory. */
const UNTOLD_BYTES_MAX = 16 * 1024 * 1024;
/** Names that no pattern of COPY means something else by. */
const PLAIN_NAME = /^[A-Za-z0-9_+@%~=,-][A-Za-z0-9._+@%~=,-]{0,254}$/;
/** Docker's name for a file without one. */
const UNNAMED = '__unnamed__';

export interface FetchOptions {
  readonly signal: AbortSignal;
  readonly mayReach?: (address: string) => boolean;
}

function failed(reason: string): EcluseError {
  return dockerError(500, `ADD failed: ${reason}`);
}

/** Resolves to addresses that may be connected to; the connection uses just these, so that a second answer of a name server cannot differ. */
function checkedLookup(mayReach: (address: string) => boolean): LookupFunction {
  return (hostname, options, callback) => {
    lookup(hostname, { all: true, verbatim: true }, (error, all) => {
      const allowed = error === null ? all.filter(({ address }) => mayReach(address)) : [];
      const [first] = allowed;
      // A name that exists in private only is answered as one that does not.
      if (first === undefined) callback(error ?? Object.assign(new Error('no public address'), { code: 'ENOTFOUND' }), '', 0);
      else if (options.all === true) callback(null, allowed);
      else callback(null, first.address, first.family);
    });
  };
}

async function get(url: URL, { signal, mayReach = isForeignAddress }: FetchOptions): Promise<IncomingMessage> {
  const literal = url.hostname.replace(/^\[|\]$/g, '');
  const isRefused = isIP(literal) !== 0 && !mayReach(literal);
  const isHttp = url.protocol === 'http:' || url.protocol === 'https:';
  if (isRefused || !isHttp || url.username !== '' || url.password !== '') {
    throw failed(
      `ecluse: ${url.host} is not fetched from: a build reads public addresses, without a name and password in the URL`,
    );
  }
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const send = url.protocol === 'http:' ? httpRequest : httpsRequest;
  const outgoing = send(url, { signal, agent: false, lookup: checkedLookup(mayReach), timeout: IDLE_LIMIT_MS }, resolve);
  outgoing.once('timeout', () => outgoing.destroy(new Error('nothing came for a minute')));
  outgoing.on('error', reject);
  outgoing.end();
  try {
    return await promise;
  } catch (error) {
    const isUnknown = error instanceof Error && 'code' in error && error.code === 'ENOTFOUND';
    throw failed(
      `Get ${JSON.stringify(url.href)}: ${isUnknown ? `lookup ${url.hostname}: no such host, or no public one` : reasonOf(error)}`,
    );
  }
}

/** The answer with the file, behind redirects. */
async function follow(start: URL, options: FetchOptions): Promise<IncomingMessage> {
  let url = start;
  for (let hop = 0; hop <= REDIRECTS_MAX; hop += 1) {
    const response = await get(url, options);
    const status = response.statusCode ?? 0;
    if (status >= 200 && status < 300) return response;
    response.destroy();
    const next = response.headers.location;
    if (status < 300 || status >= 400 || next === undefined) {
      throw failed(`failed to GET ${start.href} with status ${String(status)} ${response.statusMessage ?? ''}`.trim());
    }
    const target = URL.parse(next, url);
    if (target === null) throw failed(`failed to GET ${start.href}: it leads to no URL`);
    url = target;
  }
  throw failed(`Get ${JSON.stringify(start.href)}: stopped after ${String(REDIRECTS_MAX)} redirects`);
}

/** The name that the file gets in a directory: of the URL, or of the answer. */
function nameOf(url: URL, response: IncomingMessage): string | undefined {
  const last = url.pathname.endsWith('/') ? '' : posix.basename(url.pathname);
  const told = /(?:^|;)\s*filename="?([^";]+)"?/i.exec(response.headers['content-disposition'] ?? '')?.[1] ?? '';
  const name = last === '' ? posix.basename(told) : decodedName(last);
  if (name === '') return undefined;
  if (PLAIN_NAME.test(name)) return name;
  throw failed(`ecluse: the file name ${JSON.stringify(name.slice(0, 100))} has characters that are not taken`);
}

function decodedName(name: string): string {
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

interface Fetched {
  readonly name: string | undefined;
  readonly bytes: number;
  readonly modified: Date;
  readonly content: Readable;
}

export async function fetchFile(text: string, options: FetchOptions): Promise<Fetched> {
  const url = URL.parse(text);
  if (url === null) throw failed(`${text.slice(0, 200)} is no URL`);
  const response = await follow(url, options);
  const name = nameOf(url, response);
  const modified = new Date(response.headers['last-modified'] ?? 0);
  const facts = { name, modified: Number.isNaN(modified.getTime()) ? new Date(0) : modified };
  const length = response.headers['content-length'];
  if (length === undefined) {
    const whole = await readWhole(response, UNTOLD_BYTES_MAX);
    if (whole !== undefined) return { ...facts, bytes: whole.length, content: Readable.from([whole]) };
    response.destroy();
    throw failed(
      `ecluse: ${url.host} does not tell the size of the file, and it has more than ${String(UNTOLD_BYTES_MAX)} bytes`,
    );
  }
  const bytes = Number(length);
  if (Number.isSafeInteger(bytes) && bytes <= BYTES_MAX) return { ...facts, bytes, content: response };
  response.destroy();
  throw failed(`ecluse: the file has ${length.slice(0, 20)} bytes; it can have ${String(BYTES_MAX)}`);
}

/** Writes the one file of an archive. What goes wrong makes the archive fail. */
async function writeFile(archive: Pack, name: string, file: Fetched, url: string): Promise<void> {
  try {
    await pipeline(file.content, archive.entry({ name, mode: 0o600, mtime: file.modified, size: file.bytes }));
    archive.finalize();
  } catch (error) {
    archive.destroy(failed(`Get ${JSON.stringify(url)}: ${reasonOf(error)}`));
  }
}

/** Brings a file to an engine. */
export async function bringFile(host: Pick<Host, 'client'>, url: string, options: FetchOptions): Promise<RemoteFile> {
  const file = await fetchFile(url, options);
  const archive = pack();
  archive.on('error', () => undefined); // The engine's call fails with it.
  const name = file.name ?? UNNAMED;
  const writing = writeFile(archive, name, file, url);
  try {
    const headers = { 'content-type': 'application/x-tar' };
    const call = {
      method: 'POST',
      path: ['images', 'create'],
      query: { fromSrc: '-' },
      headers,
      signal: options.signal,
    } as const;
    const answer = await host.client.stream(call, Readable.from(archive, { objectMode: false }));
    let imageId = '';
    for await (const line of jsonLines(answer)) {
      const failure = failureOf(line);
      if (failure !== undefined) throw failed(failure);
      imageId = /sha256:[0-9a-f]{64}/.exec(String(line['status']))?.[0] ?? imageId;
    }
    if (imageId === '') throw failed('the engine took no file');
    return { imageId, path: `/${name}`, isNamed: file.name !== undefined };
  } finally {
    file.content.destroy();
    await writing;
  }
}
