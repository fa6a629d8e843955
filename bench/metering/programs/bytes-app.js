/* oxlint-disable -- plain JavaScript: most rules here ask for types */
/** What moves bytes in a container: HTTP on 8080 (`GET /N` gives N bytes, `GET /chunked/N` as well, a POST is counted, an upgrade is an echo), an echo on 9000. */
import { createServer } from 'node:http';
import { createServer as createTcpServer } from 'node:net';

const PIECE = Buffer.alloc(64 * 1024, 'x');

function pour(response, bytes) {
  let left = bytes;
  const more = () => {
    while (left > 0 && !response.destroyed) {
      const piece = left < PIECE.length ? PIECE.subarray(0, left) : PIECE;
      left -= piece.length;
      if (!response.write(piece)) return response.once('drain', more);
    }
    response.end();
  };
  more();
}

const server = createServer((request, response) => {
  response.on('error', () => {});
  if (request.method === 'POST') {
    let bytes = 0;
    request.on('data', (chunk) => (bytes += chunk.length));
    request.on('end', () => response.end(String(bytes)));
    return;
  }
  const [, kind, size] = /^\/(chunked\/)?(\d+)$/.exec(request.url) ?? [];
  const bytes = Number(size ?? 0);
  if (kind === undefined) response.setHeader('content-length', bytes);
  pour(response, bytes);
});
server.on('upgrade', (request, socket) => {
  socket.on('error', () => {});
  socket.write(
    'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n',
  );
  socket.pipe(socket);
});
server.listen(8080);
createTcpServer((socket) => {
  socket.on('error', () => {});
  socket.pipe(socket);
}).listen(9000);
