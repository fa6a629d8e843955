/** What an operator can see and change of the edge's settings. */
import type { CertificateExplanation } from './certificate-control.ts';
import type { Explanation, Question } from '#routing/explain.ts';
import type { DiffEntry } from '#routing/operator/diff.ts';
import type { LintFinding } from '#routing/operator/lint.ts';
import type { EdgeDocument, Operation } from '#routing/operator/schema.ts';

export interface SettingsView {
  /** In which operators changed something last; 0: they never did. It is the ETag. */
  readonly version: number;
  readonly document: EdgeDocument;
}

export interface ChangeRequest {
  /** The version that the change was made for; undefined: whatever there is. */
  readonly ifVersion: number | undefined;
  /** Says what would change, and whether it holds; nothing is changed. */
  readonly dryRun: boolean;
  /** Why, in the operator's words. */
  readonly note: string;
}

export interface WorkerVersion {
  readonly pid: number;
  readonly version: number;
}

export interface SettingsReport {
  readonly version: number;
  readonly changed: boolean;
  readonly dryRun: boolean;
  /** The first of them. */
  readonly diff: readonly DiffEntry[];
  /** How many there are in all. */
  readonly differences: number;
  /** Those that serve it. */
  readonly workers: readonly WorkerVersion[];
}

export interface VersionView {
  readonly version: number;
  readonly atMs: number;
  readonly cause: 'apply' | 'transaction' | 'rollback';
  readonly note: string;
  /** How many of them changed. */
  readonly services: number;
  readonly hosts: number;
}

export interface DiffView {
  /** The first of them. */
  readonly diff: readonly DiffEntry[];
  /** How many there are in all. */
  readonly differences: number;
}

/** An endpoint that is checked. */
export interface EndpointHealthView {
  readonly service: string;
  /** As it was written. */
  readonly endpoint: string;
  readonly healthy: boolean;
  /** Why the last check failed, or why it is unhealthy; empty: there is nothing to say. */
  readonly reason: string;
  /** Since when it is healthy or not. */
  readonly sinceMs: number;
  /** The last check; 0: there was none yet. */
  readonly checkedMs: number;
}

export interface EdgeExplanation extends Explanation {
  /** What checks found of its endpoints, now. */
  readonly health: readonly EndpointHealthView[];
  /** What a TLS handshake for it gets. */
  readonly certificate: CertificateExplanation;
}

export interface EdgeControl {
  settings(): Promise<SettingsView>;
  /** Makes a whole document true, in one version. */
  apply(document: EdgeDocument, request: ChangeRequest): Promise<SettingsReport>;
  /** All of the operations, or none. */
  transact(operations: readonly Operation[], request: ChangeRequest): Promise<SettingsReport>;
  /** Makes true what was true at an older version, under a new number. */
  rollback(to: number, request: ChangeRequest): Promise<SettingsReport>;
  /** The newest first. */
  history(limit: number): Promise<readonly VersionView[]>;
  /** What differs between an older version and now. */
  diff(since: number): Promise<DiffView>;
  /** `version`: with operators' settings as they were then; undefined: as they are. */
  explain(question: Question, version: number | undefined): Promise<EdgeExplanation>;
  lint(): Promise<readonly LintFinding[]>;
  /** All endpoints that are checked. */
  health(): Promise<readonly EndpointHealthView[]>;
}
