/** What operators do to the edge's settings: read, change in one version, look back, go back. */
import * as z from 'zod';
import type { Clock } from '#clock';
import { EcluseError } from '#errors';
import { explainRequest } from '#routing/explain.ts';
import type { Question } from '#routing/explain.ts';
import { diffOf } from '#routing/operator/diff.ts';
import type { DiffEntry } from '#routing/operator/diff.ts';
import { lintSettings } from '#routing/operator/lint.ts';
import type { LintFinding } from '#routing/operator/lint.ts';
import type { RouteTable } from '#routing/route-table.ts';
import { routeSchema, serviceSchema } from '#routing/operator/schema.ts';
import type { EdgeDocument, Operation } from '#routing/operator/schema.ts';
import {
  documentOf,
  inverseOf,
  patchOfOperations,
  patchOnto,
  patchThen,
  patchToDocument,
  settingsWith,
} from '#routing/operator/settings.ts';
import type { EdgePatch, EdgeSettings, PatchReading, Problem } from '#routing/operator/settings.ts';
import { listConfigVersions, oldestConfigVersion, writeConfigVersion } from '#state/edge-settings.ts';
import type { ConfigCause } from '#state/edge-settings.ts';
import type { Sql } from '#state/sql.ts';
import type {
  ChangeRequest,
  EdgeControl,
  EdgeExplanation,
  SettingsReport,
  SettingsView,
  VersionView,
  WorkerVersion,
} from '#admin/edge-control.ts';
import type { Edge } from './node-edge.ts';

export interface EdgeSettingsDeps {
  readonly clock: Clock;
  readonly sql: Sql;
  readonly edge: Edge;
  /** What each worker serves now. */
  readonly workers: () => readonly WorkerVersion[];
  /** What the workers serve, compiled. */
  readonly table: () => RouteTable;
}

/** An answer is for people, or for a script that looks at the number first. */
const DIFF_MAX = 1000;

const patchSchema = z.strictObject({
  services: z.record(z.string(), serviceSchema.nullable()),
  hosts: z.record(z.string(), z.array(routeSchema)),
});

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
  async diff(since: number): Promise<readonly DiffEntry[]> {
    const { settings } = this.#deps.edge;
    const back = await this.#patchBackTo(since, settings);
    const then = settingsWith(settings, back);
    return diffOf(then, inverseOf(settings, back)).slice(0, DIFF_MAX);
  }

  /** The newest first. */
  async history(limit: number): Promise<readonly VersionView[]> {
    const versions = await listConfigVersions(this.#deps.sql, { limit });
    return versions.map(({ version, atMs, cause, note, patch }) => {
      const { services, hosts } = readPatch(patch);
      return { version, atMs, cause, note, services: Object.keys(services).length, hosts: Object.keys(hosts).length };
    });
  }

  async explain(question: Question, version: number | undefined): Promise<EdgeExplanation> {
    const { edge, table } = this.#deps;
    const now = table();
    const then = version === undefined ? now : edge.tableAs(now, await this.#patchBackTo(version, edge.settings), version);
    return { ...explainRequest(then, question), certificate: edge.certificateHostOf(question.host) };
  }

  async lint(): Promise<readonly LintFinding[]> {
    const { edge } = this.#deps;
    return await Promise.resolve(lintSettings(edge.settings, edge.containerRoutes));
  }

  async #patchBackTo(to: number, settings: EdgeSettings): Promise<EdgePatch> {
    const { sql, edge } = this.#deps;
    const oldest = await oldestConfigVersion(sql);
    if (to > edge.version) throw unknownVersion(to, `the newest is ${String(edge.version)}`);
    if (oldest > 0 && to < oldest - 1)
      throw unknownVersion(to, `it is not kept any more; ${String(oldest - 1)} is the oldest that can be gone back to`);
    const later = await listConfigVersions(sql, { above: to });
    const back = later.map(({ inverse }) => readPatch(inverse)).reduce(patchThen, { services: {}, hosts: {} });
    return patchOnto(settings, back);
  }

  async #change(
    cause: ConfigCause,
    { ifVersion, dryRun, note }: ChangeRequest,
    make: (settings: EdgeSettings) => Promise<EdgePatch>,
  ): Promise<SettingsReport> {
    const { edge, sql, clock, workers } = this.#deps;
    const makeIfSame = async (settings: EdgeSettings): Promise<EdgePatch> => {
      if (ifVersion !== undefined && ifVersion !== edge.settingsVersion) throw conflict(ifVersion, edge.settingsVersion);
      return await make(settings);
    };
    const persist = async (version: number, patch: EdgePatch, inverse: EdgePatch): Promise<void> => {
      const row = { version, atMs: clock.nowMs(), cause, note, patch: JSON.stringify(patch), inverse: JSON.stringify(inverse) };
      await writeConfigVersion(sql, row, {
        services: Object.entries(patch.services).map(([name, body]) => [name, body === null ? null : JSON.stringify(body)]),
        hosts: Object.entries(patch.hosts).map(([host, list]) => [host, list.length === 0 ? null : JSON.stringify(list)]),
      });
    };
    const { before, patch } = await edge.changeSettings(makeIfSame, dryRun ? undefined : persist);
    const diff = diffOf(before, patch);
    return {
      version: edge.settingsVersion,
      changed: diff.length > 0,
      dryRun,
      diff: diff.slice(0, DIFF_MAX),
      differences: diff.length,
      workers: workers(),
    };
  }
}

function readPatch(text: string): EdgePatch {
  return patchSchema.parse(JSON.parse(text));
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
