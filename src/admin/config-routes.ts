/** The routes of the admin API for the edge's settings. `If-Match` is the version that a change was made for, `ETag` the one that there is. */
import { documentSchema, transactionSchema } from '#routing/operator/schema.ts';
import { jsonRoute } from './admin-route.ts';
import type { AdminRoute } from './admin-route.ts';
import { CONFIG_ANSWERS } from './config-answers.ts';
import {
  changeQuerySchema,
  diffQuerySchema,
  explainQuerySchema,
  historyQuerySchema,
  parseConfig,
  rollbackSchema,
  versionOfPrecondition,
} from './config-requests.ts';
import type { ChangeRequest } from './edge-control.ts';
import type { Precondition } from './entity-tag.ts';
import { CONFIG_BYTES_MAX } from './limits.ts';

const DOCUMENT_BODY = { parseBody: parseConfig, bodyBytesMax: CONFIG_BYTES_MAX };

export const CONFIG_ROUTES: readonly AdminRoute[] = [
  jsonRoute({
    method: 'GET',
    path: 'config',
    summary: 'All that operators wrote of services and routes',
    answer: CONFIG_ANSWERS.EdgeSettings,
    tag: versionTag,
    handle: async ({ control }) => await control.edge.settings(),
  }),
  jsonRoute({
    method: 'PUT',
    path: 'config',
    summary: 'Make a whole document true, in one version',
    query: changeQuerySchema,
    body: documentSchema,
    ...DOCUMENT_BODY,
    conditional: true,
    answer: CONFIG_ANSWERS.EdgeReport,
    tag: versionTag,
    handle: async ({ control, body, query, ifMatch }) => await control.edge.apply(body, changeOf(query, ifMatch)),
  }),
  jsonRoute({
    method: 'POST',
    path: 'tx',
    summary: 'Make all of some single changes, or none, in one version',
    query: changeQuerySchema,
    body: transactionSchema,
    ...DOCUMENT_BODY,
    conditional: true,
    answer: CONFIG_ANSWERS.EdgeReport,
    tag: versionTag,
    handle: async ({ control, body, query, ifMatch }) => await control.edge.transact(body.operations, changeOf(query, ifMatch)),
  }),
  jsonRoute({
    method: 'POST',
    path: 'config/rollback',
    summary: 'Make true what was true at an older version, under a new number',
    query: changeQuerySchema,
    body: rollbackSchema,
    conditional: true,
    refusals: [404],
    answer: CONFIG_ANSWERS.EdgeReport,
    tag: versionTag,
    handle: async ({ control, body, query, ifMatch }) => await control.edge.rollback(body.to, changeOf(query, ifMatch)),
  }),
  jsonRoute({
    method: 'GET',
    path: 'config/history',
    summary: 'The versions in which operators changed something',
    query: historyQuerySchema,
    answer: CONFIG_ANSWERS.EdgeHistory,
    handle: async ({ control, query }) => ({ versions: await control.edge.history(query.limit) }),
  }),
  jsonRoute({
    method: 'GET',
    path: 'config/diff',
    summary: 'What differs between an older version and now',
    query: diffQuerySchema,
    refusals: [404],
    answer: CONFIG_ANSWERS.EdgeDiff,
    handle: async ({ control, query }) => await control.edge.diff(query.since),
  }),
  jsonRoute({
    method: 'GET',
    path: 'config/lint',
    summary: 'What is allowed and hardly meant',
    answer: CONFIG_ANSWERS.EdgeLint,
    handle: async ({ control }) => ({ findings: await control.edge.lint() }),
  }),
  jsonRoute({
    method: 'GET',
    path: 'services/health',
    summary: 'What health checks found of the endpoints of services',
    answer: CONFIG_ANSWERS.ServiceHealth,
    handle: async ({ control }) => ({ endpoints: await control.edge.health() }),
  }),
  jsonRoute({
    method: 'GET',
    path: 'explain',
    summary: 'Which route a request gets, and why',
    query: explainQuerySchema,
    answer: CONFIG_ANSWERS.Explanation,
    handle: async ({ control, query: { version, ...question } }) => await control.edge.explain(question, version),
  }),
];

function changeOf(query: { readonly dryRun: boolean; readonly note: string }, ifMatch: Precondition): ChangeRequest {
  return { ifVersion: versionOfPrecondition(ifMatch), dryRun: query.dryRun, note: query.note };
}

function versionTag({ version }: { readonly version: number }): string {
  return `"${String(version)}"`;
}
