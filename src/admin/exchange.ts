/** One request to the admin API: its body in, its answer out. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { EcluseError, reasonOf } from '#errors';
import { apiErrorOf, badRequest, statusOf } from './api-error.ts';
import { isKnownTag } from './entity-tag.ts';
import { exactJson } from './exact-json.ts';
import { BODY_BYTES_MAX } from './limits.ts';

export interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly query: URLSearchParams;
  /** What the route's path captured, decoded. */
  readonly captured: Readonly<Record<string, string>>;
}

/** The body as JSON. Errors: ECLUSE_REQUEST_INVALID, ECLUSE_REQUEST_TOO_LARGE. */
export async function readJson({ request }: Exchange, bytesMax = BODY_BYTES_MAX): Promise<unknown> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request) {
    if (!Buffer.isBuffer(chunk)) continue; // Nobody sets an encoding, so every chunk is one.
    length += chunk.length;
    if (length > bytesMax) {
      throw new EcluseError({
        code: 'ECLUSE_REQUEST_TOO_LARGE',
        source: 'usage',
        message: `the body of the request has more than ${String(bytesMax)} bytes`,
        status: 413,
      });
    }
    chunks.push(chunk);
  }
  if (length === 0) throw badRequest('the request has no body', 'send a JSON object');
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch (error) {
    throw badRequest(`the body of the request is not JSON: ${reasonOf(error)}`);
  }
}

/** `etag`: what the client may ask by. Whoever has that already gets 304, and no body. */
export function sendJson({ request, response }: Exchange, status: number, value: unknown, etag?: string): void {
  if (etag !== undefined) response.setHeader('etag', etag);
  // What is asked for again is asked of us again: a cache may keep it to save the body, never to save the question.
  response.setHeader('cache-control', etag === undefined ? 'no-store' : 'no-cache');
  if (etag !== undefined && request.method === 'GET' && isKnownTag(request.headers['if-none-match'], etag)) {
    response.writeHead(304).end();
    return;
  }
  const body = `${exactJson(value)}\n`;
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) });
  response.end(body);
}

/** Answers with an error; where the answer has begun already, with a last line that says so. */
export function sendError(exchange: Exchange, thrown: unknown): void {
  const { response } = exchange;
  const body = { error: apiErrorOf(thrown) };
  if (!response.headersSent) sendJson(exchange, statusOf(thrown), body);
  else if (!response.writableEnded) response.end(`${exactJson(body)}\n`);
}

/** Queries have no repeated keys here: the last one counts. */
export function queryOf({ query }: Exchange): Readonly<Record<string, string>> {
  return Object.fromEntries(query);
}
