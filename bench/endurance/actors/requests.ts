/** Actors that make requests with Node's own client: uploads, streams, aborts, and answers that die. */
import { Agent as PlainAgent, request as requestPlain } from 'node:http';
import type { ClientRequest, IncomingMessage } from 'node:http';
import { Agent as TlsAgent, request as requestTls } from 'node:https';
import type { Actor, Fault, Where } from './outcome.ts';

interface Answer {
  readonly status: number;
  readonly bytes: number;
  /** The first of the body. */
  readonly text: string;
  /** Whether the body came to its end. */
  readonly whole: boolean;
  readonly trailers: NodeJS.Dict<string>;
  /** What broke the exchange before or in its answer. */
  readonly code: string;
}

interface Asked {
  readonly path: string;
  readonly method?: string;
  readonly tls?: 'kept' | 'new';
  readonly fresh?: boolean;
  readonly host?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Writes the body, and ends the request. */
  readonly body?: (request: ClientRequest) => void;
  /** Gives up after that many bytes of the answer. */
  readonly abortAtBytes?: number;
}

const LIMIT_MS = 20_000;
const UPLOAD_BYTES = 64 * 1024;
const STREAM_BYTES = 300_000;
const MIB = 1024 ** 2;
const plain = new PlainAgent({ keepAlive: true, maxSockets: 64 });
const tls = new TlsAgent({ keepAlive: true, maxSockets: 8, rejectUnauthorized: false });
const tlsNew = new TlsAgent({ keepAlive: false, rejectUnauthorized: false, maxCachedSessions: 0 });

function open(where: Where, asked: Asked): ClientRequest {
  const headers = { Host: asked.host ?? where.host, ...asked.headers };
  const shared = { host: '127.0.0.1', path: asked.path, method: asked.method ?? 'GET', headers };
  if (asked.tls === undefined)
    return requestPlain({ ...shared, port: where.httpPort, agent: asked.fresh === true ? false : plain });
  const agent = asked.tls === 'kept' ? tls : tlsNew;
  return requestTls({ ...shared, port: where.httpsPort, agent, servername: where.host });
}

async function ask(where: Where, asked: Asked): Promise<Answer> {
  return await new Promise((resolve) => {
    const request = open(where, asked);
    const so = { status: 0, bytes: 0, text: '', whole: false, trailers: {} as NodeJS.Dict<string>, code: '' };
    const timer = setTimeout(() => {
      so.code = 'no end in time';
      request.destroy();
    }, LIMIT_MS);
    const done = (): void => {
      clearTimeout(timer);
      resolve(so);
    };
    request.on('response', (answer: IncomingMessage) => {
      so.status = answer.statusCode ?? 0;
      answer.on('data', (piece: Buffer) => {
        so.bytes += piece.length;
        if (so.text.length < 100) so.text += piece.toString('latin1', 0, 100);
        if (asked.abortAtBytes !== undefined && so.bytes >= asked.abortAtBytes) request.destroy();
      });
      answer.on('error', (error: NodeJS.ErrnoException) => {
        so.code = error.code ?? error.message;
      });
      answer.on('close', () => {
        so.whole = answer.complete;
        so.trailers = answer.trailers;
        done();
      });
    });
    request.on('error', (error: NodeJS.ErrnoException) => {
      if (so.code === '') so.code = error.code ?? error.message;
      if (so.status === 0) done();
    });
    if (asked.body === undefined) request.end();
    else asked.body(request);
  });
}

function faultOf(answer: Answer, status: number, bytes?: number): Fault {
  if (answer.status !== status) return `${String(answer.status)} ${answer.code} ${answer.text.slice(0, 60)}`;
  if (!answer.whole) return `cut after ${String(answer.bytes)} bytes ${answer.code}`;
  return bytes === undefined || answer.bytes === bytes ? undefined : `${String(answer.bytes)} bytes`;
}

/** An answer that its endpoint did not end must not look whole. */
function faultOfTruncated(answer: Answer): Fault {
  if (answer.status !== 200) return `${String(answer.status)} ${answer.code}`;
  if (answer.code === 'no end in time') return answer.code;
  return answer.whole ? 'a part was taken for the whole' : undefined;
}

