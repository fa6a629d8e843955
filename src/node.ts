/**
 * The composition root of a node's primary process: constructs every part, in order, and takes them down in reverse.
 *
 * Order up:   lock → ports free? → store, CA → hosts (engines) → meter, containers, migrations (recovery) → workers → Docker endpoint,
 *             metrics → admin API → ready
 * Order down: admin API, Docker endpoint → workers drained → containers stopped → books closed → engines and networks gone → store
 */
import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { AdminApi } from '#admin/api.ts';
import { clearCrashedBuilds, closeCrashedBuilds } from '#caas/build/build-leftovers.ts';
import { reconcile, stopAll } from '#caas/container-recovery.ts';
import type { Gateway } from '#caas/docker-api/gateway.ts';
import { watchResolvers } from '#caas/dns/machine-resolvers.ts';
import { DnsResponder } from '#caas/dns/responder.ts';
import { watchEngine } from '#caas/engine/engine-events.ts';
import type { Host } from '#caas/host.ts';
import { NetworkFabric } from '#caas/networks/network-fabric.ts';
import { systemClock } from '#clock';
import { tryCommand } from '#command';
import type { NodeConfig } from '#config';
import { EcluseError, codeOf, errorLine, reasonOf } from '#errors';
import { linkAddressOf } from '#isolation/host-addresses.ts';
import { detectCgroups } from '#isolation/cgroup.ts';
import { readMachine } from '#isolation/cpu-features.ts';
import { probeRunsc } from '#isolation/runsc-probe.ts';
import { createLog } from '#log';
import type { Log } from '#log';
import { openSqlite } from '#state/sqlite.ts';
import type { Sql } from '#state/sql.ts';
import { openAuthority } from '#tls/authority.ts';
import type { Authority } from '#tls/authority.ts';
import { listSealingKeys } from '#state/certificates.ts';
import { HostCertificates } from '#tls/host-certificates.ts';
import { KeySeal } from '#tls/key-seal.ts';
import { CertificateReader } from './node-certificate-reader.ts';
import { EdgeCertificates } from './node-certificates.ts';
import { NodeOperations } from './node-control.ts';
import type { NodeParts } from './node-control.ts';
import { openContainerPlane } from './node-containers.ts';
import { watchIdle } from '#caas/sleep/idle-watch.ts';
import { watchSnapshots } from '#caas/snapshots/snapshot-watch.ts';
import { NodeAcme } from './node-acme.ts';
import { Edge } from './node-edge.ts';
import { openLedgerKeys } from './node-ledger-key.ts';
import { Books, takeUpLedger } from './node-metering.ts';
import { checkPorts, openWorkers } from './node-workers.ts';
import { closeHosts, openHosts } from './node-hosts.ts';
import { takeNodeLock } from './node-lock.ts';
import { becomeSuccessor, handOver, openPredecessors, signalBefore } from './node-succession.ts';
import type { UpgradeOrder } from './node-succession.ts';
import { Reloads } from './node-reload.ts';
import type { LiveConfig } from './node-reload.ts';
import { openFront } from './node-front.ts';

/**
 * For connections to end, and then for containers, when the node stops. The whole stop is promised within 10 s, and engines, networks and
 * what is killed at last take 2.5 s of them on a slow machine.
 */
const STOP_BUDGET_MS = 5_000;
const STOP_GRACE_SECONDS_MIN = 2;
type Say = (line: string) => void;

interface RunningNode extends NodeParts {
  readonly log: Log;
  readonly authority: Authority;
  /** Hands over to the next generation: containers, engines and workers stay. To be followed by the end of this process. */
  readonly leave: (order: UpgradeOrder) => Promise<void>;
  readonly dispose: () => Promise<void>;
}

async function prepareData(config: NodeConfig): Promise<void> {
  await mkdir(config.dataDir, { recursive: true, mode: 0o711 });
  await mkdir(dirname(config.accessLogFile), { recursive: true, mode: 0o750 });
}

/** What to do where the system refuses a file of the data directory, by error code. */
const FILE_MENDS: Readonly<Record<string, string>> = {
  ENOSPC: 'free space on that file system',
  EDQUOT: 'raise the quota or free space',
  EROFS: 'mount that file system for writing, or choose another directory with --data',
  EACCES: 'check its owner and mode, or choose another directory with --data',
  EPERM: 'check its owner and mode, or choose another directory with --data',
  ENOTDIR: 'choose another directory with --data',
  EEXIST: 'choose another directory with --data',
  EIO: 'check the disk',
};

