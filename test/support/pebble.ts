/** Pebble, Let's Encrypt's test CA, with the name server that comes with it: all names lead to this machine. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '#clock';
import { openAuthority } from '#tls/authority.ts';
import { eventually } from './edge.ts';

export interface PebbleOptions {
  /** Where it looks for proofs. */
  readonly httpPort: number;
  readonly tlsPort: number;
  /** Per cent of good nonces that it refuses. */
  readonly nonceReject?: number;
  /** Key id and HMAC key, without which it makes no account. */
  /** Who answers for names instead of its own name server: address and port. */
  readonly dnsServer?: string;
  readonly eab?: { readonly keyId: string; readonly hmacKey: string };
}

export interface Pebble extends AsyncDisposable {
  readonly directory: string;
  readonly rootPem: string;
  readonly folder: string;
  /** What it wrote. */
  readonly output: () => string;
  /** Adds a record to its name server, or takes it away, as a program of the command line would. */
  readonly managementPort: number;
}

/** Only its name server is wanted: proofs are shown by our workers. */
const NO_CHALLENGES = '-http01= -https01= -tlsalpn01= -defaultIPv6= -defaultIPv4=127.0.0.1'.split(' ');

export async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  return typeof address === 'object' && address !== null ? address.port : 0;
}

export async function startPebble({ httpPort, tlsPort, nonceReject = 0, eab, dnsServer }: PebbleOptions): Promise<Pebble> {
  const folder = await mkdtemp(join(tmpdir(), 'ecluse-pebble-'));
  const [port, management, dns, dnsManagement] = [await freePort(), await freePort(), await freePort(), await freePort()];
  const authority = await openAuthority(join(folder, 'ca'), { clock: systemClock });
  const server = await authority.issueServer({ names: ['localhost', '127.0.0.1'], days: 2 });
  await writeFile(join(folder, 'cert.pem'), server.certPem);
  await writeFile(join(folder, 'key.pem'), server.keyPem);
  const config = {
    listenAddress: `127.0.0.1:${String(port)}`,
    managementListenAddress: `127.0.0.1:${String(management)}`,
    certificate: join(folder, 'cert.pem'),
    privateKey: join(folder, 'key.pem'),
    httpPort,
    tlsPort,
    ocspResponderURL: '',
    externalAccountBindingRequired: eab !== undefined,
    ...(eab === undefined ? {} : { externalAccountMACKeys: { [eab.keyId]: eab.hmacKey } }),
  };
  await writeFile(join(folder, 'config.json'), JSON.stringify({ pebble: config }));
  const names = spawn(
    'pebble-challtestsrv',
    ['-dns01', `127.0.0.1:${String(dns)}`, '-management', `127.0.0.1:${String(dnsManagement)}`, ...NO_CHALLENGES],
    { stdio: 'ignore' },
  );
  const environment = { ...process.env, PEBBLE_VA_NOSLEEP: '1', PEBBLE_WFE_NONCEREJECT: String(nonceReject) };
  const pebble = spawn(
    'pebble',
    ['-config', join(folder, 'config.json'), '-dnsserver', dnsServer ?? `127.0.0.1:${String(dns)}`],
    {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: environment,
    },
  );
  let output = '';
  for (const stream of [pebble.stdout, pebble.stderr]) stream.on('data', (piece: Buffer) => (output += piece.toString()));
  const directory = `https://localhost:${String(port)}/dir`;
  const stop = async (): Promise<void> => {
    for (const child of [pebble, names]) await end(child);
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await eventually(async () => ((await answers(directory, authority.caPem)) ? true : undefined));
  } catch (error) {
    await stop();
    throw new Error(`pebble did not start: ${output}`, { cause: error });
  }
  return {
    directory,
    rootPem: authority.caPem,
    folder,
    output: () => output,
    managementPort: dnsManagement,
    [Symbol.asyncDispose]: stop,
  };
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGKILL');
  await once(child, 'exit');
}

async function answers(url: string, ca: string): Promise<boolean> {
  const asked = request(url, { ca });
  asked.end();
  try {
    await once(asked, 'response');
    return true;
  } catch {
    return false;
  } finally {
    asked.destroy();
  }
}
