/**
 * The CLI's side of the admin socket. It offers what the node offers (`NodeControl`), so a command cannot tell where it runs.
 *
 * The answers are not checked field by field: the daemon is the same program, started from the same package.
 */
import { request as startRequest } from 'node:http';
import type { DrainReport } from '#caas/rebalance/drain.ts';
import type { RebalanceReport } from '#caas/rebalance/rebalancer.ts';
import type { HostState } from '#state/hosts.ts';
import type { CloneReport } from '#caas/snapshots/clones.ts';
import type { RestoreReport } from '#caas/snapshots/restores.ts';
import type { SnapshotReport } from '#caas/snapshots/snapshots.ts';
import type { SleepReport, WakeReport } from '#caas/sleep/sleepers.ts';
import type { ChainVerdict, ExportPage, ExportRange, VerifyProgress } from '#caas/ledger-proof.ts';
import type { MigrationReport } from '#caas/migration/move.ts';
import type { MigrationProgress } from '#caas/migration/move-times.ts';
import type { IncomingMessage } from 'node:http';
import { StringDecoder } from 'node:string_decoder';
import type { UsageTotal } from '#caas/usage.ts';
import { EcluseError, codeOf, reasonOf } from '#errors';
import { QUANTITY_NAMES } from '#metering/ledger-chain.ts';
import type { ExportEnd } from '#metering/ledger-head.ts';
import { checkSocketPath } from '#node-paths';
import type { Change } from '#state/change-log.ts';
import type { KnownKey } from '#state/ledger-heads.ts';
import type { Tenant } from '#state/tenants.ts';
import type { LintFinding } from '#routing/operator/lint.ts';
import { withQuery } from './admin-call.ts';
import type { Call } from './admin-call.ts';
import { errorFromApi } from './api-error.ts';
import type { CertificateAdded, CertificateControl, CertificateList } from './certificate-control.ts';
import type {
  ChangeRequest,
  DiffView,
  EdgeControl,
  EdgeExplanation,
  EndpointHealthView,
  SettingsReport,
  SettingsView,
  VersionView,
} from './edge-control.ts';
import type { IssueAnswer, IssueProgress, LedgerControl } from './metering-control.ts';
import { ifMatchHeader } from './entity-tag.ts';
import { exactJson, parseExactJson } from './exact-json.ts';
import { priceClient } from './price-client.ts';
import { ANSWER_BYTES_MAX, ANSWER_TIMEOUT_MS, LIFECYCLE_TIMEOUT_MS } from './limits.ts';
import type {
  ContainerExplanation,
  ContainerReading,
  ContainerView,
  FleetProgress,
  HostSettings,
  NodeControl,
  NodeStatus,
  ReloadReport,
  SnapshotView,
  TenantEnv,
  TenantView,
  UpgradeBegun,
} from './node-control.ts';

export interface AdminClient extends NodeControl {
  /** The newest `count` changes, oldest first. */
  latestChanges(count: number): Promise<readonly Change[]>;
  /** Changes as they happen, after the cursor; undefined: from now on. Ends when the daemon ends the stream. */
  follow(after: number | undefined): AsyncIterable<Change>;
}

/** Integers that can exceed what a double holds. */
const USAGE_BIGINTS: ReadonlySet<string> = new Set(QUANTITY_NAMES);
const NO_BIGINTS: ReadonlySet<string> = new Set();