/** Does work on files of the data directory. Errors of the system become ECLUSE_DATA_UNUSABLE, which names the directory. */
async function inData<T>(config: NodeConfig, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const mend = FILE_MENDS[codeOf(error) ?? ''];
    if (mend === undefined) throw error;
    throw new EcluseError({
      code: 'ECLUSE_DATA_UNUSABLE',
      source: 'runtime',
      message: `the data directory ${config.dataDir} cannot be used: ${reasonOf(error)}`,
      mend,
      cause: error,
    });
  }
}

async function openState(
  config: NodeConfig,
  stack: AsyncDisposableStack,
  { log, say: tell }: { readonly log: Log; readonly say: Say },
): Promise<{
  readonly sql: Sql;
  readonly authority: Authority;
  readonly hostCertificates: HostCertificates;
  readonly seal: KeySeal;
  readonly reader: CertificateReader;
  readonly books: Books;
}> {
  const storeFile = join(config.dataDir, 'ecluse.db');
  const sql = stack.use(openSqlite(storeFile));
  const folder = join(config.dataDir, 'tls');
  const authority = await openAuthority(folder, { clock: systemClock });
  const hostCertificates = await HostCertificates.open(folder, { authority, clock: systemClock });
  await takeUpLedger({ sql, log }, tell);
  const seal = await KeySeal.open(folder, await listSealingKeys(sql));
  const reader = stack.use(new CertificateReader({ log, sql, storeFile, seal }));
  const keys = await openLedgerKeys(folder, { log, sql, clock: systemClock });
  return { sql, authority, hostCertificates, seal, reader, books: new Books({ log, clock: systemClock, sql, keys }) };
}

/** The name service listens on every host's own address, where its containers' questions are led. */
async function listenForNames(responder: DnsResponder, hosts: ReadonlyMap<string, Host>): Promise<ReadonlyMap<string, number>> {
  const ports = new Map<string, number>();
  for (const host of hosts.values()) ports.set(host.name, await responder.listen(linkAddressOf(host.network)));
  return ports;
}

/** Hands over: nothing that is on the machine goes, and what this process alone knows is written down. */
async function leaveNode(
  {
    log,
    api,
    gateway,
    migrations,
    sleepers,
    acme,
    edge,
    pool,
    meter,
    books,
    sql,
  }: NodeParts & {
    readonly api: AdminApi;
    readonly gateway: Gateway | undefined;
  },
  { drainMs }: UpgradeOrder,
): Promise<void> {
  await handOver(log, [
    ['admin API', async () => await api[Symbol.asyncDispose]()],
    ['moves', async () => await migrations[Symbol.asyncDispose]()],
    ['Docker endpoint', async () => await gateway?.[Symbol.asyncDispose]()],
    ['sleepers', async () => await sleepers[Symbol.asyncDispose]()],
    ['ACME', async () => await acme?.[Symbol.asyncDispose]()],
    [
      'workers',
      async () => {
        edge.attach(undefined); // What is published from here on the next generation reads in the store.
        await pool.detach(drainMs);
      },
    ],
    ['sums', async () => await books[Symbol.asyncDispose]()],
    ['books', async () => await meter[Symbol.asyncDispose]()],
    ['store', async () => await sql[Symbol.asyncDispose]()],
  ]);
}

/** How it is told what to do. */
interface Orders {
  readonly readConfig: () => Promise<NodeConfig>;
  readonly upgrade: (order: UpgradeOrder) => void;
}

type HostDeps = Omit<Parameters<typeof openHosts>[0], 'readPolicy'> & { readonly sql: Sql };

/** Hosts with their networks, on which names are answered. */
async function openFabric(
  deps: HostDeps,
  config: NodeConfig,
  stack: AsyncDisposableStack,
): Promise<{ readonly fabric: NetworkFabric; readonly hosts: ReadonlyMap<string, Host> }> {
  const { log, clock, sql } = deps;
  const fabric = new NetworkFabric(sql);
  const hostDeps = { ...deps, readPolicy: async (host: string) => await fabric.policyOf(host) };
  const hosts = await inData(config, async () => await openHosts(hostDeps, { dataDir: config.dataDir, wishes: config.hosts }));
  stack.defer(async () => await closeHosts(sql, hosts));
  const responder = new DnsResponder({ log, clock, names: () => fabric.names(), resolvers: watchResolvers(clock) });
  stack.use(responder);
  await fabric.attach(hosts, await listenForNames(responder, hosts));
  return { fabric, hosts };
}

