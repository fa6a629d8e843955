/** The workers of a node: whether their ports can be had, and the pool between the edge and the meter. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Meter } from '#caas/meter.ts';
import { systemClock, waitFor } from '#clock';
import type { NodeConfig } from '#config';
import { startLoop } from '#lifecycle';
import { EcluseError } from '#errors';
import type { Log } from '#log';
import type { Predecessors } from '#proxy/generation/predecessors.ts';
import { probeAddresses } from '#proxy/port-probe.ts';
import type { TrafficReport } from '#proxy/protocol.ts';
import { WorkerPool } from '#proxy/worker-pool.ts';
import { allowMigratingRequests } from '#isolation/host-network.ts';
import { OPERATOR } from '#routing/operator/compile-settings.ts';
import type { Sql } from '#state/sql.ts';
import type { Edge } from './node-edge.ts';
import { nextGeneration, successorSocketOf } from './node-succession.ts';
import { currentTicketKeys } from '#tls/ticket-keys.ts';

/** Where a start before this one failed in order, workers of an earlier primary may still look, every 50 ms. */
const HELLO_LIMIT_MS = 500;
/** After a crash the old workers look for the next primary, which hears by then that they have its ports; an older program's close them. */
const OLD_WORKERS_LIMIT_MS = 6000;

/** Errors: those of `probeAddresses`, naming the flag that chooses another address. */
export async function checkPorts(config: NodeConfig, afterCrash: boolean, predecessors: Predecessors): Promise<void> {
  const { http, https, docker, metrics } = config.listen;
  const tryAll = async (): Promise<EcluseError | undefined> => {
    try {
      await probeAddresses({ http, https }, (address) => predecessors.listenOn(address));
      await probeAddresses({ http: docker, https: metrics });
      return undefined;
    } catch (error) {
      if (error instanceof EcluseError) return withFlag(config, error);
      throw error;
    }
  };
  let failure = await tryAll();
  if (failure !== undefined) {
    await waitFor(
      systemClock,
      async () => {
        failure = await tryAll();
        return failure === undefined ? true : undefined;
      },
      { limitMs: afterCrash ? OLD_WORKERS_LIMIT_MS : HELLO_LIMIT_MS, stepMs: 100 },
    );
  }
  if (failure !== undefined) throw failure;
}

/** The same error, naming the flag that chooses another address. */
function withFlag(config: NodeConfig, error: EcluseError): EcluseError {
  for (const name of ['http', 'https', 'docker', 'metrics'] as const) {
    const address = config.listen[name];
    const at = address === undefined ? '' : `${address.host}:${String(address.port)}`;
    // With what stands around it: port 80 is not port 8080.
    if (at === '' || !error.message.includes(` ${at}:`)) continue;
    return new EcluseError({
      code: error.code,
      source: error.source,
      message: error.message,
      mend: `stop it, or choose another address with --${name} ADDRESS:PORT (or listen.${name} in ecluse.yaml)`,
      cause: error,
    });
  }
  return error;
}

/** Endpoints of operators' own have no container, and what was answered without an endpoint has none either: nobody is billed for it. */
async function keepTraffic(meter: Meter, { epoch, number, deltas }: TrafficReport): Promise<void> {
  const traffic = deltas.flatMap(({ tenant, endpointId, requests, upstreamOutBytes, upstreamInBytes, heldMs, streamMs = 0 }) =>
    endpointId === undefined || tenant === OPERATOR
      ? []
      : [{ container: endpointId, requests, ingressBytes: upstreamOutBytes, egressBytes: upstreamInBytes, heldMs, streamMs }],
  );
  await meter.keepTraffic({ epoch, number, traffic });
}

/** They are renewed after hours. */
const TICKET_KEYS_CHECK_MS = 600_000;

interface WorkersDeps {
  readonly log: Log;
  readonly sql: Sql;
  readonly edge: Edge;
  readonly meter: Meter;
  readonly predecessors: Predecessors;
}

/** Starts the workers of this generation, and ends those of earlier ones. */
export async function openWorkers(
  config: NodeConfig,
  { log, sql, edge, meter, predecessors }: WorkersDeps,
): Promise<{ readonly pool: WorkerPool; readonly generation: number; readonly dispose: () => Promise<void> }> {
  await allowMigratingRequests(log);
  const generation = await nextGeneration(sql);
  const ticketKeys = async (): Promise<Uint8Array> => await currentTicketKeys(join(config.dataDir, 'tls'), systemClock.nowMs());
  const pool = await WorkerPool.open(
    { log, clock: systemClock },
    {
      workers: config.workers,
      workerFile: fileURLToPath(new URL('./worker.ts', import.meta.url)),
      listen: { http: config.listen.http, https: config.listen.https },
      accessLogFile: config.accessLogFile,
      logLevel: config.logLevel,
      limits: config.edge,
      trust: { trustedProxies: config.trustedProxies, proxyProtocol: config.proxyProtocol },
      redirect: config.redirect,
      unknownNames: config.unknownNames,
      issue: async (host) => await edge.issue(host),
      initial: await edge.initial(),
      certificates: edge.stock,
      ticketKeys: await ticketKeys(),
      succession: { generation, socketPath: successorSocketOf(config), predecessors },
      onTraffic: async (report) => {
        await keepTraffic(meter, report);
      },
      onWake: (endpointIds) => {
        edge.wanted(endpointIds);
      },
      ...(config.acme?.onDemand === undefined
        ? {}
        : {
            onCalled: (names: readonly string[]) => {
              edge.called(names);
            },
          }),
    },
  );
  edge.attach(pool);
  const rotation = startLoop(
    { log, clock: systemClock },
    {
      name: 'ticket-keys',
      periodMs: TICKET_KEYS_CHECK_MS,
      round: async () => {
        await pool.useTicketKeys(await ticketKeys());
      },
    },
  );
  const dispose = async (): Promise<void> => {
    edge.attach(undefined);
    await rotation[Symbol.asyncDispose]();
    await pool[Symbol.asyncDispose]();
  };
  return { pool, generation, dispose };
}