/** A client of the daemon at `socketPath`; nothing is connected before the first call. */
export function createAdminClient(socketPath: string): AdminClient {
  checkSocketPath(socketPath);
  const ask = async <T>(call: Call): Promise<T> => await askJson<T>(socketPath, call);
  const get = async <T>(path: string, query: Readonly<Record<string, string | undefined>> = {}): Promise<T> =>
    await ask<T>({ method: 'GET', path: withQuery(path, query) });
  return {
    status: async () => await get<NodeStatus>('status'),
    reload: async () => await ask<ReloadReport>({ method: 'POST', path: 'reload' }),
    upgrade: async (body) => await ask<UpgradeBegun>({ method: 'POST', path: 'upgrade', body }),
    tenants: async () => (await get<{ tenants: readonly TenantView[] }>('tenants')).tenants,
    addTenant: async (body) => await ask<TenantView>({ method: 'POST', path: 'tenants', body }),
    tenant: async (name) => await get<Tenant>(`tenants/${encodeURIComponent(name)}`),
    setTenant: async (name, body, ifMatch) =>
      await ask<TenantView>({
        method: 'PATCH',
        path: `tenants/${encodeURIComponent(name)}`,
        body,
        headers: ifMatchHeader(ifMatch),
      }),
    removeTenant: async (name, ifMatch) => {
      await ask({ method: 'DELETE', path: `tenants/${encodeURIComponent(name)}`, headers: ifMatchHeader(ifMatch) });
    },
    tenantEnv: async (name) => await get<TenantEnv>(`tenants/${encodeURIComponent(name)}/env`),
    containers: async ({ all, tenant }) =>
      (await get<{ containers: readonly ContainerView[] }>('containers', { all: all ? '1' : '0', tenant })).containers,
    container: async (container) => await get<ContainerView>(`containers/${encodeURIComponent(container)}`),
    explainContainer: async (container) =>
      await get<ContainerExplanation>(`containers/${encodeURIComponent(container)}/placement`),
    readings: async () => (await get<{ readings: readonly ContainerReading[] }>('readings')).readings,
    usage: async ({ tenant, sinceMs, untilMs, by }) => {
      const path = withQuery('usage', { tenant, since: String(sinceMs), until: String(untilMs), by });
      return (await ask<{ usage: readonly UsageTotal[] }>({ method: 'GET', path, bigints: USAGE_BIGINTS })).usage;
    },
    cancelMigration: async (container) => {
      await ask({ method: 'DELETE', path: `containers/${encodeURIComponent(container)}/migrate` });
    },
    suspend: async (container) => await ask<SleepReport>(lifecycleCall(container, 'suspend')),
    wake: async (container) => await ask<WakeReport>(lifecycleCall(container, 'wake')),
    clone: async (container, count) => await ask<CloneReport>({ ...lifecycleCall(container, 'clone'), body: { count } }),
    snapshot: async (container) => await ask<SnapshotReport>(lifecycleCall(container, 'snapshot')),
    snapshots: async () => (await get<{ snapshots: readonly SnapshotView[] }>('snapshots')).snapshots,
    findSnapshot: async (snapshot) => await get<SnapshotView>(`snapshots/${encodeURIComponent(snapshot)}`),
    removeSnapshot: async (snapshot, ifMatch) => {
      await ask({ method: 'DELETE', path: `snapshots/${encodeURIComponent(snapshot)}`, headers: ifMatchHeader(ifMatch) });
    },
    restore: async (reference, target) =>
      await ask<RestoreReport>({
        method: 'POST',
        path: `snapshots/${encodeURIComponent(reference)}/restore`,
        body: target === undefined ? {} : { to: target },
        patienceMs: LIFECYCLE_TIMEOUT_MS,
      }),
    ...fleetClient(socketPath, ask),
    edge: edgeClient(ask),
    certificates: certificateClient(ask),
    ledger: ledgerClient(socketPath, ask),
    prices: priceClient(
      ask,
      async (call, onProgress) => await tellLines<IssueProgress, IssueAnswer>(socketPath, call, onProgress),
    ),
    changes: async (cursor, limit) =>
      (await get<{ changes: readonly Change[] }>('changes', { after: String(cursor), limit: String(limit) })).changes,
    latestChanges: async (count) =>
      (await get<{ changes: readonly Change[] }>('changes', { latest: '1', limit: String(count) })).changes,
    follow: (after) => follow(socketPath, after),
  };
}

/** What moves containers. */
function fleetClient(
  socketPath: string,
  ask: <T>(call: Call) => Promise<T>,
): Pick<NodeControl, 'migrate' | 'host' | 'drainHost' | 'undrainHost' | 'rebalance'> {
  return {
    migrate: async (container, { ifMatch, ...body }, onProgress) =>
      await tellLines<MigrationProgress, MigrationReport>(
        socketPath,
        { path: `containers/${encodeURIComponent(container)}/migrate`, body, headers: ifMatchHeader(ifMatch) },
        onProgress,
      ),
    host: async (name) => await ask<HostSettings>({ method: 'GET', path: `hosts/${encodeURIComponent(name)}` }),
    drainHost: async (host, { ifMatch, ...body }, onProgress) =>
      await tellLines<FleetProgress, DrainReport>(
        socketPath,
        { path: `hosts/${encodeURIComponent(host)}/drain`, body, headers: ifMatchHeader(ifMatch) },
        onProgress,
      ),
    undrainHost: async (host, ifMatch) =>
      await ask<{ host: string; state: HostState }>({
        method: 'POST',
        path: `hosts/${encodeURIComponent(host)}/undrain`,
        headers: ifMatchHeader(ifMatch),
      }),
    rebalance: async (body, onProgress) =>
      await tellLines<FleetProgress, RebalanceReport>(socketPath, { path: 'rebalance', body }, onProgress),
  };
}

