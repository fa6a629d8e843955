/** What handshakes get of real workers: certificates of the internal CA that are asked for when they are wanted, and alerts. */
import { once } from 'node:events';
import { connect as connectPlain } from 'node:net';
import type { Socket } from 'node:net';
import { connect } from 'node:tls';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { codeOf } from '#errors';
import type { Issuing } from '#proxy/issuing.ts';
import type { EdgeCertificate } from '#tls/certificate.ts';
import type { IssuedCertificate } from '#tls/issued-certificates.ts';
import { makeCertificate } from '../../support/certificates.ts';
import { configOf, eventually, startEdge } from '../../support/edge.ts';
import type { Edge, EdgeOptions } from '../../support/edge.ts';

const UNRECOGNIZED = 'ERR_SSL_TLSV1_UNRECOGNIZED_NAME';
const INTERNAL = 'ERR_SSL_TLSV1_ALERT_INTERNAL_ERROR';
const asked: string[] = [];
let answer: Issuing;
let issued: IssuedCertificate;
let fallback: EdgeCertificate;

beforeEach(async () => {
  asked.length = 0;
  issued = { ...(await makeCertificate('app.test')), renewFromMs: Number.MAX_SAFE_INTEGER };
  fallback = await makeCertificate('*');
  answer = async () => await Promise.resolve(issued);
});

let edge: Edge | undefined;

async function open(options: Partial<EdgeOptions> = {}): Promise<Edge> {
  const config = configOf([]);
  const routes = [...config.routes, ...['*.wild.test', '*'].map((host) => ({ host, path: '/', serviceId: 'app' }))];
  edge = await startEdge({
    config: { ...config, routes },
    certificates: [fallback],
    issue: async (host) => {
      asked.push(host);
      return await answer(host);
    },
    ...options,
  });
  return edge;
}

afterEach(async () => {
  await edge?.[Symbol.asyncDispose]();
});

/** The common name of what a client is shown, or the code of what went wrong. */
async function shown(port: number, servername: string | undefined, beneath?: Socket): Promise<string> {
  const where = beneath === undefined ? { host: '127.0.0.1', port } : { socket: beneath };
  const socket = connect({ ...where, rejectUnauthorized: false, ...(servername === undefined ? {} : { servername }) });
  try {
    await once(socket, 'secureConnect');
    return String(socket.getPeerCertificate().subject.CN);
  } catch (error) {
    return codeOf(error) ?? String(error);
  } finally {
    socket.destroy();
  }
}

test('a host of a route is asked for once by each worker, whoever waits; a wildcard as such', async () => {
  const { httpsPort } = await open();
  const go = Promise.withResolvers<undefined>();
  answer = async () => {
    await go.promise;
    return issued;
  };
  const clients = Array.from({ length: 20 }, async () => await shown(httpsPort, 'APP.test'));
  await eventually(() => asked.length > 0);
  go.resolve(undefined);
  expect(new Set(await Promise.all(clients))).toEqual(new Set(['app.test']));
  expect(await shown(httpsPort, 'a.wild.test')).toBe('app.test');
  expect(await shown(httpsPort, 'b.wild.test')).toBe('app.test');
  expect(asked).toEqual(['app.test', '*.wild.test']);
});

test('what was added comes first, and nobody is asked', async () => {
  const added = { ...(await makeCertificate('a.wild.test')), hosts: ['*.wild.test'] };
  const { httpsPort } = await open({ certificates: [fallback, added] });
  expect(await shown(httpsPort, 'x.wild.test')).toBe('a.wild.test');
  expect(asked).toEqual([]);
});

test('a primary that says nothing is asked again; one that gives none ends the handshake with an alert', async () => {
  const { httpsPort } = await open();
  const late = Promise.withResolvers<undefined>();
  answer = async () => {
    if (asked.length < 3) await late.promise;
    return issued;
  };
  expect(await shown(httpsPort, 'app.test')).toBe('app.test');
  expect(asked).toEqual(['app.test', 'app.test', 'app.test']);
  late.resolve(undefined);
  answer = async () => await Promise.resolve(undefined);
  expect(await shown(httpsPort, 'a.wild.test')).toBe(INTERNAL);
  answer = async () => await Promise.reject(new Error('the disk is full'));
  expect(await shown(httpsPort, 'a.wild.test')).toBe(INTERNAL);
  answer = async () => await Promise.resolve(issued);
  expect(await shown(httpsPort, 'a.wild.test')).toBe('app.test');
});

test('clients that leave while they wait do no harm, and give their places back', async () => {
  const { httpsPort, pool } = await open({ limits: { tlsHandshakesMax: 4 } });
  const go = Promise.withResolvers<undefined>();
  answer = async () => {
    await go.promise;
    return issued;
  };
  for (let round = 1; round <= 5; round += 1) {
    const waiting = Array.from({ length: 4 }, () => connect({ host: '127.0.0.1', port: httpsPort, servername: 'app.test' }));
    for (const socket of waiting) socket.on('error', () => undefined);
    for (const socket of waiting) if (socket.connecting) await once(socket, 'connect');
    await eventually(() => asked.length >= 1);
    for (const socket of waiting) socket.destroy();
    await eventually(async () => (/ecluse_downstream_connections 0/.test(await pool.metrics()) ? true : undefined));
  }
  go.resolve(undefined);
  await eventually(async () => ((await shown(httpsPort, 'app.test')) === 'app.test' ? true : undefined));
  for (let index = 0; index < 10; index += 1) expect(await shown(httpsPort, 'app.test')).toBe('app.test');
  expect(pool.status().map(({ state }) => state)).toEqual(['listening']);
});

test.each([
  ['default' as const, 'default.test'],
  ['alert' as const, UNRECOGNIZED],
])('unknown names get what the policy says: %s', async (unknownNames, expected) => {
  const { httpsPort } = await open({ unknownNames });
  for (const name of ['nobody.test', 'a.b.wild.test', 'wild.test']) expect(await shown(httpsPort, name)).toBe(expected);
  expect(await shown(httpsPort, undefined)).toBe('default.test');
  expect(asked).toEqual([]);
});

test('the alert comes through a PROXY header, too', async () => {
  const trust = { trustedProxies: ['127.0.0.1'], proxyProtocol: true };
  const { httpsPort } = await open({ unknownNames: 'alert', trust });
  const behind = async (name: string): Promise<string> => {
    const socket = connectPlain({ host: '127.0.0.1', port: httpsPort });
    await once(socket, 'connect');
    socket.write('PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n');
    return await shown(httpsPort, name, socket);
  };
  expect(await behind('nobody.test')).toBe(UNRECOGNIZED);
  expect(await behind('app.test')).toBe('app.test');
});