/** Brings store and engines together, as an earlier daemon left them, and watches the engines from then on. */
async function takeOver(recovery: Parameters<typeof reconcile>[0], stack: AsyncDisposableStack): Promise<void> {
  const { log, clock, hosts, containers, meter } = recovery;
  await reconcile(recovery);
  for (const host of hosts.values()) await clearCrashedBuilds(recovery, host);
  await closeCrashedBuilds(recovery, meter, hosts);
  for (const host of hosts.values()) stack.use(watchEngine({ log, clock, containers }, host));
}

async function openNode(config: NodeConfig, log: Log, say: Say, orders: Orders): Promise<RunningNode> {
  await using stack = new AsyncDisposableStack();
  const [clock, startedMs] = [systemClock, systemClock.nowMs()];
  const live: LiveConfig = { config };
  const domain = (): string => live.config.domain;
  const lock = await inData(config, async () => {
    await prepareData(config);
    return stack.use(await takeNodeLock(config.dataDir));
  });
  const predecessors = stack.use(await inData(config, async () => await openPredecessors(config, log)));
  await checkPorts(config, lock.afterCrash, predecessors);
  const state = await inData(config, async () => await openState(config, stack, { log, say }));
  const { sql, authority, hostCertificates, seal, reader, books } = state;
  const cgroups = await detectCgroups();
  const [runsc, machine] = await Promise.all([probeRunsc(), readMachine()]);

  say(`starting ${config.hosts.map((host) => `host ${host.name} (${host.engine})`).join(', ')}`);
  const { fabric, hosts } = await openFabric({ log, clock, sql, cgroups, runsc, machine }, config, stack);
  const edge = new Edge({
    log,
    clock,
    sql,
    certificates: hostCertificates,
    added: reader,
    domain,
    wake: (ids) => books.wake(ids, plane.sleepers, edge),
  });
  const certificates = new EdgeCertificates({ log, clock, sql, seal, edge, unknownNames: config.unknownNames });
  const plane = await openContainerPlane(
    { log, clock, sql, cgroups, hosts, fabric, authority, activator: edge, domain },
    config,
    stack,
  );
  const { containers, meter, migrations, volumes } = plane;
  const recovery = { log, clock, sql, hosts, containers, volumes };
  let drainMs = 0;
  stack.defer(async () => {
    say('stopping containers');
    const leftSeconds = Math.round((STOP_BUDGET_MS - drainMs) / 1000); // Engines count whole seconds.
    await stopAll(recovery, Math.max(leftSeconds, STOP_GRACE_SECONDS_MIN));
  });
  stack.use(migrations); // What is owed is put right no more: it could start what was stopped.
  await plane.recover();
  say('taking over containers');
  await takeOver({ ...recovery, meter }, stack);

  const workers = await openWorkers(config, { log, sql, edge, meter, predecessors });
  const { pool, generation } = workers;
  stack.defer(async () => {
    say('draining connections');
    const sinceMs = clock.monotonicMs();
    await workers.dispose();
    drainMs = clock.monotonicMs() - sinceMs;
  });
  const acme = stack.use(await NodeAcme.openWhere(config.acme, { log, clock, sql, seal, edge, certificates, pool }));
  stack.use(watchIdle({ log, clock, containers, sleepers: plane.sleepers, useOf: (id) => pool.useOf(id) }));
  stack.use(books.start(plane));
  stack.use(watchSnapshots({ log, clock, containers, snapshots: plane.snapshots }));
  const front = await openFront(live, { ...plane, log, clock, sql, hosts, edge, pool, acme, authority, runsc }, stack);
  const { fleet, onDomain } = front;
  const reloads = new Reloads({ log, clock, sql, live, readConfig: orders.readConfig, pool, edge, fleet, onDomain });
  const own = { log, clock, sql, config, live, hosts, pool, edge, certificates, acme, books };
  const parts: NodeParts = { ...plane, ...front, ...own, reloads, startedMs, generation, order: orders.upgrade };
  const api = await AdminApi.open({ control: new NodeOperations(parts), log }, { socketPath: config.listen.adminSocket });
  stack.use(api);
  stack.use(migrations); // Before all else, too: a move that is under way goes back while there is still everything that it needs.
  const all = stack.move();
  const leave = async (how: UpgradeOrder): Promise<void> => {
    await leaveNode({ ...parts, api, gateway: front.gateway }, how);
  };
  return { ...parts, log, authority, leave, dispose: async () => await all.disposeAsync() };
}

