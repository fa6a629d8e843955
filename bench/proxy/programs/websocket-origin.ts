/** A WebSocket origin: accepts every upgrade and sends each message back. Port in argv. Frames up to 125 bytes, as the client here sends. */
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';

const WEBSOCKET_GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const LENGTH_MASK = 0x7f;
/** Head of two bytes and a mask of four. */
const MASKED_HEAD_BYTES = 6;

const server = createServer((_request, response) => response.writeHead(426).end());
server.on('upgrade', (request: IncomingMessage, socket: Duplex) => {
  const accept = createHash('sha1')
    .update(`${request.headers['sec-websocket-key'] ?? ''}${WEBSOCKET_GUID}`)
    .digest('base64');
  const head = [
    'HTTP/1.1 101 Switching Protocols',
    'Upgrade: websocket',
    'Connection: Upgrade',
    `Sec-WebSocket-Accept: ${accept}`,
  ];
  socket.write(`${head.join('\r\n')}\r\n\r\n`);
  socket.on('error', () => undefined); // The client ended.
  let rest: Buffer = Buffer.alloc(0);
  socket.on('data', (piece: Buffer) => {
    rest = answerFrames(socket, rest.length === 0 ? piece : Buffer.concat([rest, piece]));
  });
});
server.listen(Number(process.argv[2]), '127.0.0.1');
process.stdin
  .on('end', () => {
    // oxlint-disable-next-line unicorn/no-process-exit -- the program's own end
    process.exit(0);
  })
  .resume();

/** Answers whole frames; returns what is left of a frame that has not come yet. */
function answerFrames(socket: Duplex, bytes: Buffer): Buffer {
  let at = 0;
  while (bytes.length - at >= MASKED_HEAD_BYTES) {
    const length = (bytes[at + 1] ?? 0) & LENGTH_MASK;
    const end = at + MASKED_HEAD_BYTES + length;
    if (bytes.length < end) break;
    const answer = Buffer.allocUnsafe(2 + length);
    answer[0] = bytes[at] ?? 0;
    answer[1] = length;
    for (let index = 0; index < length; index += 1) {
      answer[2 + index] = (bytes[at + MASKED_HEAD_BYTES + index] ?? 0) ^ (bytes[at + 2 + (index & 3)] ?? 0);
    }
    socket.write(answer);
    at = end;
  }
  return bytes.subarray(at);
}
