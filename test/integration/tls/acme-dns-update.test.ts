/** DNS-01 by dynamic updates: BIND holds the zone, and Pebble asks it. */
import { execFileSync, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { Resolver } from 'node:dns/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { AcmeDnsUpdate } from '#tls/acme/acme-keys.ts';
import { acmeSettings, shownCertificate, startAcmeNode, writeIn } from '../../support/acme-node.ts';
import type { AcmeNode } from '../../support/acme-node.ts';
import { eventually } from '../../support/edge.ts';
import { freePort, startPebble } from '../../support/pebble.ts';
import type { Pebble } from '../../support/pebble.ts';

const ZONE = 'dyn.example.com';

let folder = '';
let port = 0;
let named: ChildProcess;
let node: AcmeNode;
let pebble: Pebble;
let resolver: Resolver;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ecluse-bind-'));
  port = await freePort();
  const key = execFileSync('tsig-keygen', ['-a', 'hmac-sha256', 'ecluse'], { encoding: 'utf8' });
  await writeFile(join(folder, 'update.key'), key, { mode: 0o600 });
  await writeFile(join(folder, 'wrong.key'), execFileSync('tsig-keygen', ['-a', 'hmac-sha256', 'ecluse'], { encoding: 'utf8' }));
  const zone = `$TTL 60\n@ SOA ns.${ZONE}. ops.${ZONE}. 1 3600 600 86400 60\n@ NS ns.${ZONE}.\nns A 127.0.0.1\n`;
  await writeFile(join(folder, 'zone'), zone);
  const options = `directory "${folder}"; listen-on port ${String(port)} { 127.0.0.1; }; listen-on-v6 { none; }; recursion no; pid-file none; session-keyfile none;`;
  const config = `${key}\noptions { ${options} };\ncontrols { };\nzone "${ZONE}" { type primary; file "zone"; allow-update { key ecluse; }; };\n`;
  await writeFile(join(folder, 'named.conf'), config);
  named = spawn('named', ['-g', '-c', join(folder, 'named.conf')], { stdio: 'ignore' });
  resolver = new Resolver({ timeout: 500, tries: 1 });
  resolver.setServers([`127.0.0.1:${String(port)}`]);
  await eventually(async () => ((await resolver.resolveNs(ZONE).catch(() => [])).length > 0 ? true : undefined));
  node = await startAcmeNode(1);
  pebble = await startPebble({ httpPort: node.httpPort, tlsPort: node.httpsPort, dnsServer: `127.0.0.1:${String(port)}` });
});

afterEach(async () => {
  await node[Symbol.asyncDispose]();
  await pebble[Symbol.asyncDispose]();
  named.kill('SIGKILL');
  await once(named, 'exit');
  await rm(folder, { recursive: true, force: true });
});

async function settings(keyFile: string): Promise<ReturnType<typeof acmeSettings>> {
  const dns: AcmeDnsUpdate = {
    kind: 'update',
    server: { host: '127.0.0.1', port },
    keyFile: join(folder, keyFile),
    timeoutMs: 10_000,
    settleMs: 0,
  };
  const trustedRootFile = await writeIn(pebble.folder, 'root.pem', pebble.rootPem);
  return acmeSettings({ directory: pebble.directory, trustedRootFile, challenges: ['dns-01'] }, { dns });
}

test('a wildcard is proved by an update of the zone, which is taken back', async () => {
  await node.route([`*.${ZONE}`]);
  await node.beginAcme(await settings('update.key'));
  await eventually(async () => {
    const { issuer } = await shownCertificate(node.httpsPort, `any.${ZONE}`);
    return String(issuer.CN).startsWith('Pebble') ? true : undefined;
  }, 30_000);
  await expect(resolver.resolveTxt(`_acme-challenge.${ZONE}`)).rejects.toThrow(/ENODATA|ENOTFOUND/);
});

test('a server that does not take the key is in the error', async () => {
  await node.route([`a.${ZONE}`]);
  const acme = await node.beginAcme(await settings('wrong.key'));
  const error = await eventually(() => acme.of(`a.${ZONE}`).lastError ?? undefined, 30_000);
  expect(error).toContain(`the DNS could not be updated (add _acme-challenge.a.${ZONE})`);
  expect(error).toContain('BADSIG');
});
