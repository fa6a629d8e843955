/** Hosts that get a certificate because a client called them: those that may have one, and no others. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { Server } from 'node:http';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { acmeSettings, shownCertificate, startAcmeNode, writeIn } from '../../support/acme-node.ts';
import type { AcmeNode } from '../../support/acme-node.ts';
import { eventually } from '../../support/edge.ts';
import { startPebble } from '../../support/pebble.ts';
import type { Pebble } from '../../support/pebble.ts';

let node: AcmeNode;
let pebble: Pebble;
let service: Server;
let asked: string[] = [];
let settings: ReturnType<typeof acmeSettings>;

beforeEach(async () => {
  asked = [];
  node = await startAcmeNode();
  pebble = await startPebble({ httpPort: node.httpPort, tlsPort: node.httpsPort });
  service = createServer((request, response) => {
    const domain = new URL(request.url ?? '', 'http://service').searchParams.get('domain') ?? '';
    asked.push(domain);
    response.writeHead(domain.startsWith('yes') ? 200 : 403).end();
  });
  service.listen(0, '127.0.0.1');
  await once(service, 'listening');
  settings = acmeSettings({
    directory: pebble.directory,
    trustedRootFile: await writeIn(pebble.folder, 'root.pem', pebble.rootPem),
  });
});

afterEach(async () => {
  service.close();
  await node[Symbol.asyncDispose]();
  await pebble[Symbol.asyncDispose]();
});

async function issuerOf(host: string): Promise<string> {
  const { issuer } = await shownCertificate(node.httpsPort, host);
  return String(issuer.CN).split(' ')[0] ?? '';
}

function ask(): string {
  const address = service.address();
  return `http://127.0.0.1:${String(typeof address === 'object' && address !== null ? address.port : 0)}/allow?by=edge`;
}

test('a host of a wildcard gets one when it is called and the service allows it; it is asked once, and of nothing without a route', async () => {
  await node.route(['*.shop.example.com']);
  await node.beginAcme({ ...settings, onDemand: { ask: ask() } });
  // Nobody waits: the handshake gets what it got before.
  expect(await issuerOf('yes.shop.example.com')).toBe('Ecluse');
  expect(await issuerOf('no.shop.example.com')).toBe('Ecluse');
  await issuerOf('yes.else.example.com');
  await eventually(async () => ((await issuerOf('yes.shop.example.com')) === 'Pebble' ? true : undefined), 30_000);
  for (let turn = 0; turn < 10; turn += 1) expect(await issuerOf('no.shop.example.com')).toBe('Ecluse');
  expect(asked.toSorted()).toEqual(['no.shop.example.com', 'yes.shop.example.com']);
  expect((await node.certificates.list()).certificates.map(({ name }) => name)).toEqual(['yes.shop.example.com']);
  // It is one of those that are renewed, also by the next run.
  await node.endAcme();
  const again = await node.beginAcme({ ...settings, onDemand: { ask: ask() } });
  await eventually(async () => ((await again.renew('yes.shop.example.com', true)) === 1 ? true : undefined));
  await eventually(() => again.counts().issued.get(pebble.directory), 30_000);
});

test('without a service a wildcard decides, and a route of any host does not', async () => {
  await node.route(['*.shop.example.com', '*']);
  await node.beginAcme({ ...settings, onDemand: { ask: undefined } });
  await issuerOf('any.else.example.com');
  await eventually(async () => ((await issuerOf('x.shop.example.com')) === 'Pebble' ? true : undefined), 30_000);
  expect((await node.certificates.list()).certificates.map(({ name }) => name)).toEqual(['x.shop.example.com']);
  expect((await node.certificates.list()).waiting).toEqual([]);
});