function edgeClient(ask: <T>(call: Call) => Promise<T>): EdgeControl {
  const change = async (call: Call, { ifVersion, dryRun, note }: ChangeRequest): Promise<SettingsReport> =>
    await ask<SettingsReport>({
      ...call,
      path: withQuery(call.path, { dryRun: dryRun ? '1' : undefined, note: note === '' ? undefined : note }),
      ...(ifVersion === undefined ? {} : { headers: { 'if-match': `"${String(ifVersion)}"` } }),
    });
  const get = async <T>(path: string, query: Readonly<Record<string, string | undefined>> = {}): Promise<T> =>
    await ask<T>({ method: 'GET', path: withQuery(path, query) });
  return {
    settings: async () => await get<SettingsView>('config'),
    apply: async (document, request) => await change({ method: 'PUT', path: 'config', body: document }, request),
    transact: async (operations, request) => await change({ method: 'POST', path: 'tx', body: { operations } }, request),
    rollback: async (to, request) => await change({ method: 'POST', path: 'config/rollback', body: { to } }, request),
    history: async (limit) =>
      (await get<{ versions: readonly VersionView[] }>('config/history', { limit: String(limit) })).versions,
    diff: async (since) => await get<DiffView>('config/diff', { since: String(since) }),
    lint: async () => (await get<{ findings: readonly LintFinding[] }>('config/lint')).findings,
    health: async () => (await get<{ endpoints: readonly EndpointHealthView[] }>('services/health')).endpoints,
    explain: async ({ host, target, method, headers }, version) =>
      await get<EdgeExplanation>('explain', {
        host,
        target,
        method,
        headers: JSON.stringify(headers),
        version: version === undefined ? undefined : String(version),
      }),
  };
}

function certificateClient(ask: <T>(call: Call) => Promise<T>): CertificateControl {
  return {
    list: async () => await ask<CertificateList>({ method: 'GET', path: 'certs' }),
    renew: async (body) => await ask<{ readonly hosts: number }>({ method: 'POST', path: 'cert-renewals', body }),
    add: async (body) => await ask<CertificateAdded>({ method: 'POST', path: 'certs', body }),
    remove: async (name) => {
      await ask({ method: 'DELETE', path: `certs/${encodeURIComponent(name)}` });
    },
  };
}

function ledgerClient(socketPath: string, ask: <T>(call: Call) => Promise<T>): LedgerControl {
  const get = async <T>(path: string, query: Readonly<Record<string, string | undefined>> = {}): Promise<T> =>
    await ask<T>({ method: 'GET', path: withQuery(path, query) });
  return {
    keys: async () => (await get<{ keys: readonly KnownKey[] }>('ledger/keys')).keys,
    verify: async ({ tenant, fromDay, toDay }, onProgress) => {
      const path = withQuery('ledger/verify', { tenant, from: fromDay, to: toDay });
      return (await tellLines<VerifyProgress, { chains: readonly ChainVerdict[] }>(socketPath, { path, body: {} }, onProgress))
        .chains;
    },
    exportRange: async (tenant, { fromDay, toDay }) =>
      await get<ExportRange>('ledger/export', { tenant, from: fromDay, to: toDay }),
    exportPage: async (tenant, after, until) =>
      await get<ExportPage>('ledger/rows', { tenant, after: String(after), until: String(until) }),
    exportEnd: async (body) => await ask<ExportEnd>({ method: 'POST', path: 'ledger/end', body }),
    correct: async ({ memoryByteMs, diskByteMs, ...body }) =>
      await ask<{ tenant: string; container: string }>({
        method: 'POST',
        path: 'ledger/corrections',
        body: { ...body, memoryByteMs: String(memoryByteMs), diskByteMs: String(diskByteMs) },
      }),
  };
}

function lifecycleCall(container: string, verb: string): Call {
  return { method: 'POST', path: `containers/${encodeURIComponent(container)}/${verb}`, patienceMs: LIFECYCLE_TIMEOUT_MS };
}

/** What stands between the command and the daemon, in words. */
function connectionError(socketPath: string, thrown: unknown): EcluseError {
  const code = codeOf(thrown);
  if (code === 'ENOENT' || code === 'ECONNREFUSED' || code === 'ENOTDIR') {
    return new EcluseError({
      code: 'ECLUSE_NO_DAEMON',
      source: 'usage',
      message: `no ecluse daemon answers at ${socketPath}`,
      mend: 'start it with: ecluse up (or name its data directory with --data)',
      cause: thrown,
    });
  }
  if (code === 'EACCES' || code === 'EPERM') {
    return new EcluseError({
      code: 'ECLUSE_NO_PERMISSION',
      source: 'usage',
      message: `this user may not open the admin socket ${socketPath}`,
      mend: 'run the command as the user that runs the daemon, for instance with sudo',
      cause: thrown,
    });
  }
  return new EcluseError({
    code: 'ECLUSE_ADMIN_CONNECTION',
    source: 'runtime',
    message: `the connection to the daemon at ${socketPath} failed: ${reasonOf(thrown)}`,
    mend: 'see whether it still runs: ecluse status',
    cause: thrown,
  });
}

