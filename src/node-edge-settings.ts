/** What operators do to the edge's settings: read, change in one version, look back, go back. */
import type { Clock } from '#clock';
import { EcluseError, reasonOf } from '#errors';
import type { Log } from '#log';
import type { EndpointHealth } from '#proxy/health/health-checks.ts';
import { explainRequest } from '#routing/explain.ts';
import type { Question } from '#routing/explain.ts';
import { writtenOf } from '#routing/operator/compile-settings.ts';
import { diffOf } from '#routing/operator/diff.ts';
import { lintSettings } from '#routing/operator/lint.ts';
import type { LintFinding } from '#routing/operator/lint.ts';
import type { RouteTable } from '#routing/route-table.ts';
import type { EdgeDocument, Operation } from '#routing/operator/schema.ts';
import {
  documentOf,
  inverseOf,
  isEmptyPatch,
  patchOfOperations,
  patchOnto,
  patchToDocument,
  settingsWith,
} from '#routing/operator/settings.ts';
import type { EdgePatch, EdgeSettings, PatchReading, Problem } from '#routing/operator/settings.ts';
import {
  forgetOldVersions,
  listConfigPatches,
  listConfigVersions,
  newestForgotten,
  writeConfigVersion,
} from '#state/edge-settings.ts';
import type { ConfigCause } from '#state/edge-settings.ts';
import type { Sql } from '#state/sql.ts';
import type {
  ChangeRequest,
  DiffView,
  EdgeControl,
  EdgeExplanation,
  EndpointHealthView,
  SettingsReport,
  SettingsView,
  VersionView,
  WorkerVersion,
} from '#admin/edge-control.ts';
import type { EdgeCertificates } from './node-certificates.ts';
import type { Edge } from './node-edge.ts';

export interface EdgeSettingsDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly edge: Edge;
  readonly certificates: EdgeCertificates;
  /** What each worker serves now. */
  readonly workers: () => readonly WorkerVersion[];
  /** What the workers serve, compiled. */
  readonly table: () => RouteTable;
  /** What health checks found. */
  readonly health: () => readonly EndpointHealth[];
}

/** An answer is for people, or for a script that looks at the number first. */
const DIFF_MAX = 1000;

export class EdgeSettingsControl implements EdgeControl {
  readonly #deps: EdgeSettingsDeps;

  constructor(deps: EdgeSettingsDeps) {
    this.#deps = deps;
  }

  async settings(): Promise<SettingsView> {
    const { edge } = this.#deps;
    return await Promise.resolve({ version: edge.settingsVersion, document: documentOf(edge.settings) });
  }

