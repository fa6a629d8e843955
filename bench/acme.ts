/**
 * How long do certificates of a CA take, and does any host get two?
 *
 * Pebble of Debian with half of all good nonces refused and an external account binding wanted, two real workers: each host gets one certificate, then
 * each is renewed, over HTTP-01 and over TLS-ALPN-01. Pebble says how many it issued. Ends with 1 where that is not twice as many as there are hosts.
 *
 * `--hosts N` (default 200) `--orders N` at a time (default 8) `--challenges http-01,tls-alpn-01`.
 */
import { parseArgs } from 'node:util';
import { acmeSettings, shownCertificate, startAcmeNode, writeIn } from '../test/support/acme-node.ts';
import { eventually } from '../test/support/edge.ts';
import { startPebble } from '../test/support/pebble.ts';
import { machine } from './machine.ts';

const { values } = parseArgs({
  options: {
    hosts: { type: 'string', default: '200' },
    orders: { type: 'string', default: '8' },
    challenges: { type: 'string', default: 'http-01,tls-alpn-01' },
  },
});
const hosts = Array.from({ length: Number(values.hosts) }, (_, index) => `h${String(index)}.shop.example.com`);
const ordersMax = Number(values.orders);
const LIMIT_MS = 900_000;
const EAB = { keyId: 'kid-1', hmacKey: 'zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W' };

interface Result {
  readonly challenge: string;
  readonly issuedMs: number;
  readonly renewedMs: number;
  /** By the CA's own word. */
  readonly issued: number;
  readonly failures: number;
  readonly differentSerials: number;
}

async function measure(challenge: 'http-01' | 'tls-alpn-01'): Promise<Result> {
  await using node = await startAcmeNode();
  await using pebble = await startPebble({ httpPort: node.httpPort, tlsPort: node.httpsPort, nonceReject: 50, eab: EAB });
  const trustedRootFile = await writeIn(pebble.folder, 'root.pem', pebble.rootPem);
  const hmacKeyFile = await writeIn(pebble.folder, 'eab.key', EAB.hmacKey);
  await node.route(hosts);
  const startMs = performance.now();
  const ca = { directory: pebble.directory, trustedRootFile, eab: { keyId: EAB.keyId, hmacKeyFile }, challenges: [challenge] };
  const acme = await node.beginAcme(acmeSettings(ca, { ordersMax }));
  const come = async (count: number): Promise<void> => {
    await eventually(() => acme.counts().issued.get(pebble.directory) === count || undefined, LIMIT_MS);
  };
  await come(hosts.length);
  const issuedMs = performance.now() - startMs;
  await acme.renew(null, true);
  await come(2 * hosts.length);
  const renewedMs = performance.now() - startMs - issuedMs;
  const serials = new Set<string>();
  for (const host of hosts) serials.add((await shownCertificate(node.httpsPort, host)).serialNumber);
  return {
    challenge,
    issuedMs: Math.round(issuedMs),
    renewedMs: Math.round(renewedMs),
    issued: pebble.output().split('Issued certificate serial').length - 1,
    failures: acme.counts().failed.reduce((sum, { count }) => sum + count, 0),
    differentSerials: serials.size,
  };
}

const results: Result[] = [];
for (const challenge of ['http-01', 'tls-alpn-01'] as const)
  if (values.challenges.split(',').includes(challenge)) results.push(await measure(challenge));
process.stdout.write(`${JSON.stringify({ machine: machine(), hosts: hosts.length, ordersMax, results }, undefined, 2)}\n`);
process.exitCode = results.every(
  ({ issued, differentSerials }) => issued === 2 * hosts.length && differentSerials === hosts.length,
)
  ? 0
  : 1;
