/** Bodies of requests that wait: over TLS more of them comes after the connection was paused. */
import { createHash, randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { connect } from 'node:tls';
import type { TLSSocket } from 'node:tls';
import { describe, expect, test } from 'vitest';
import { makeCertificate } from '../../support/certificates.ts';
import { configOf, eventually, startEdge } from '../../support/edge.ts';
import { readUntil } from '../../support/http-client.ts';
import { bodyOf, startUpstream } from '../../support/upstream.ts';

const HOST = 'app.test';
const BODY = randomBytes(200_000);
const DIGEST = createHash('sha256').update(BODY).digest('hex');
const NEXT = `GET /next HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`;

function chunked(): Buffer {
  const pieces = Array.from({ length: 20 }, (_, index) => BODY.subarray(index * 10_000, (index + 1) * 10_000));
  return Buffer.concat([
    ...pieces.flatMap((piece) => [Buffer.from(`${piece.length.toString(16)}\r\n`), piece, Buffer.from('\r\n')]),
    Buffer.from('0\r\n\r\n'),
  ]);
}

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const body = await bodyOf(request);
  response.end(request.url === '/next' ? 'the next one' : createHash('sha256').update(body).digest('hex'));
}

describe('WorkerPool.freeze() over TLS', () => {
  test.for([
    ['of a known length', `Content-Length: ${String(BODY.length)}`, BODY],
    ['in chunks', 'Transfer-Encoding: chunked', chunked()],
  ] as const)(
    'a body %s that comes while its request is held arrives whole, and the next request after it',
    async ([, framing, bytes]) => {
      await using upstream = await startUpstream((request, response) => {
        void answer(request, response);
      });
      const certificate = await makeCertificate(HOST);
      await using edge = await startEdge({ config: configOf([upstream.endpoint({ id: 'c1' })]), certificates: [certificate] });
      await edge.pool.freeze(['c1'], { deadlineMs: 30_000, drainMs: 1_000 });
      const socket: TLSSocket = connect({ host: '127.0.0.1', port: edge.httpsPort, servername: HOST, rejectUnauthorized: false });
      try {
        const head = `POST /held HTTP/1.1\r\nHost: ${HOST}\r\n${framing}\r\n\r\n`;
        socket.write(Buffer.concat([Buffer.from(head), bytes, Buffer.from(NEXT)]));
        await eventually(async () => ((await edge.pool.metrics()).includes('\necluse_held_requests 1\n') ? true : undefined));
        await edge.pool.thaw(['c1']);
        const answers = await readUntil(socket, 'the next one');
        expect(answers).toContain(DIGEST);
      } finally {
        socket.destroy();
      }
    },
  );
});
