/**
 * Ping-pong over WebSockets: each connection sends its next message when the answer to the last is whole.
 * argv: port, host, connections. Each line on stdin is answered with the messages so far and the errors so far, as JSON.
 */
import { createConnection } from 'node:net';
import { createInterface } from 'node:readline';

const [, , port, host, connections] = process.argv;
const MESSAGE_BYTES = 125;
const ANSWER_BYTES = 2 + MESSAGE_BYTES;
let messages = 0;
const errors: string[] = [];

const frame = Buffer.alloc(6 + MESSAGE_BYTES, 'm');
frame.set([0x82, 0x80 | MESSAGE_BYTES, 0, 0, 0, 0]); // Binary, final, masked with zeros.

function connect(): void {
  const socket = createConnection({ port: Number(port), host: '127.0.0.1', noDelay: true });
  let head = '';
  let open = false;
  let pending = 0;
  socket.on('connect', () => {
    const fields = [
      'Connection: Upgrade',
      'Upgrade: websocket',
      'Sec-WebSocket-Version: 13',
      'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==',
    ];
    socket.write(`GET /ws HTTP/1.1\r\nHost: ${host ?? ''}\r\n${fields.join('\r\n')}\r\n\r\n`);
  });
  socket.on('data', (piece: Buffer) => {
    if (!open) {
      head += piece.toString('latin1');
      const end = head.indexOf('\r\n\r\n');
      if (end === -1) return;
      if (!head.startsWith('HTTP/1.1 101')) errors.push(head.slice(0, 60));
      open = true;
      socket.write(frame);
      return;
    }
    pending += piece.length;
    if (pending < ANSWER_BYTES) return;
    pending -= ANSWER_BYTES;
    messages += 1;
    socket.write(frame);
  });
  socket.on('error', (error) => errors.push(error.message));
  socket.on('close', () => errors.push('closed'));
}

for (let count = 0; count < Number(connections); count += 1) connect();
createInterface({ input: process.stdin })
  .on('line', () => {
    process.stdout.write(`${JSON.stringify({ messages, errors: errors.slice(0, 3), errorCount: errors.length })}\n`);
  })
  .on('close', () => {
    // oxlint-disable-next-line unicorn/no-process-exit -- the program's own end: its sockets stay open
    process.exit(0);
  });
