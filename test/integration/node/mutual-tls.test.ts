/** Client certificates and endpoints over TLS through a whole node: from the file and the store to the workers, back again, and over a restart. */
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createAdminClient } from '#admin/client.ts';
import { adminSocketOf } from '#node-paths';
import { makeChain, makeSigned } from '../../support/certificate-maker.ts';
import type { MadeChain } from '../../support/certificate-maker.ts';
import { expectNothingLeft } from '../../support/leftovers.ts';
import { freePorts, freshDataDir, startNode } from '../../support/node.ts';
import type { NodePorts, TestNode } from '../../support/node.ts';
import { SecureClient, shows } from '../../support/secure-client.ts';
import { startSecure } from '../../support/secure-endpoint.ts';
import type { SecureEndpoint } from '../../support/secure-endpoint.ts';

const CLIENT = '1.3.6.1.5.5.7.3.2';
let node: TestNode;
let dataDir: string;
let ports: NodePorts;
let partners: MadeChain;
let inner: MadeChain;
let edge: MadeChain;
let ledger: SecureEndpoint;
let file: string;

function indented(pem: string): string {
  return pem
    .trimEnd()
    .split('\n')
    .map((line) => `      ${line}`)
    .join('\n');
}

async function done(...args: readonly string[]): Promise<string> {
  const answer = await node.ecluse(...args);
  expect(answer).toMatchObject({ exitCode: 0, stderr: '' });
  return answer.stdout;
}

async function refused(...args: readonly string[]): Promise<string> {
  const answer = await node.ecluse(...args);
  expect(answer).toMatchObject({ exitCode: 1, stdout: '' });
  return answer.stderr;
}

async function get(options: object = {}): Promise<readonly [number, string]> {
  using client = await SecureClient.open({ port: ports.https, servername: 'ledger.test', ...options });
  const { status, body } = await client.get('ledger.test');
  return [status, body];
}

beforeAll(async () => {
  dataDir = await freshDataDir();
  ports = await freePorts();
  [partners, inner, edge] = [
    await makeChain(['partner'], { uses: [CLIENT] }),
    await makeChain(['ledger.internal']),
    await makeChain(['edge'], { uses: [CLIENT] }),
  ];
  ledger = await startSecure({
    cert: inner.leaf.certPem + inner.intermediate.certPem,
    key: inner.leaf.keyPem,
    ca: edge.root.certPem,
    requestCert: true,
    rejectUnauthorized: true,
  });
  file = join(dataDir, 'edge.yaml');
  await writeFile(
    file,
    `caBundles:
  partners:
    pem: |
${indented(partners.root.certPem)}
  inner:
    pem: |
${indented(inner.root.certPem)}
services:
  ledger:
    endpoints: ["${ledger.url}"]
    tls: { serverName: ledger.internal, ca: inner, clientCertificate: edge }
routes:
  - match: { host: ledger.test }
    service: ledger
    tls: { clientCertificate: { ca: partners }, redirect: true }
`,
  );
  node = await startNode({ dataDir, ports });
});

afterAll(async () => {
  await node.stop();
  await expectNothingLeft(dataDir);
  ledger[Symbol.dispose]();
  await rm(dataDir, { recursive: true, force: true });
});

const partner = (): object => shows(partners.leaf, partners.intermediate);

test('a file is refused until the certificate that it names is there; then partners get through, and nobody else', async () => {
  expect(await refused('apply', file)).toMatch(/services\.ledger\.tls\.clientCertificate: there is no certificate "edge"/);
  const [certFile, keyFile] = [join(dataDir, 'cert.pem'), join(dataDir, 'key.pem')];
  await writeFile(certFile, edge.leaf.certPem + edge.intermediate.certPem);
  await writeFile(keyFile, edge.leaf.keyPem, { mode: 0o600 });
  expect(await done('cert', 'add', 'edge', '--cert', certFile, '--key', keyFile)).toMatch(/it is for clients/);
  await done('apply', file);
  expect(await get(partner())).toEqual([200, 'secure app']);
  expect(await get()).toEqual([403, expect.stringMatching(/none was sent/)]);
  expect(new Set(ledger.connections.map(({ client }) => client))).toEqual(new Set(['edge']));
  expect(await done('explain', 'https://ledger.test/')).toMatch(/403 without a client certificate of partners/);
});

test('what is used cannot be taken away, and no key is told', async () => {
  expect(await refused('cert', 'rm', 'edge')).toMatch(/service ledger shows the certificate edge/);
  for (const said of [
    await done('config', 'show'),
    await done('cert', 'ls', '--json'),
    await done('explain', 'https://ledger.test/', '--json'),
  ])
    expect(said).not.toContain('PRIVATE KEY');
  const client = createAdminClient(adminSocketOf(dataDir));
  expect(JSON.stringify((await client.edge.settings()).document.caBundles)).toContain('BEGIN CERTIFICATE');
  const operations = [{ op: 'remove-ca-bundle', name: 'inner' }] as const;
  await expect(client.edge.transact(operations, { ifVersion: undefined, dryRun: false, note: '' })).rejects.toThrow(
    /caBundles\.inner: routes or services name it/,
  );
});

test('another CA by the same name is another question; going back brings the first one', async () => {
  const stranger = await makeSigned({ subject: 'Stranger', isCa: true });
  const client = createAdminClient(adminSocketOf(dataDir));
  const { version } = await client.edge.settings();
  const operations = [{ op: 'put-ca-bundle', name: 'partners', caBundle: { pem: stranger.certPem } }] as const;
  await client.edge.transact(operations, { ifVersion: version, dryRun: false, note: '' });
  expect((await get(partner()))[0]).toBe(403);
  expect(await done('config', 'diff', String(version))).toMatch(
    /^~ ca-bundle partners: "CN=Test Root" [0-9A-F:]+ → "CN=Stranger" /m,
  );
  await done('rollback', String(version));
  expect(await get(partner())).toEqual([200, 'secure app']);
});

test('a restart serves what was acknowledged', async () => {
  await node.stop();
  node = await startNode({ dataDir, ports });
  expect(await get(partner())).toEqual([200, 'secure app']);
  expect((await get())[0]).toBe(403);
});
