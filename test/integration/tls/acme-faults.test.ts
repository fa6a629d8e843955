/** What goes wrong with CAs, and what is then served: Pebble, with real workers. */
import { execFileSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { readChanges } from '#state/change-log.ts';
import { acmeSettings, shownCertificate, startAcmeNode, writeIn } from '../../support/acme-node.ts';
import type { AcmeNode } from '../../support/acme-node.ts';
import { makeChain } from '../../support/certificate-maker.ts';
import { eventually } from '../../support/edge.ts';
import { freePort, startPebble } from '../../support/pebble.ts';
import type { Pebble } from '../../support/pebble.ts';

const HOST = 'a.shop.example.com';
const OTHER = 'b.shop.example.com';

let node: AcmeNode;
let pebble: Pebble;
let trustedRootFile = '';

beforeEach(async () => {
  node = await startAcmeNode(1);
  pebble = await startPebble({ httpPort: node.httpPort, tlsPort: node.httpsPort });
  trustedRootFile = await writeIn(pebble.folder, 'root.pem', pebble.rootPem);
});

afterEach(async () => {
  await node[Symbol.asyncDispose]();
  await pebble[Symbol.asyncDispose]();
});

function ours(): ReturnType<typeof acmeSettings> {
  return acmeSettings({ directory: pebble.directory, trustedRootFile });
}

async function issuerOf(host: string): Promise<string> {
  return String((await shownCertificate(node.httpsPort, host)).issuer.CN);
}

async function isOfPebble(host: string): Promise<true | undefined> {
  return (await issuerOf(host)).startsWith('Pebble') || undefined;
}

test('a CA that is down: the internal CA serves on, it is said why, and an operator need not wait', async () => {
  await node.route([HOST]);
  const down = `https://localhost:${String(await freePort())}/dir`;
  const [first, second] = [acmeSettings({ directory: down }), ours()];
  const acme = await node.beginAcme({ ...first, cas: [...first.cas, ...second.cas] });
  await eventually(() => acme.of(HOST).lastError?.includes('ECONNREFUSED') === true || undefined);
  expect(await issuerOf(HOST)).toBe('Ecluse internal CA');
  expect((await node.certificates.list()).waiting).toMatchObject([{ host: HOST }]);
  expect(acme.counts().failed).toMatchObject([{ ca: down, kind: 'ca' }]);
  const kinds = (await readChanges(node.sql, 0, 100)).map(({ kind }) => kind);
  expect(kinds).toContain('acme.failed');
  // The CA's back-off is half a minute.
  await acme.renew(HOST, false);
  await eventually(() => acme.counts().failed[0]?.count === 2 || undefined);
});

test('a CA that goes after the first certificate: that one is served on', async () => {
  await node.route([HOST]);
  const acme = await node.beginAcme(ours());
  await eventually(async () => await isOfPebble(HOST), 30_000);
  const { serialNumber } = await shownCertificate(node.httpsPort, HOST);
  await pebble[Symbol.asyncDispose]();
  await acme.renew(HOST, true);
  await eventually(() => acme.counts().failed.length > 0 || undefined);
  expect((await shownCertificate(node.httpsPort, HOST)).serialNumber).toBe(serialNumber);
  const [row] = (await node.certificates.list()).certificates;
  expect(row).toMatchObject({ name: HOST, version: 1, source: 'acme' });
  expect(row?.renewal?.lastError).toContain('ECONNREFUSED');
});

test('what runs when the node ends is gone on with, and no order is made twice', async () => {
  await node.route([HOST, OTHER]);
  for (let round = 0; round < 4; round += 1) {
    await node.beginAcme(ours());
    await new Promise((resolve) => setTimeout(resolve, 30 + 60 * round));
    await node.endAcme();
  }
  const acme = await node.beginAcme(ours());
  await eventually(async () => ((await isOfPebble(HOST)) === true ? await isOfPebble(OTHER) : undefined), 60_000);
  const issued = pebble.output().split('Issued certificate serial').length - 1;
  // A run may end after the CA has issued and before that was fetched: then the same one is fetched.
  expect(issued).toBe(2);
  expect(acme.counts().failed).toEqual([]);
});

test('hosts that have a certificate of the operator’s, that are not public, or that were not named are left alone', async () => {
  const { leaf, intermediate } = await makeChain(['*.own.example.com']);
  await node.certificates.add({
    name: 'own',
    certPem: `${leaf.certPem}${intermediate.certPem}`,
    keyPem: leaf.keyPem,
    force: false,
  });
  await node.route([HOST, 'x.own.example.com', 'app.localhost', 'db.internal', '10.0.0.7']);
  const acme = await node.beginAcme(ours());
  await eventually(async () => await isOfPebble(HOST), 30_000);
  expect(await acme.renew(null, false)).toBe(1);
  await expect(node.certificates.renew({ host: 'x.own.example.com', force: true })).rejects.toMatchObject({
    code: 'ECLUSE_ACME_HOST_UNKNOWN',
    status: 404,
  });
  await node.certificates.remove('own');
  await eventually(async () => await isOfPebble('x.own.example.com'), 30_000);
});

test('a wildcard over HTTP-01 is refused with what to do; over the DNS it comes, by the hook', async () => {
  await node.route(['*.wild.example.com']);
  const acme = await node.beginAcme(ours());
  const refusal = await eventually(() => acme.of('*.wild.example.com').lastError ?? undefined, 30_000);
  expect(refusal).toContain('wildcards are proved by dns-01 only: set acme.dns');
  await node.endAcme();
  const [url, calls] = [`http://127.0.0.1:${String(pebble.managementPort)}`, join(pebble.folder, 'calls')];
  const script = [
    '#!/bin/sh',
    `echo "$1 $2 $3" >>${calls}`,
    `if [ "$1" = add ]; then body="{\\"host\\":\\"$2.\\",\\"value\\":\\"$3\\"}" verb=set-txt; else body="{\\"host\\":\\"$2.\\"}" verb=clear-txt; fi`,
    `exec curl -sf -d "$body" ${url}/$verb`,
  ].join('\n');
  const hook = await writeIn(pebble.folder, 'hook', script, 0o700);
  execFileSync('sh', ['-n', hook]);
  const byDns = acmeSettings(
    { directory: pebble.directory, trustedRootFile, challenges: ['dns-01'] },
    { dns: { kind: 'hook', hook, timeoutMs: 10_000, settleMs: 0 } },
  );
  const again = await node.beginAcme(byDns);
  await again.renew('*.wild.example.com', false);
  await eventually(async () => await isOfPebble('any.wild.example.com'), 30_000);
  const lines = (await readFile(calls, 'utf8')).trim().split('\n');
  expect(lines.map((line) => line.split(' ').slice(0, 2))).toEqual([
    ['add', '_acme-challenge.wild.example.com'],
    ['remove', '_acme-challenge.wild.example.com'],
  ]);
});

test('a hook that fails is in the error with what it said', async () => {
  await node.route([HOST]);
  const hook = await writeIn(pebble.folder, 'hook', '#!/bin/sh\necho "zone is locked" >&2\nexit 3\n', 0o700);
  const settings = acmeSettings(
    { directory: pebble.directory, trustedRootFile, challenges: ['dns-01'] },
    { dns: { kind: 'hook', hook, timeoutMs: 10_000, settleMs: 0 } },
  );
  const acme = await node.beginAcme(settings);
  const refusal = await eventually(() => acme.of(HOST).lastError ?? undefined, 30_000);
  expect(refusal).toContain('it ended with 3, and said: zone is locked');
});
