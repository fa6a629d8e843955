/** Certificates of operators through a whole node, met by real TLS clients on every worker: added, replaced, removed, refused, and there again after a restart. */
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { chmod, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { connect } from 'node:tls';
import type { TLSSocket } from 'node:tls';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createAdminClient } from '#admin/client.ts';
import { codeOf } from '#errors';
import { adminSocketOf } from '#node-paths';
import { makeChain, makeSigned } from '../../support/certificate-maker.ts';
import type { Made, MadeChain, Making } from '../../support/certificate-maker.ts';
import { expectNothingLeft } from '../../support/leftovers.ts';
import { ECLUSE, freePorts, freshDataDir, run, startNode } from '../../support/node.ts';
import type { NodePorts, TestNode } from '../../support/node.ts';
import { startUpstream } from '../../support/upstream.ts';
import type { HttpUpstream } from '../../support/upstream.ts';

let node: TestNode;
let dataDir: string;
let ports: NodePorts;
let upstream: HttpUpstream;

const config = { tls: { unknownNames: 'alert' } };

beforeAll(async () => {
  dataDir = await freshDataDir();
  ports = await freePorts();
  upstream = await startUpstream((request, response) => response.end(`hello ${request.url ?? ''}`));
  node = await startNode({ dataDir, ports, config });
  const url = `http://127.0.0.1:${String(upstream.port)}`;
  await done('service', 'set', 'shop', url);
  for (const host of ['shop.test', 'own.test', '*.wild.test']) await done('route', 'add', host, 'shop');
});

afterAll(async () => {
  await node.stop();
  await expectNothingLeft(dataDir);
  await upstream[Symbol.asyncDispose]();
  await rm(dataDir, { recursive: true, force: true });
});

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

async function files(certPem: string, keyPem: string): Promise<readonly string[]> {
  const [certFile, keyFile] = [join(dataDir, 'cert.pem'), join(dataDir, 'key.pem')];
  await writeFile(certFile, certPem);
  await writeFile(keyFile, keyPem, { mode: 0o600 });
  return ['--cert', certFile, '--key', keyFile];
}

async function add(name: string, { leaf, intermediate }: Pick<MadeChain, 'leaf' | 'intermediate'>): Promise<string> {
  return await done('cert', 'add', name, ...(await files(`${leaf.certPem}${intermediate.certPem}`, leaf.keyPem)));
}

async function addSigned(name: string, making: Making): Promise<Made> {
  const made = await makeSigned(making);
  await done('cert', 'add', name, ...(await files(made.certPem, made.keyPem)));
  return made;
}

async function handshake(servername: string | undefined): Promise<TLSSocket> {
  const socket = connect({
    host: '127.0.0.1',
    port: ports.https,
    rejectUnauthorized: false,
    ...(servername === undefined ? {} : { servername }),
  });
  await once(socket, 'secureConnect');
  return socket;
}

/** The fingerprint of what a new connection is shown; where there is none, the error's code. */
async function shown(servername: string | undefined): Promise<string> {
  try {
    const socket = await handshake(servername);
    const raw = socket.getPeerX509Certificate()?.raw;
    socket.destroy();
    return raw === undefined ? 'none' : new X509Certificate(raw).fingerprint256;
  } catch (error) {
    return codeOf(error) ?? 'failed';
  }
}

/** What sixteen connections are shown: enough to meet both workers, all but once in 32 768 runs. */
async function shownByAll(servername: string | undefined): Promise<readonly string[]> {
  const all = await Promise.all(Array.from({ length: 16 }, async () => await shown(servername)));
  return [...new Set(all)];
}

function fingerprintOf({ certPem }: Made): string {
  return new X509Certificate(certPem).fingerprint256;
}

async function get(socket: TLSSocket, path: string): Promise<string> {
  socket.write(`GET ${path} HTTP/1.1\r\nhost: shop.test\r\n\r\n`);
  let text = '';
  while (!/\r\n\r\nhello \S+$/.test(text)) {
    const chunks: unknown[] = await once(socket, 'data');
    text += String(chunks[0]);
  }
  return text.slice(text.indexOf('hello'));
}

