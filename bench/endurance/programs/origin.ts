/**
 * What the endurance benchmarks' proxies lead to: answers of all sizes, streams, WebSockets, and endpoints that die in the middle of an answer.
 * argv: ports. A command asks for the bytes that the kernel took so far, and for the open connections.
 */
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Socket } from 'node:net';
import { answerCommands, endWithStdin } from '../dialogue.ts';

const WEBSOCKET_GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const PIECE = Buffer.alloc(64 * 1024, 'd');
const SMALL = Buffer.alloc(200, 'a');
const DIES_AFTER_BYTES = 100_000;
const EVENT_MS = 100;
const EVENTS_MAX = 600;

const sockets = new Set<Socket>();
let goneBytes = 0;
let requests = 0;

function sentBytes(socket: Socket): number {
  return socket.bytesWritten - socket.writableLength;
}

/** Writes `bytes` as fast as they are taken. */
function pour(response: ServerResponse, bytes: number): void {
  let left = bytes;
  const more = (): void => {
    while (left > 0 && !response.destroyed) {
      const piece = left >= PIECE.length ? PIECE : PIECE.subarray(0, left);
      left -= piece.length;
      if (!response.write(piece)) {
        response.once('drain', more);
        return;
      }
    }
    if (left === 0) response.end();
  };
  more();
}

function answerWith(response: ServerResponse, bytes: number): void {
  response.writeHead(200, { 'Content-Type': 'application/octet-stream', 'Content-Length': String(bytes) });
  if (bytes <= PIECE.length) response.end(PIECE.subarray(0, bytes));
  else pour(response, bytes);
}

function countBody(request: IncomingMessage, response: ServerResponse): void {
  let bytes = 0;
  request.on('data', (piece: Buffer) => {
    bytes += piece.length;
  });
  request.on('end', () => {
    const text = `${String(bytes)}\n`;
    response.writeHead(200, { 'Content-Type': 'text/plain', 'Content-Length': String(text.length) }).end(text);
  });
}

/** Numbered events until the client goes, or the last one. `?n=` tells how many. */
function sendEvents(response: ServerResponse, url: URL): void {
  const count = Math.min(EVENTS_MAX, Number(url.searchParams.get('n') ?? EVENTS_MAX));
  response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' });
  let number = 0;
  const timer = setInterval(() => {
    response.write(`id: ${String(number)}\ndata: tick\n\n`);
    number += 1;
    if (number < count) return;
    clearInterval(timer);
    response.end();
  }, EVENT_MS);
  response.on('close', () => {
    clearInterval(timer);
  });
}

/** Dies before its answer, or in its middle; without a word, or with a reset. */
function die(request: IncomingMessage, response: ServerResponse, how: string): void {
  const { socket } = request;
  if (how === 'head') {
    socket.destroy();
    return;
  }
  const length = how === 'length' || how === 'reset' ? { 'Content-Length': String(1024 * 1024) } : {};
  response.writeHead(200, length);
  let left = DIES_AFTER_BYTES;
  while (left > 0) {
    response.write(PIECE.subarray(0, Math.min(left, 10_000)));
    left -= 10_000;
  }
  setTimeout(() => (how === 'reset' ? socket.resetAndDestroy() : socket.destroy()), 1);
}

function serve(request: IncomingMessage, response: ServerResponse): void {
  requests += 1;
  const url = new URL(request.url ?? '/', 'http://origin');
  const { pathname } = url;
  if (request.method === 'POST') countBody(request, response);
  else if (pathname.endsWith('/16k')) answerWith(response, 16 * 1024);
  else if (pathname.endsWith('/1m')) answerWith(response, 1024 ** 2);
  else if (pathname.endsWith('/64m')) answerWith(response, 64 * 1024 ** 2);
  else if (pathname.endsWith('/stream')) {
    response.writeHead(200, { Trailer: 'X-Sum' });
    response.addTrailers({ 'X-Sum': '1' });
    pour(response, 300_000);
  } else if (pathname.endsWith('/sse')) sendEvents(response, url);
  else if (pathname.includes('/die-')) die(request, response, pathname.replace(/.*\/die-/, ''));
  else response.writeHead(200, { 'Content-Type': 'text/plain', 'Content-Length': '200' }).end(SMALL);
}

function upgrade(request: IncomingMessage, socket: Duplex): void {
  const key = `${request.headers['sec-websocket-key'] ?? ''}${WEBSOCKET_GUID}`;
  const accept = createHash('sha1').update(key).digest('base64');
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
  );
  socket.on('error', () => undefined); // The client ended.
  socket.on('end', () => socket.end());
  // Masks are zero here: what comes can go back as it is, and the client knows.
  socket.on('data', (piece: Buffer) => socket.write(piece));
}

for (const port of process.argv.slice(2)) {
  const server = createServer({ requestTimeout: 0, headersTimeout: 0, keepAliveTimeout: 300_000, noDelay: true }, serve);
  server.on('upgrade', upgrade);
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('close', () => {
      goneBytes += sentBytes(socket);
      sockets.delete(socket);
    });
  });
  server.listen({ port: Number(port), host: '127.0.0.1', backlog: 4096 });
}
answerCommands(() => {
  let bytes = goneBytes;
  for (const socket of sockets) bytes += sentBytes(socket);
  return { bytes, open: sockets.size, requests };
});
endWithStdin();