/** Writes `UPLOAD_BYTES` in pieces of any length. */
function writeInPieces(request: ClientRequest): void {
  let left = UPLOAD_BYTES;
  while (left > 0) {
    const length = Math.min(left, 1 + Math.floor(Math.random() * 8000));
    request.write(Buffer.alloc(length, 'u'));
    left -= length;
  }
  request.end();
}

function writeAndLeave(request: ClientRequest): void {
  request.write(Buffer.alloc(100_000, 'u'));
  setTimeout(() => request.destroy(), 5);
}

async function upload(where: Where, headers: Readonly<Record<string, string>>): Promise<Fault> {
  const answer = await ask(where, { path: '/odd/post', method: 'POST', headers, body: writeInPieces });
  const fault = faultOf(answer, 200);
  return fault ?? (answer.text.trim() === String(UPLOAD_BYTES) ? undefined : `the origin got ${answer.text.trim()} bytes`);
}

async function stream(where: Where): Promise<Fault> {
  const answer = await ask(where, { path: '/odd/stream', headers: { TE: 'trailers' } });
  const fault = faultOf(answer, 200, STREAM_BYTES);
  return fault ?? (answer.trailers['x-sum'] === '1' ? undefined : 'no trailer');
}

async function abortUpload(where: Where): Promise<Fault> {
  const headers = { 'Content-Length': String(MIB) };
  const answer = await ask(where, { path: '/planned/post', method: 'POST', fresh: true, headers, body: writeAndLeave });
  return answer.status === 0 ? undefined : `${String(answer.status)} before the body was sent`;
}

async function abortDownload(where: Where): Promise<Fault> {
  const answer = await ask(where, { path: '/planned/1m', fresh: true, abortAtBytes: 100_000 });
  return answer.status === 200 ? undefined : `${String(answer.status)} ${answer.code}`;
}

export const REQUEST_ACTORS: readonly Actor[] = [
  {
    name: 'post-fixed',
    count: 2,
    pauseMs: 20,
    act: async (where) => await upload(where, { 'Content-Length': String(UPLOAD_BYTES) }),
  },
  { name: 'post-chunked', count: 2, pauseMs: 20, act: async (where) => await upload(where, {}) },
  { name: 'stream-trailers', count: 2, pauseMs: 50, act: stream },
  { name: '1m', count: 1, pauseMs: 50, act: async (where) => faultOf(await ask(where, { path: '/odd/1m' }), 200, MIB) },
  {
    name: 'new-connection',
    count: 2,
    pauseMs: 20,
    act: async (where) => faultOf(await ask(where, { path: '/odd/', fresh: true }), 200, 200),
  },
  {
    name: 'tls',
    count: 2,
    pauseMs: 20,
    act: async (where) => faultOf(await ask(where, { path: '/odd/16k', tls: 'kept' }), 200, 16_384),
  },
  {
    name: 'tls-new',
    count: 1,
    pauseMs: 50,
    act: async (where) => faultOf(await ask(where, { path: '/odd/', tls: 'new' }), 200, 200),
  },
  {
    name: 'unknown-host',
    count: 1,
    pauseMs: 100,
    act: async (where) => faultOf(await ask(where, { path: '/planned/', host: 'nobody.test' }), 404),
  },
  {
    name: 'dies-before-head',
    count: 1,
    pauseMs: 100,
    act: async (where) => faultOf(await ask(where, { path: '/planned/die-head' }), 502),
  },
  ...['length', 'chunked', 'reset'].map((how) => ({
    name: `dies-in-${how}`,
    count: 1,
    pauseMs: 100,
    act: async (where: Where): Promise<Fault> => faultOfTruncated(await ask(where, { path: `/planned/die-${how}` })),
  })),
  { name: 'abort-upload', count: 1, pauseMs: 100, act: abortUpload },
  { name: 'abort-download', count: 1, pauseMs: 100, act: abortDownload },
];