/** Sends a request; resolves with the head of the answer. `timeoutMs` bounds silence; 0: no bound. */
async function send(socketPath: string, call: Call, timeoutMs: number): Promise<IncomingMessage> {
  return await new Promise((resolve, reject) => {
    const body = call.body === undefined ? undefined : exactJson(call.body);
    const request = startRequest({
      socketPath,
      method: call.method,
      path: `/v1/${call.path}`,
      agent: false,
      headers: {
        host: 'ecluse',
        ...call.headers,
        ...(body === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }),
      },
    });
    request.on('response', (response) => {
      response.on('error', () => undefined); // Whoever reads it is told; a daemon may die before anybody does.
      resolve(response);
    });
    request.on('error', (error) => {
      reject(connectionError(socketPath, error));
    });
    if (timeoutMs > 0) {
      request.setTimeout(timeoutMs, () => {
        request.destroy(new Error(`it said nothing for ${String(timeoutMs / 1000)} s`));
      });
    }
    request.end(body);
  });
}

async function readText(socketPath: string, response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of response) {
      if (!Buffer.isBuffer(chunk)) continue; // Nobody sets an encoding, so every chunk is one.
      length += chunk.length;
      if (length > ANSWER_BYTES_MAX) throw new Error(`the answer has more than ${String(ANSWER_BYTES_MAX)} bytes`);
      chunks.push(chunk);
    }
  } catch (error) {
    throw connectionError(socketPath, error);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function parse(socketPath: string, text: string, bigints: ReadonlySet<string>): unknown {
  try {
    return parseExactJson(text, bigints);
  } catch (error) {
    throw connectionError(socketPath, new Error('what answers there is no ecluse daemon', { cause: error }));
  }
}

function memberOf(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, key) : undefined;
}

async function askJson<T>(socketPath: string, call: Call): Promise<T> {
  const response = await send(socketPath, call, call.patienceMs ?? ANSWER_TIMEOUT_MS);
  const text = await readText(socketPath, response);
  const status = response.statusCode ?? 0;
  const value = text === '' ? undefined : parse(socketPath, text, call.bigints ?? NO_BIGINTS);
  if (status >= 400) throw errorFromApi(memberOf(value, 'error'), status);
  return trusted<T>(value);
}

/** The one place where an answer becomes typed: see the head of the file. */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- that is what it is for
function trusted<T>(value: unknown): T {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the other side is the same program
  return value as T;
}

/** The lines of an answer. Errors: what cut it off. */
async function* linesOf(response: IncomingMessage): AsyncGenerator<string, void, void> {
  const decoder = new StringDecoder('utf8');
  let rest = '';
  for await (const chunk of response) {
    if (!Buffer.isBuffer(chunk)) continue; // Nobody sets an encoding, so every chunk is one.
    const lines = `${rest}${decoder.write(chunk)}`.split('\n');
    rest = lines.pop() ?? '';
    yield* lines;
  }
  if (rest !== '') yield rest;
}

/** What is told line by line: `{"progress":…}`, then `{"report":…}` or `{"error":…}`. */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- see `trusted`
async function tellLines<P, R>(
  socketPath: string,
  call: Pick<Call, 'path' | 'body' | 'headers'>,
  onProgress: (progress: P) => void,
): Promise<R> {
  const response = await send(socketPath, { ...call, method: 'POST' }, 0);
  try {
    for await (const text of linesOf(response)) {
      const line = parse(socketPath, text, NO_BIGINTS);
      const error = memberOf(line, 'error');
      if (error !== undefined) throw errorFromApi(error, response.statusCode ?? 0);
      const report = memberOf(line, 'report');
      if (report !== undefined) return trusted<R>(report);
      onProgress(trusted<P>(memberOf(line, 'progress')));
    }
  } catch (error) {
    throw error instanceof EcluseError ? error : connectionError(socketPath, error);
  }
  throw connectionError(socketPath, new Error('the daemon ended before the work did'));
}

async function* follow(socketPath: string, after: number | undefined): AsyncGenerator<Change, void, void> {
  const path = withQuery('events', { after: after === undefined ? undefined : String(after) });
  const response = await send(socketPath, { method: 'GET', path }, 0);
  const status = response.statusCode ?? 0;
  if (status >= 400) {
    throw errorFromApi(memberOf(parse(socketPath, await readText(socketPath, response), NO_BIGINTS), 'error'), status);
  }
  try {
    for await (const line of linesOf(response)) {
      if (line.startsWith('data: ')) yield trusted<Change>(parse(socketPath, line.slice('data: '.length), NO_BIGINTS));
    }
  } catch (error) {
    throw error instanceof EcluseError ? error : connectionError(socketPath, error);
  }
}