/** Tells systemd (`Type=notify`) what the node is doing; without one nobody listens. */
async function notifySupervisor(state: 'READY=1' | 'RELOADING=1' | 'STOPPING=1'): Promise<void> {
  if (process.env['NOTIFY_SOCKET'] !== undefined) await tryCommand('systemd-notify', [state]);
}

/** Resolves at the first SIGINT or SIGTERM; later ones are ignored, because the stop has its own limits. */
async function stopSignal(): Promise<NodeJS.Signals> {
  const early = signalBefore();
  return await new Promise((resolve) => {
    if (early !== undefined) resolve(early);
    process.on('SIGINT', resolve);
    process.on('SIGTERM', resolve);
    process.on('SIGHUP', () => undefined); // A closed terminal is no reason to stop a node. What it means is for one that runs.
  });
}

/** Where several parts failed to go, the first one's error. */
function firstOf(thrown: unknown): unknown {
  return thrown instanceof SuppressedError ? firstOf(thrown.suppressed) : thrown;
}

const say: Say = (line) => process.stdout.write(`ecluse: ${line}\n`);

/** Ends in the next generation. Throws where it cannot: what was handed over already is lost to this process, which has to end. */
async function replace(node: RunningNode, order: UpgradeOrder, stopped: Promise<NodeJS.Signals>): Promise<never> {
  say('upgrade: handing over to the next generation');
  let signal: NodeJS.Signals | undefined;
  void stopped.then((received) => (signal = received));
  await notifySupervisor('RELOADING=1');
  await node.leave(order);
  becomeSuccessor(signal);
  throw new Error('the next generation could not be started');
}

/** Runs a node until it is told to stop. `readConfig` reads the configuration anew. Returns the exit code. Errors before "ready" are thrown, with everything undone. */
export async function runNode(config: NodeConfig, readConfig: () => Promise<NodeConfig>): Promise<number> {
  if (process.geteuid?.() !== 0) {
    throw new EcluseError({
      code: 'ECLUSE_NOT_ROOT',
      source: 'usage',
      message: 'a node must run as root: it makes network namespaces, cgroups and sandboxes',
      mend: 'start it with sudo, or as a system service',
    });
  }
  const log = createLog(config.logLevel);
  const startMs = systemClock.monotonicMs();
  const stopped = stopSignal();
  const ordered = Promise.withResolvers<UpgradeOrder>();
  const node = await openNode(config, log, say, { readConfig, upgrade: ordered.resolve });
  process.on('SIGHUP', () => void node.reloads.hangUp());
  let exitCode = 0;
  try {
    if (config.demo) {
      const { prepareDemo } = await import('./demo.ts');
      const demo = await Promise.race([prepareDemo(node, say), stopped.then(() => undefined)]);
      if (demo !== undefined) for (const line of demo.tour) process.stdout.write(`${line}\n`);
    }
    say(`ready in ${((systemClock.monotonicMs() - startMs) / 1000).toFixed(1)} s`);
    await notifySupervisor('READY=1');
    const end = await Promise.race([stopped, ordered.promise]);
    if (typeof end === 'object') return await replace(node, end, stopped);
    say(`${end}: stopping`);
    await notifySupervisor('STOPPING=1');
  } catch (error) {
    process.stderr.write(`ecluse: ${errorLine(error)}\n`);
    exitCode = 1;
  }
  const stopMs = systemClock.monotonicMs();
  try {
    await node.dispose();
  } catch (error) {
    // Everything else was taken down all the same.
    process.stderr.write(`ecluse: the stop was not complete: ${errorLine(firstOf(error))}\n`);
    exitCode = 1;
  }
  say(`stopped in ${((systemClock.monotonicMs() - stopMs) / 1000).toFixed(1)} s`);
  return exitCode;
}
