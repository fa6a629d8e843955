/** ACME against Pebble, with real workers: what is asked for comes, once, and is served. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { listCertificates } from '#state/certificates.ts';
import { acmeSettings, shownCertificate, startAcmeNode, writeIn } from '../../support/acme-node.ts';
import type { AcmeNode } from '../../support/acme-node.ts';
import { eventually } from '../../support/edge.ts';
import { startPebble } from '../../support/pebble.ts';
import type { Pebble, PebbleOptions } from '../../support/pebble.ts';

const EAB = { keyId: 'kid-1', hmacKey: 'zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W' };

let node: AcmeNode;
let pebble: Pebble;

beforeEach(async () => {
  node = await startAcmeNode();
});

afterEach(async () => {
  await node[Symbol.asyncDispose]();
  await pebble[Symbol.asyncDispose]();
});

async function openPebble(options: Partial<PebbleOptions> = {}): Promise<void> {
  pebble = await startPebble({ httpPort: node.httpPort, tlsPort: node.httpsPort, ...options });
}

function hostsOf(count: number): readonly string[] {
  return Array.from({ length: count }, (_, index) => `h${String(index)}.shop.example.com`);
}

async function serials(hosts: readonly string[]): Promise<ReadonlyMap<string, string>> {
  const pairs = await Promise.all(
    hosts.map(async (host) => {
      const { serialNumber, issuer } = await shownCertificate(node.httpsPort, host);
      return [host, String(issuer.CN).includes('Pebble') ? serialNumber : ''] as const;
    }),
  );
  return new Map(pairs);
}

/** Issued certificates, by Pebble's own word. */
function issuedByPebble(): number {
  return pebble.output().split('Issued certificate serial').length - 1;
}

describe.each(['http-01', 'tls-alpn-01'] as const)('%s', (challenge) => {
  test('half of all nonces refused, EAB required: each host gets one, and each is renewed once', async () => {
    const hosts = hostsOf(12);
    await openPebble({ nonceReject: 50, eab: EAB });
    await node.route(hosts);
    const trustedRootFile = await writeIn(pebble.folder, 'root.pem', pebble.rootPem);
    const hmacKeyFile = await writeIn(pebble.folder, 'eab.key', EAB.hmacKey);
    const eab = { keyId: EAB.keyId, hmacKeyFile };
    const acme = await node.beginAcme(
      acmeSettings({ directory: pebble.directory, trustedRootFile, eab, challenges: [challenge] }),
    );
    await eventually(() => acme.counts().issued.get(pebble.directory) === hosts.length || undefined, 60_000);
    const first = await serials(hosts);
    expect(new Set(first.values()).size).toBe(hosts.length);
    expect([...first.values()]).not.toContain('');
    expect(issuedByPebble()).toBe(hosts.length);
    expect(await acme.renew(null, true)).toBe(hosts.length);
    await eventually(() => acme.counts().issued.get(pebble.directory) === 2 * hosts.length || undefined, 60_000);
    const second = await serials(hosts);
    for (const host of hosts) expect(second.get(host)).not.toBe(first.get(host));
    expect(issuedByPebble()).toBe(2 * hosts.length);
    const rows = await listCertificates(node.sql);
    expect(rows.map(({ version, source }) => ({ version, source }))).toEqual(hosts.map(() => ({ version: 2, source: 'acme' })));
    expect(acme.counts().failed).toEqual([]);
  });
});
