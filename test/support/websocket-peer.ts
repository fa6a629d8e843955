/** Both ends of a plain WebSocket for tests: an endpoint that speaks frames, and Node's own client. */
import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';

/** RFC 6455 §1.3. */
const KEY_SUFFIX = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';

/** Agrees to the switch of protocols. Gives all that the client sends from then on, as it comes. */
export function acceptWebSocket(request: IncomingMessage, socket: Duplex): Buffer[] {
  const key = request.headers['sec-websocket-key'] ?? '';
  const accept = createHash('sha1').update(`${key}${KEY_SUFFIX}`).digest('base64');
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
  );
  const received: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => received.push(chunk));
  socket.on('end', () => socket.end());
  socket.on('error', () => undefined);
  return received;
}

/** A text frame as an endpoint sends it. */
export function textFrame(text: string): Buffer {
  const payload = Buffer.from(text);
  if (payload.length < 126) return Buffer.concat([Buffer.from([0x81, payload.length]), payload]);
  return Buffer.concat([Buffer.from([0x81, 126, payload.length >> 8, payload.length & 255]), payload]);
}

/** The payload of a masked frame of less than 126 octets, with its first octet. */
export function unmask(frame: Buffer): { readonly head: number; readonly payload: Buffer } {
  const length = (frame[1] ?? 0) & 127;
  const mask = frame.subarray(2, 6);
  const payload = frame.subarray(6, 6 + length).map((octet, index) => octet ^ (mask[index % 4] ?? 0));
  return { head: frame[0] ?? 0, payload: Buffer.from(payload) };
}

export interface WebSocketEnd {
  readonly code: number;
  readonly wasClean: boolean;
  readonly messages: readonly string[];
}

export interface PlainWebSocket {
  /** Messages so far. */
  readonly messages: readonly string[];
  readonly send: (text: string) => void;
  readonly closed: Promise<WebSocketEnd>;
}

/** Connects, and returns when it is open. */
export async function openWebSocket(url: string): Promise<PlainWebSocket> {
  const socket = new WebSocket(url);
  const messages: string[] = [];
  const closed = Promise.withResolvers<WebSocketEnd>();
  const opened = Promise.withResolvers<undefined>();
  socket.addEventListener('message', ({ data }: { readonly data: unknown }) => messages.push(String(data)));
  socket.addEventListener('close', ({ code, wasClean }) => {
    closed.resolve({ code, wasClean, messages });
  });
  socket.addEventListener('open', () => {
    opened.resolve(undefined);
  });
  socket.addEventListener('error', () => {
    opened.reject(new Error('the WebSocket was refused'));
  });
  await opened.promise;
  return {
    messages,
    send: (text) => {
      socket.send(text);
    },
    closed: closed.promise,
  };
}
