/** Clients and endpoints that go away at any moment, plain and over TLS: the worker stays, and every exchange has its line. */
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { makeCertificate } from '../../support/certificates.ts';
import { configOf, eventually, startEdge } from '../../support/edge.ts';
import type { Edge } from '../../support/edge.ts';
import { ask, readAll, readUntil } from '../../support/http-client.ts';
import { startRawUpstream } from '../../support/upstream.ts';
import type { Upstream } from '../../support/upstream.ts';

const BIG = 'x'.repeat(300_000);
const UPGRADE = 'GET /upgrade HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n';
const REQUESTS = [
  'GET /ok HTTP/1.1\r\nHost: app.test\r\n\r\n',
  'GET /ok HTTP/1.1\r\nHost: app.test\r\n\r\nGET /ok HTTP/1.1\r\nHost: app.test\r\n\r\n',
  `POST /ok HTTP/1.1\r\nHost: app.test\r\nContent-Length: ${String(BIG.length)}\r\n\r\n${BIG}`,
  `POST /ok HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nZZ\r\n`,
  'GET /half HTTP/1.1\r\nHost: app.test\r\n\r\n',
  'GET /die HTTP/1.1\r\nHost: app.test\r\n\r\n',
  'GET /silent HTTP/1.1\r\nHost: app.test\r\n\r\n',
  'GET /ok HTTP/1.0\r\nHost: app.test\r\n\r\n',
  UPGRADE,
];

function behave(socket: Socket): void {
  socket.on('data', (chunk: Buffer) => {
    const text = chunk.toString('latin1');
    if (text.includes(' /ok ')) socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${String(BIG.length)}\r\n\r\n${BIG}`);
    else if (text.includes(' /half ')) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf');
    else if (text.includes(' /die ')) socket.destroy();
    else if (text.includes(' /upgrade ')) {
      socket.removeAllListeners('data');
      socket.write('HTTP/1.1 101 Yes\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n');
      socket.pipe(socket);
    }
  });
}

describe('a worker', () => {
  let upstream: Upstream;
  let edge: Edge;

  beforeAll(async () => {
    upstream = await startRawUpstream(behave);
    edge = await startEdge({
      config: configOf([upstream.endpoint({ id: 'c1' })]),
      certificates: [await makeCertificate('app.test')],
    });
  });

  afterAll(async () => {
    await edge[Symbol.asyncDispose]();
    await upstream[Symbol.asyncDispose]();
  });

  test('survives clients that close or reset at any moment', async () => {
    const pid = edge.pool.status()[0]?.pid;
    const rounds: Promise<void>[] = [];
    for (let index = 0; index < 200; index += 1) {
      const request = REQUESTS[index % REQUESTS.length] ?? '';
      rounds.push(closeAfter({ port: edge.httpPort, tlsPort: edge.httpsPort, request, index }));
    }
    await Promise.all(rounds);
    await eventually(async () =>
      (await edge.pool.metrics()).includes('\necluse_downstream_connections 0\n') ? true : undefined,
    );
    expect(edge.pool.status()[0]?.pid).toBe(pid);
    expect((await edge.pool.freeze(['c1'], { deadlineMs: 1000, drainMs: 5000 })).cut).toBe(0);
    await edge.pool.thaw(['c1']);
    expect((await ask({ port: edge.httpPort, path: '/ok' })).body.length).toBe(BIG.length);
  });

  test('passes an upgraded stream over TLS, half-close included', async () => {
    const socket = connectTls({ host: '127.0.0.1', port: edge.httpsPort, servername: 'app.test', rejectUnauthorized: false });
    socket.allowHalfOpen = true;
    socket.write(UPGRADE);
    await readUntil(socket, '\r\n\r\n');
    socket.end(BIG);
    expect((await readAll(socket)).length).toBe(BIG.length);
  });
});

/** Sends a request and goes away after some turns of the event loop, in one of three ways. */
async function closeAfter(plan: {
  readonly port: number;
  readonly tlsPort: number;
  readonly request: string;
  readonly index: number;
}): Promise<void> {
  const { port, tlsPort, request, index } = plan;
  const tls = index % 4 === 3;
  const socket = tls
    ? connectTls({ host: '127.0.0.1', port: tlsPort, servername: 'app.test', rejectUnauthorized: false })
    : connect({ host: '127.0.0.1', port });
  const closed = readAll(socket);
  socket.write(request);
  for (let turn = 0; turn < (index * 7) % 40; turn += 1)
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
  if (index % 3 === 0) socket.end();
  else if (index % 3 === 1 || tls) socket.destroy();
  else socket.resetAndDestroy();
  // An endpoint that stays silent keeps a half-closed client waiting: it goes in the end.
  setTimeout(() => {
    socket.destroy();
  }, 1000);
  await closed;
}
