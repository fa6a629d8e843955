/** One HTTP request to a CA: to its own origin only, with limits on time and on what comes back, and never sent twice. */
import { request as httpRequest } from 'node:http';
import type { IncomingHttpHeaders, IncomingMessage, RequestOptions } from 'node:http';
import { Agent, request as httpsRequest } from 'node:https';
import { codeOf, reasonOf } from '#errors';
import { acmeFailure } from './acme-failure.ts';

export interface CaRequest {
  readonly method: 'GET' | 'HEAD' | 'POST';
  readonly url: string;
  /** A JWS as JSON. */
  readonly body: string | undefined;
  readonly accept?: string;
}

export interface CaAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

/** Rejects with a failure of the kind `ca`. */
export type CaTransport = (request: CaRequest) => Promise<CaAnswer>;

/** A CA under load takes some seconds; who has not answered after so long has not taken the request. */
const TIMEOUT_MS = 30_000;
/** The longest answers are chains, which may have 64 KiB. */
const ANSWER_BYTES_MAX = 256 * 1024;
/** A directory is one server, and orders are few at a time. */
const SOCKETS_MAX = 8;

/** `trustedRootPem`: who signed a private CA's own server certificate; undefined: the public roots that Node knows. */
export function openTransport(
  ca: string,
  trustedRootPem: string | undefined,
): { readonly send: CaTransport; readonly close: () => void } {
  const closing = new AbortController();
  const agent = new Agent({
    keepAlive: true,
    maxSockets: SOCKETS_MAX,
    ...(trustedRootPem === undefined ? {} : { ca: [trustedRootPem] }),
  });
  return {
    send: async (request) => await send(ca, { agent, closing: closing.signal }, request),
    close: () => {
      closing.abort();
      agent.destroy();
    },
  };
}

async function send(
  ca: string,
  { agent, closing }: { readonly agent: Agent; readonly closing: AbortSignal },
  { method, url, body, accept }: CaRequest,
): Promise<CaAnswer> {
  // A directory without TLS is one of this machine (config.ts).
  const isSecure = url.startsWith('https:');
  const { promise, resolve, reject } = Promise.withResolvers<CaAnswer>();
  const options: RequestOptions = {
    method,
    signal: AbortSignal.any([AbortSignal.timeout(TIMEOUT_MS), closing]),
    headers: {
      'User-Agent': 'ecluse',
      ...(accept === undefined ? {} : { Accept: accept }),
      ...(body === undefined ? {} : { 'Content-Type': 'application/jose+json', 'Content-Length': Buffer.byteLength(body) }),
    },
  };
  const onAnswer = (answer: IncomingMessage): void => {
    resolve(readWhole(answer));
  };
  const sent = isSecure ? httpsRequest(url, { ...options, agent }, onAnswer) : httpRequest(url, options, onAnswer);
  sent.on('error', reject);
  sent.end(body);
  try {
    return await promise;
  } catch (error) {
    sent.destroy();
    throw unreachable(ca, error);
  }
}

async function readWhole(answer: IncomingMessage): Promise<CaAnswer> {
  const pieces: Buffer[] = [];
  let length = 0;
  for await (const piece of answer) {
    if (!Buffer.isBuffer(piece)) continue;
    length += piece.length;
    if (length > ANSWER_BYTES_MAX) throw new Error(`its answer has more than ${String(ANSWER_BYTES_MAX / 1024)} KiB`);
    pieces.push(piece);
  }
  return { status: answer.statusCode ?? 0, headers: answer.headers, body: Buffer.concat(pieces) };
}

function unreachable(ca: string, error: unknown): Error {
  const isLate = codeOf(error) === 'ABORT_ERR' || (error instanceof Error && error.name === 'TimeoutError');
  const why = isLate ? `it did not answer in ${String(TIMEOUT_MS / 1000)} s` : reasonOf(error);
  return acmeFailure('ca', `${ca} cannot be used: ${why}`, {
    mend: 'it is tried again by itself; check the URL of the directory, and trustedRoot where it is a private CA',
  });
}
