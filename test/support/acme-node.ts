/** The parts of a node that ACME is made of, with a real store and real workers, and routes for hosts that are told. */
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { connect } from 'node:tls';
import type { PeerCertificate } from 'node:tls';
import { systemClock } from '#clock';
import { createLog } from '#log';
import { WorkerPool } from '#proxy/worker-pool.ts';
import { routeSchema } from '#routing/operator/schema.ts';
import { serviceSchema } from '#routing/operator/service-schema.ts';
import type { EdgePatch } from '#routing/operator/settings.ts';
import { openSqlite } from '#state/sqlite.ts';
import type { Sql } from '#state/sql.ts';
import { listSealingKeys } from '#state/certificates.ts';
import type { AcmeCaFileSettings, AcmeFileSettings } from '#tls/acme/acme-keys.ts';
import { openAuthority } from '#tls/authority.ts';
import { HostCertificates } from '#tls/host-certificates.ts';
import { KeySeal } from '#tls/key-seal.ts';
import { NodeAcme } from '../../src/node-acme.ts';
import { EdgeCertificates, readAddedCertificates } from '../../src/node-certificates.ts';
import { Edge } from '../../src/node-edge.ts';

export interface AcmeNode extends AsyncDisposable {
  readonly sql: Sql;
  readonly edge: Edge;
  readonly pool: WorkerPool;
  readonly certificates: EdgeCertificates;
  readonly httpPort: number;
  readonly httpsPort: number;
  readonly folder: string;
  /** Begins to ask CAs. */
  readonly beginAcme: (settings: AcmeFileSettings) => Promise<NodeAcme>;
  /** Ends that, and leaves all else. */
  readonly endAcme: () => Promise<void>;
  /** Has routes for these hosts from now on. */
  readonly route: (hosts: readonly string[]) => Promise<void>;
}

export async function startAcmeNode(workers = 2): Promise<AcmeNode> {
  const folder = await mkdtemp(join(tmpdir(), 'ecluse-acme-'));
  const log = createLog(process.env['ACME_LOG'] === undefined ? 'silent' : 'debug');
  const clock = systemClock;
  const sql = openSqlite(join(folder, 'state.db'));
  const authority = await openAuthority(join(folder, 'tls'), { clock });
  const seal = await KeySeal.open(join(folder, 'tls'), await listSealingKeys(sql));
  const edge = new Edge({
    log,
    clock,
    sql,
    certificates: await HostCertificates.open(join(folder, 'tls'), { authority, clock }),
    added: async () => await readAddedCertificates({ sql, seal, log }),
    domain: () => 'localhost',
    wake: undefined,
  });
  const pool = await WorkerPool.open(
    { log, clock },
    {
      workers,
      workerFile: resolve(import.meta.dirname, '../../src/worker.ts'),
      listen: { http: { host: '127.0.0.1', port: 0 }, https: { host: '127.0.0.1', port: 0 } },
      accessLogFile: join(folder, 'access.log'),
      logLevel: 'error',
      initial: await edge.initial(),
      issue: async (host) => await edge.issue(host),
      onTraffic: () => undefined,
      onWake: () => undefined,
      onCalled: (names) => {
        edge.called(names);
      },
    },
  );
  edge.attach(pool);
  const certificates = new EdgeCertificates({ log, clock, sql, seal, edge, unknownNames: 'default' });
  let acme: NodeAcme | undefined;
  const endAcme = async (): Promise<void> => {
    await acme?.[Symbol.asyncDispose]();
    acme = undefined;
  };
  return {
    sql,
    edge,
    pool,
    certificates,
    folder,
    httpPort: pool.listening.http?.port ?? 0,
    httpsPort: pool.listening.https?.port ?? 0,
    beginAcme: async (settings) => {
      acme = await NodeAcme.open({ log, clock, sql, seal, edge, certificates, pool }, settings);
      return acme;
    },
    endAcme,
    route: async (hosts) => {
      const routes = hosts.map((host) => [host, [routeSchema.parse({ match: { host }, service: 'app' })]] as const);
      const patch: EdgePatch = {
        services: { app: serviceSchema.parse({ endpoints: ['http://127.0.0.1:9'] }) },
        hosts: Object.fromEntries(routes),
      };
      await edge.changeSettings(
        async () => await Promise.resolve(patch),
        async () => await Promise.resolve(),
      );
    },
    [Symbol.asyncDispose]: async () => {
      await endAcme();
      await pool[Symbol.asyncDispose]();
      await sql[Symbol.asyncDispose]();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** What a file would say of one CA, where it says nothing else. */
export function acmeSettings(
  ca: Partial<AcmeCaFileSettings> & Pick<AcmeCaFileSettings, 'directory'>,
  more: Partial<AcmeFileSettings> = {},
): AcmeFileSettings {
  const one: AcmeCaFileSettings = {
    email: undefined,
    eab: undefined,
    profile: undefined,
    limits: 'none',
    trustedRootFile: undefined,
    challenges: ['http-01'],
    ...ca,
  };
  return { cas: [one], auto: 'routes', hosts: [], onDemand: undefined, ordersMax: 8, dns: undefined, ...more };
}

export async function writeIn(folder: string, name: string, text: string, mode = 0o600): Promise<string> {
  const file = join(folder, name);
  await writeFile(file, text, { mode });
  return file;
}

/** What a client is shown that calls `host`. */
export async function shownCertificate(port: number, host: string): Promise<PeerCertificate> {
  const socket = connect({ host: '127.0.0.1', port, servername: host, rejectUnauthorized: false });
  try {
    await once(socket, 'secureConnect');
    return socket.getPeerCertificate();
  } finally {
    socket.destroy();
  }
}