  /** Makes a whole document true. */
  async apply(document: EdgeDocument, request: ChangeRequest): Promise<SettingsReport> {
    return await this.#change(
      'apply',
      request,
      async (settings) => await Promise.resolve(patchOf(patchToDocument(settings, document))),
    );
  }

  /** All of the operations, or none. */
  async transact(operations: readonly Operation[], request: ChangeRequest): Promise<SettingsReport> {
    return await this.#change(
      'transaction',
      request,
      async (settings) => await Promise.resolve(patchOf(patchOfOperations(settings, operations))),
    );
  }

  /** Makes true what was true at an older version, under a new number. */
  async rollback(to: number, request: ChangeRequest): Promise<SettingsReport> {
    const note = request.note === '' ? `back to version ${String(to)}` : request.note;
    return await this.#change('rollback', { ...request, note }, async (settings) => await this.#patchBackTo(to, settings));
  }

  /** What differs between an older version and now. */
  async diff(since: number): Promise<DiffView> {
    const { settings } = this.#deps.edge;
    const back = await this.#patchBackTo(since, settings);
    const diff = diffOf(settingsWith(settings, back), inverseOf(settings, back));
    return { diff: diff.slice(0, DIFF_MAX), differences: diff.length };
  }

  /** The newest first. */
  async history(limit: number): Promise<readonly VersionView[]> {
    return await listConfigVersions(this.#deps.sql, limit);
  }

  async explain(question: Question, version: number | undefined): Promise<EdgeExplanation> {
    const { edge, table, certificates, health } = this.#deps;
    const now = table();
    const then = version === undefined ? now : edge.tableAs(now, await this.#patchBackTo(version, edge.settings), version);
    const found = new Map(health().map((one) => [one.endpointId, one]));
    const explanation = explainRequest(then, question, (endpointId) => found.get(endpointId)?.isHealthy === false);
    const checked = explanation.endpoints.flatMap(({ id }) => found.get(id) ?? []);
    const certificate = await certificates.explain(question.host, then);
    return { ...explanation, certificate, health: checked.map(healthView) };
  }

  async lint(): Promise<readonly LintFinding[]> {
    const { edge, certificates, clock } = this.#deps;
    return [...lintSettings(edge.settings, edge.containerRoutes, clock.nowMs()), ...(await certificates.lint())];
  }

  async health(): Promise<readonly EndpointHealthView[]> {
    return await Promise.resolve(this.#deps.health().map(healthView));
  }

  async #patchBackTo(to: number, settings: EdgeSettings): Promise<EdgePatch> {
    const { sql, edge } = this.#deps;
    if (to > edge.version) throw unknownVersion(to, `the newest is ${String(edge.version)}`);
    const forgotten = await newestForgotten(sql);
    if (to < forgotten)
      throw unknownVersion(to, `it is not kept any more; ${String(forgotten)} is the oldest that can be gone back to`);
    const back: Required<EdgePatch> = { services: {}, hosts: {}, caBundles: {} };
    // The newest first: what an older version found there is what counts.
    for (const { inverse } of await listConfigPatches(sql, to)) {
      const { services, hosts, caBundles } = readPatch(inverse);
      Object.assign(back.services, services);
      Object.assign(back.hosts, hosts);
      Object.assign(back.caBundles, caBundles);
    }
    return patchOnto(settings, back);
  }

  /** What cannot be forgotten now is the next change's. */
  async #forgetOld(): Promise<void> {
    const { sql, log } = this.#deps;
    await forgetOldVersions(sql).catch((error: unknown) => {
      log.warn({ reason: reasonOf(error) }, 'old config versions are still kept');
    });
  }

  async #change(
    cause: ConfigCause,
    { ifVersion, dryRun, note }: ChangeRequest,
    make: (settings: EdgeSettings) => Promise<EdgePatch>,
  ): Promise<SettingsReport> {
    const { edge, sql, clock, workers } = this.#deps;
    const makeIfSame = async (settings: EdgeSettings): Promise<EdgePatch> => {
      if (ifVersion !== undefined && ifVersion !== edge.settingsVersion) throw conflict(ifVersion, edge.settingsVersion);
      const patch = await make(settings);
      const problems = missingCertificates(patch, (name) => edge.certificates.get(name) !== undefined);
      return problems.length === 0 ? patch : patchOf({ kind: 'refused', problems });
    };
    const persist = async (version: number, patch: EdgePatch, inverse: EdgePatch): Promise<void> => {
      const row = { version, atMs: clock.nowMs(), cause, note, patch: JSON.stringify(patch), inverse: JSON.stringify(inverse) };
      await writeConfigVersion(sql, row, {
        services: Object.entries(patch.services).map(([name, body]) => [name, body === null ? null : JSON.stringify(body)]),
        hosts: Object.entries(patch.hosts).map(([host, list]) => [host, list.length === 0 ? null : JSON.stringify(list)]),
        caBundles: Object.entries(patch.caBundles ?? {}).map(([name, body]) => [
          name,
          body === null ? null : JSON.stringify(body),
        ]),
      });
    };
    const { before, patch } = await edge.changeSettings(makeIfSame, dryRun ? undefined : persist);
    if (!dryRun) await this.#forgetOld();
    const diff = diffOf(before, patch);
    return {
      version: edge.settingsVersion,
      changed: !isEmptyPatch(patch),
      dryRun,
      diff: diff.slice(0, DIFF_MAX),
      differences: diff.length,
      workers: workers().filter(({ version }) => version >= edge.settingsVersion),
    };
  }
}

function healthView({ serviceId, endpointId, isHealthy, reason, sinceMs, checkedMs }: EndpointHealth): EndpointHealthView {
  const { service, url } = writtenOf(serviceId, endpointId);
  return { service, endpoint: url, healthy: isHealthy, reason, sinceMs, checkedMs };
}

/** Of our own store: it was checked when it was written. */
function readPatch(text: string): EdgePatch {
  const value: unknown = JSON.parse(text);
  if (isPatch(value)) return value;
  throw new TypeError('state: a config version holds no patch');
}

function isPatch(value: unknown): value is EdgePatch {
  return typeof value === 'object' && value !== null && 'services' in value && 'hosts' in value;
}

/** Certificates that services are to show, and that are not there. */
function missingCertificates({ services }: EdgePatch, isThere: (name: string) => boolean): readonly Problem[] {
  return Object.entries(services).flatMap(([service, settings]) => {
    const name = settings?.tls?.clientCertificate;
    const path = `services.${service}.tls.clientCertificate`;
    return name === undefined || isThere(name) ? [] : [{ path, message: `there is no certificate "${name}" (ecluse cert ls)` }];
  });
}

function patchOf(reading: PatchReading): EdgePatch {
  if (reading.kind === 'patch') return reading.patch;
  throw new EcluseError({
    code: 'ECLUSE_CONFIG_REFUSED',
    source: 'config',
    status: 400,
    message: problemText(reading.problems),
    mend: 'nothing was changed; mend that and try again',
  });
}

function problemText(problems: readonly Problem[]): string {
  return problems.map(({ path, message }) => `${path}: ${message}`).join('\n');
}

function conflict(ifVersion: number, version: number): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_CONFIG_CONFLICT',
    source: 'usage',
    status: 412,
    message: `the change is for version ${String(ifVersion)} of the routes, and they are at version ${String(version)} by now`,
    mend: 'read them again, and make the change for what they are now',
  });
}

function unknownVersion(version: number, why: string): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_CONFIG_VERSION_UNKNOWN',
    source: 'usage',
    status: 404,
    message: `there is no version ${String(version)} to go by: ${why}`,
    mend: 'see: ecluse history',
  });
}
