/** Proofs that CAs look for, shown by real workers, while everybody else is served as ever. */
import { once } from 'node:events';
import { request } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { connect as connectPlain } from 'node:net';
import { connect } from 'node:tls';
import { afterEach, expect, test } from 'vitest';
import { newChallengeCertificate } from '#tls/acme/certificate-request.ts';
import { NO_PROOFS } from '#tls/acme/shown-proofs.ts';
import { makeCertificate } from '../../support/certificates.ts';
import { configOf, eventually, startEdge } from '../../support/edge.ts';
import type { Edge, EdgeOptions } from '../../support/edge.ts';

const PATH = '/.well-known/acme-challenge/';
const TOKENS = { http: [{ token: 'token-1', keyAuthorization: 'token-1.thumbprint' }], tls: [] };

let edge: Edge | undefined;

afterEach(async () => {
  await edge?.[Symbol.asyncDispose]();
});

async function open(options: Partial<EdgeOptions> = {}): Promise<Edge> {
  const certificates = [await makeCertificate('app.test'), await makeCertificate('*')];
  edge = await startEdge({ config: configOf([]), certificates, workers: 2, ...options });
  return edge;
}

async function get(port: number, path: string): Promise<{ readonly status: number | undefined; readonly body: string }> {
  const answered = Promise.withResolvers<IncomingMessage>();
  request({ host: '127.0.0.1', port, path, headers: { host: 'app.test' }, agent: false }, answered.resolve)
    .on('error', answered.reject)
    .end();
  const answer = await answered.promise;
  let body = '';
  for await (const piece of answer) body += String(piece);
  return { status: answer.statusCode, body };
}

/** The name that a client is shown, and the protocol that was agreed on. */
async function shown(port: number, servername: string, protocols: string[]): Promise<string> {
  const socket = connect({ host: '127.0.0.1', port, servername, ALPNProtocols: protocols, rejectUnauthorized: false });
  try {
    await once(socket, 'secureConnect');
    return `${String(socket.getPeerCertificate().subject.CN)} ${String(socket.alpnProtocol)}`;
  } finally {
    socket.destroy();
  }
}

test('HTTP-01: a token that is shown is answered before routes, by all workers, and no other; until it is over', async () => {
  const { pool, httpPort } = await open();
  await pool.show(TOKENS);
  for (let turn = 0; turn < 20; turn += 1)
    expect(await get(httpPort, `${PATH}token-1`)).toEqual({ status: 200, body: 'token-1.thumbprint' });
  // The route has no endpoint: what it gets is asked of it.
  for (const other of [`${PATH}token-2`, `${PATH}token-1/x`, PATH, '/token-1'])
    expect((await get(httpPort, other)).status).toBe(503);
  await pool.show(NO_PROOFS);
  for (let turn = 0; turn < 10; turn += 1) expect((await get(httpPort, `${PATH}token-1`)).status).toBe(503);
});

test('a worker that comes later shows it too', async () => {
  const { pool, httpPort } = await open({ workers: 1 });
  await pool.show(TOKENS);
  const [before] = pool.status();
  if (before !== undefined) process.kill(before.pid, 'SIGKILL');
  await eventually(() => pool.status().some(({ pid, state }) => pid !== before?.pid && state === 'listening') || undefined);
  expect((await get(httpPort, `${PATH}token-1`)).body).toBe('token-1.thumbprint');
});

test.each([false, true])(
  'TLS-ALPN-01, PROXY headers %s: who offers that protocol alone is shown the proof, all others what they were shown before',
  async (proxyProtocol) => {
    const { pool, httpsPort } = await open(proxyProtocol ? { trust: { trustedProxies: ['10.0.0.0/8'], proxyProtocol } } : {});
    const proof = await newChallengeCertificate('app.test', 'token-1.thumbprint', Date.now());
    await pool.show({ http: [], tls: [proof] });
    for (let turn = 0; turn < 8; turn += 1) {
      expect(await shown(httpsPort, 'app.test', ['acme-tls/1'])).toBe('ACME challenge acme-tls/1');
      expect(await shown(httpsPort, 'app.test', ['http/1.1'])).toBe('app.test http/1.1');
      expect(await shown(httpsPort, 'app.test', ['acme-tls/1', 'http/1.1'])).toBe('app.test http/1.1');
      expect(await shown(httpsPort, 'else.test', ['http/1.1'])).toBe('default.test http/1.1');
    }
    await pool.show(NO_PROOFS);
    await expect(shown(httpsPort, 'app.test', ['acme-tls/1'])).rejects.toThrow(/alert|protocol/i);
    expect(await shown(httpsPort, 'app.test', ['http/1.1'])).toBe('app.test http/1.1');
  },
);

test('clients that say nothing, or nonsense, while a proof is shown cost nobody else anything', async () => {
  const { pool, httpsPort } = await open({ workers: 1, limits: { tlsHandshakesMax: 40, tlsHandshakeTimeoutMs: 300 } });
  const proof = await newChallengeCertificate('app.test', 'token-1.thumbprint', Date.now());
  await pool.show({ http: [], tls: [proof] });
  for (let round = 0; round < 3; round += 1) {
    const silent = Array.from({ length: 30 }, (_, index) => {
      const socket = connectPlain(httpsPort, '127.0.0.1');
      socket.on('error', () => undefined);
      if (index % 3 === 1) socket.write('GET / HTTP/1.1\r\n\r\n');
      if (index % 3 === 2) socket.write(Buffer.from([22, 3, 1, 1, 0, 1, 0]));
      return once(socket.resume(), 'close');
    });
    expect(await shown(httpsPort, 'app.test', ['http/1.1'])).toBe('app.test http/1.1');
    await Promise.all(silent);
  }
  expect(await shown(httpsPort, 'app.test', ['acme-tls/1'])).toBe('ACME challenge acme-tls/1');
});
