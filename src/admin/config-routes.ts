/** The routes of the admin API for the edge's settings. `If-Match` is the version that a change was made for, `ETag` the one that there is. */
import type { AdminRoute } from './admin-route.ts';
import {
  changeQuerySchema,
  diffQuerySchema,
  explainQuerySchema,
  historyQuerySchema,
  parseDocument,
  parseIfMatch,
  parseOperations,
  rollbackSchema,
} from './config-requests.ts';
import type { ChangeRequest, SettingsReport } from './edge-control.ts';
import { queryOf, readJson, sendJson } from './exchange.ts';
import type { Exchange } from './exchange.ts';
import { CONFIG_BYTES_MAX } from './limits.ts';
import { parseRequest } from './requests.ts';

export const CONFIG_ROUTES: readonly AdminRoute[] = [
  {
    method: 'GET',
    path: 'config',
    handle: async (exchange, { control }) => {
      const view = await control.edge.settings();
      tag(exchange, view.version);
      sendJson(exchange, 200, view);
    },
  },
  {
    method: 'PUT',
    path: 'config',
    handle: async (exchange, { control }) => {
      const request = changeOf(exchange);
      const document = parseDocument(await readJson(exchange, CONFIG_BYTES_MAX));
      sendReport(exchange, await control.edge.apply(document, request));
    },
  },
  {
    method: 'POST',
    path: 'tx',
    handle: async (exchange, { control }) => {
      const request = changeOf(exchange);
      const operations = parseOperations(await readJson(exchange, CONFIG_BYTES_MAX));
      sendReport(exchange, await control.edge.transact(operations, request));
    },
  },
  {
    method: 'POST',
    path: 'config/rollback',
    handle: async (exchange, { control }) => {
      const request = changeOf(exchange);
      const { to } = parseRequest(rollbackSchema, await readJson(exchange), 'body');
      sendReport(exchange, await control.edge.rollback(to, request));
    },
  },
  {
    method: 'GET',
    path: 'config/history',
    handle: async (exchange, { control }) => {
      const { limit } = parseRequest(historyQuerySchema, queryOf(exchange), 'query');
      sendJson(exchange, 200, { versions: await control.edge.history(limit) });
    },
  },
  {
    method: 'GET',
    path: 'config/diff',
    handle: async (exchange, { control }) => {
      const { since } = parseRequest(diffQuerySchema, queryOf(exchange), 'query');
      sendJson(exchange, 200, await control.edge.diff(since));
    },
  },
  {
    method: 'GET',
    path: 'config/lint',
    handle: async (exchange, { control }) => {
      sendJson(exchange, 200, { findings: await control.edge.lint() });
    },
  },
  {
    method: 'GET',
    path: 'services/health',
    handle: async (exchange, { control }) => {
      sendJson(exchange, 200, { endpoints: await control.edge.health() });
    },
  },
  {
    method: 'GET',
    path: 'explain',
    handle: async (exchange, { control }) => {
      const { version, ...question } = parseRequest(explainQuerySchema, queryOf(exchange), 'query');
      sendJson(exchange, 200, await control.edge.explain(question, version));
    },
  },
];

function changeOf(exchange: Exchange): ChangeRequest {
  const { dryRun, note } = parseRequest(changeQuerySchema, queryOf(exchange), 'query');
  return { ifVersion: parseIfMatch(exchange.request.headers['if-match']), dryRun, note };
}

function sendReport(exchange: Exchange, report: SettingsReport): void {
  tag(exchange, report.version);
  sendJson(exchange, 200, report);
}

function tag({ response }: Exchange, version: number): void {
  response.setHeader('etag', `"${String(version)}"`);
}
