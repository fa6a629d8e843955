/**
 * A WebSocket on a raw connection: what `/attach/ws` is. As moby's (golang.org/x/net/websocket): stdout and stderr in one stream without Docker's
 * frames, every payload of the client to stdin, and a close frame when the container's output is over.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import { chunksOf } from '#caas/byte-stream.ts';
import { dockerError } from './docker-error.ts';
import type { HijackRequest } from './request.ts';
import { FrameStripper } from './stream-frames.ts';
import { encodeClose, encodeFrame, FrameReader } from './websocket-frames.ts';

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const PROTOCOL_ERROR = 1002;
/** A client that does not close after the close frame is cut. */
const CLOSE_LIMIT_MS = 5000;

export interface WebSocketOptions {
  readonly frames: 'text' | 'binary';
  /** Opens the engine's end, once the handshake is known to be one. */
  readonly open: () => Promise<{ readonly engine: Duplex; readonly isTty: boolean }>;
}

/** The answer to a client's handshake (RFC 6455 §4.2), or a refusal. */
function handshake({ incoming }: HijackRequest): string {
  const { headers } = incoming;
  const key = headers['sec-websocket-key'] ?? '';
  const protocol = headers['sec-websocket-protocol'];
  if (headers.upgrade?.toLowerCase() !== 'websocket') throw dockerError(400, 'not websocket protocol');
  if (headers['sec-websocket-version'] !== '13') throw dockerError(400, 'missing or bad WebSocket Version');
  if (!/^[A-Za-z0-9+/]{22}==$/.test(key)) throw dockerError(400, 'mismatch challenge/response');
  if (protocol !== undefined && !/^[\w!#$%&'*+.^`|~-]{1,100}$/.test(protocol))
    throw dockerError(400, 'missing or bad WebSocket Protocol');
  const accept = createHash('sha1').update(`${key}${GUID}`).digest('base64');
  const lines = [
    'HTTP/1.1 101 Switching Protocols',
    'Upgrade: websocket',
    'Connection: Upgrade',
    `Sec-WebSocket-Accept: ${accept}`,
  ];
  if (protocol !== undefined) lines.push(`Sec-WebSocket-Protocol: ${protocol}`);
  return `${lines.join('\r\n')}\r\n\r\n`;
}

/** Joins a client's WebSocket with an engine's stream. Settles when the engine's output is over or the client is gone. */
export async function joinWebSocket(request: HijackRequest, options: WebSocketOptions): Promise<void> {
  const { socket, head, signal } = request;
  const answer = handshake(request);
  const { engine, isTty } = await options.open();
  socket.write(answer);
  engine.on('error', () => socket.destroy());
  socket.on('error', () => engine.destroy());
  socket.on('close', () => engine.destroy());
  if (head.length > 0) socket.unshift(head);
  readFrames(socket, engine);
  const stripper = isTty ? undefined : new FrameStripper();
  try {
    for await (const chunk of chunksOf(engine)) {
      for (const payload of stripper?.push(chunk) ?? [chunk]) {
        if (!socket.write(encodeFrame(options.frames, payload))) await once(socket, 'drain', { signal });
      }
    }
    if (socket.writable) closeWith(socket, encodeClose());
  } catch {
    socket.destroy(); // One of the two ends broke: there is nobody to tell.
  }
}

function closeWith(socket: Duplex, frame: Buffer): void {
  socket.end(frame);
  const cut = setTimeout(() => socket.destroy(), CLOSE_LIMIT_MS);
  socket.once('close', () => {
    clearTimeout(cut);
  });
}

/** Client to container, with backpressure. */
function readFrames(socket: Duplex, engine: Duplex): void {
  const reader = new FrameReader();
  engine.on('drain', () => socket.resume());
  socket.on('end', () => engine.destroy());
  socket.on('data', (chunk: Buffer) => {
    for (const news of reader.push(chunk)) {
      switch (news.kind) {
        case 'payload':
          if (!engine.write(news.bytes)) socket.pause();
          break;
        case 'ping':
          // A client that pings and does not read must not fill our memory with its pongs.
          if (!socket.write(encodeFrame('pong', news.bytes))) {
            socket.pause();
            socket.once('drain', () => socket.resume());
          }
          break;
        case 'close':
          closeWith(socket, encodeClose());
          engine.destroy();
          return;
        case 'broken':
          closeWith(socket, encodeClose(PROTOCOL_ERROR));
          engine.destroy();
          return;
      }
    }
  });
}