test('a host of a route has a certificate of the own CA, the same for all, until it is given another', async () => {
  const ca = await readFile(node.caFile);
  const socket = connect({ host: '127.0.0.1', port: ports.https, servername: 'shop.test', ca });
  await once(socket, 'secureConnect');
  expect(socket.authorized).toBe(true);
  socket.destroy();
  expect(await shownByAll('shop.test')).toHaveLength(1);
  const wildcard = connect({ host: '127.0.0.1', port: ports.https, servername: 'a.wild.test', ca });
  await once(wildcard, 'secureConnect');
  expect(wildcard.authorized).toBe(true);
  wildcard.destroy();
  expect(await done('explain', 'https://shop.test/')).toMatch(/certificate: of the node's own CA, for shop\.test, until 20/);
  const made = await makeChain(['shop.test']);
  expect(await add('shop', made)).toMatch(/^shop, version 1, is served for shop\.test until 20/);
  expect(await shownByAll('shop.test')).toEqual([fingerprintOf(made.leaf)]);
  // The intermediate is sent with it: a client that has the root only is content.
  const trusting = connect({ host: '127.0.0.1', port: ports.https, servername: 'shop.test', ca: made.root.certPem });
  await once(trusting, 'secureConnect');
  expect(trusting.authorized).toBe(true);
  trusting.destroy();
  expect(await done('explain', 'https://shop.test/')).toMatch(/certificate: shop \(uploaded\), for shop\.test, until 20/);
});

test('a certificate is replaced under open connections, which go on; every worker shows the next one', async () => {
  const sockets = await Promise.all(Array.from({ length: 8 }, async () => await handshake('shop.test')));
  let cut = 0;
  for (const socket of sockets) {
    socket.on('close', () => {
      cut += 1;
    });
    expect(await get(socket, '/before')).toBe('hello /before');
  }
  const stop = new AbortController();
  const seen = new Set<string>();
  const client = (async () => {
    while (!stop.signal.aborted) seen.add(await shown('shop.test'));
  })();
  const allowed: string[] = await shownByAll('shop.test').then((all) => [...all]);
  for (let version = 2; version <= 4; version += 1) {
    const made = await makeChain(['shop.test']);
    expect(await add('shop', made)).toContain(`version ${String(version)}`);
    expect(await shownByAll('shop.test')).toEqual([fingerprintOf(made.leaf)]);
    allowed.push(fingerprintOf(made.leaf));
  }
  stop.abort();
  await client;
  expect([...seen].filter((fingerprint) => !allowed.includes(fingerprint))).toEqual([]);
  for (const socket of sockets) expect(await get(socket, '/after')).toBe('hello /after');
  expect(cut).toBe(0);
  for (const socket of sockets) socket.destroy();
});

test('an exact name comes before a wildcard, and of two with a name the one that is valid longest', async () => {
  const wild = await addSigned('wild', { names: ['*.wild.test'], untilDays: 90 });
  expect(await shownByAll('a.wild.test')).toEqual([fingerprintOf(wild)]);
  const exact = await addSigned('exact', { names: ['a.wild.test'], untilDays: 30 });
  expect(await shownByAll('a.wild.test')).toEqual([fingerprintOf(exact)]);
  expect(await shownByAll('b.wild.test')).toEqual([fingerprintOf(wild)]);
  expect(await shownByAll('c.b.wild.test')).toEqual(['ERR_SSL_TLSV1_UNRECOGNIZED_NAME']);
  const longer = await addSigned('longer', { names: ['a.wild.test'], untilDays: 60 });
  await addSigned('shorter', { names: ['a.wild.test'], untilDays: 10 });
  expect(await shownByAll('a.wild.test')).toEqual([fingerprintOf(longer)]);
  const list = await done('cert', 'ls');
  expect(list).toMatch(/shorter: it expires in (?:9|10) days/);
  expect(list).toContain('shorter: a.wild.test is answered by longer, which is valid at least as long');
  expect(await done('config', 'lint')).toMatch(/certs\.shorter: it expires in/);
  await done('cert', 'rm', 'longer');
  expect(await shownByAll('a.wild.test')).toEqual([fingerprintOf(exact)]);
  for (const name of ['exact', 'shorter', 'wild']) await done('cert', 'rm', name);
  expect(await done('explain', 'https://a.wild.test/')).toContain("of the node's own CA, for *.wild.test");
  expect(await refused('cert', 'rm', 'wild')).toContain('no certificate is called wild');
});

test('a name that nothing is for ends with an alert, as the configuration says; no name gets the default', async () => {
  expect(await shownByAll('nobody.test')).toEqual(['ERR_SSL_TLSV1_UNRECOGNIZED_NAME']);
  expect(await shownByAll(undefined)).toHaveLength(1);
  expect(await done('explain', 'https://nobody.test/')).toContain('none: the handshake ends with the alert unrecognized_name');
  const made = await addSigned('nobody', { names: ['nobody.test'] });
  expect(await shownByAll('nobody.test')).toEqual([fingerprintOf(made)]);
  await done('cert', 'rm', 'nobody');
});

test('what is wrong is refused with its reason, and what was served stays; no key is ever told', async () => {
  const before = await shownByAll('shop.test');
  const good = await makeSigned({ names: ['shop.test'] });
  const over = await makeSigned({ names: ['shop.test'], fromDays: -3, untilDays: -1 });
  const wrong = async (certPem: string, keyPem: string): Promise<string> => {
    const said = await refused('cert', 'add', 'shop', ...(await files(certPem, keyPem)));
    expect(said).not.toContain('PRIVATE KEY-----');
    return said;
  };
  expect(await wrong(good.certPem, over.keyPem)).toMatch(
    /keyPem: the key does not belong to the certificate; nothing was changed/,
  );
  expect(await wrong(over.certPem, over.keyPem)).toMatch(/has expired.*--force/);
  expect(await wrong('', good.keyPem)).toContain('certPem: there is no certificate in it');
  expect(await wrong(good.certPem, '')).toContain('keyPem: there is no private key in it');
  expect(await wrong(good.certPem.repeat(200), good.keyPem)).toContain('certPem: it has more than 64 KiB');
  expect(await refused('cert', 'add', 'shop', '--cert', join(dataDir, 'none'), '--key', join(dataDir, 'none'))).toContain(
    '--cert cannot be read',
  );
  expect(await refused('cert', 'add', '../x', ...(await files(good.certPem, good.keyPem)))).toContain(
    'name: a name has up to 63',
  );
  expect((await node.ecluse('cert', 'add', 'shop')).stderr).toContain('--cert is missing');
  expect(await shownByAll('shop.test')).toEqual(before);
  await done('cert', 'add', 'late', '--force', ...(await files(over.certPem, over.keyPem)));
  const everything = `${await done('cert', 'ls')}${await done('cert', 'ls', '--json')}${await done('events', '--last', '50', '--json')}${node.output()}`;
  expect(everything).toContain('late: it expired on');
  expect(everything).not.toMatch(/PRIVATE KEY|keyPem|sealed/i);
  await done('cert', 'rm', 'late');
  const metrics = await (await fetch(`http://127.0.0.1:${String(ports.metrics)}/metrics`)).text();
  expect(metrics).toMatch(/^ecluse_certificates\{source="uploaded"\} 1$/m);
  expect(metrics).toMatch(/^ecluse_certificate_expires_timestamp_seconds\{source="uploaded"\} \d+$/m);
});

test('a worker that dies, a killed node and a restart show what was added; the store has no key in plain', async () => {
  const before = await shownByAll('shop.test');
  const own = await shownByAll('own.test');
  const { workers } = await createAdminClient(adminSocketOf(dataDir)).status();
  process.kill(workers[0]?.pid ?? 0, 'SIGKILL');
  await expect.poll(async () => await shownByAll('shop.test'), { timeout: 20_000 }).toEqual(before);
  expect(await shownByAll('own.test')).toEqual(own);
  await node.stop();
  expect((await stat(join(dataDir, 'tls', 'certificates.key'))).mode & 0o777).toBe(0o600);
  const row = new DatabaseSync(join(dataDir, 'ecluse.db'), { readOnly: true }).prepare('SELECT * FROM certificate').get();
  expect(row).toMatchObject({ name: 'shop', source: 'uploaded' });
  expect(JSON.stringify(row)).not.toContain('PRIVATE KEY');
  node = await startNode({ dataDir, ports, config });
  expect(await shownByAll('shop.test')).toEqual(before);
});

test('a node does not start with a key of its certificates that is missing or read by others', async () => {
  await node.stop();
  const file = join(dataDir, 'tls', 'certificates.key');
  const up = async (): Promise<string> => {
    const args = ['up', '--data', dataDir, '--config', join(dataDir, 'ecluse.yaml')];
    const listen = Object.entries(ports).flatMap(([name, port]) => [`--${name}`, `127.0.0.1:${String(port)}`]);
    const { exitCode, stderr } = await run(ECLUSE, [...args, ...listen]);
    expect(exitCode).toBe(1);
    return stderr;
  };
  await chmod(file, 0o640);
  expect(await up()).toMatch(/certificates\.key has mode 0640; type: chmod 600/);
  await chmod(file, 0o600);
  const key = await readFile(file);
  await rm(file);
  expect(await up()).toMatch(/is missing: there is no .*certificates\.key; restore it from a backup/);
  await writeFile(file, key, { mode: 0o600 });
  node = await startNode({ dataDir, ports, config });
  expect(await shownByAll('shop.test')).toHaveLength(1);
});
