/** The routes of the admin API for the node, its hosts, and what happened on it. */
import { eventsRoute, jsonRoute, linesRoute } from './admin-route.ts';
import type { AdminRoute } from './admin-route.ts';
import { ANSWERS } from './answers.ts';
import { latestChanges } from './event-stream.ts';
import {
  changesQuerySchema,
  drainRequestSchema,
  eventsQuerySchema,
  planOrderSchema,
  upgradeRequestSchema,
  usageQuerySchema,
} from './requests.ts';

export const NODE_ROUTES: readonly AdminRoute[] = [
  jsonRoute({
    method: 'GET',
    path: 'status',
    summary: 'The node: addresses, workers, hosts',
    answer: ANSWERS.Status,
    handle: async ({ control }) => await control.status(),
  }),
  jsonRoute({
    method: 'POST',
    path: 'reload',
    summary: 'Read the configuration again, and change what can change while the node runs',
    refusals: [400, 409],
    answer: ANSWERS.Reload,
    handle: async ({ control }) => await control.reload(),
  }),
  jsonRoute({
    method: 'POST',
    path: 'upgrade',
    summary: 'Put the program that is installed now in the place of the one that runs',
    body: upgradeRequestSchema,
    status: 202,
    refusals: [409],
    answer: ANSWERS.UpgradeBegun,
    handle: async ({ control, body }) => await control.upgrade(body),
  }),
  jsonRoute({
    method: 'GET',
    path: 'hosts',
    summary: 'All hosts',
    answer: ANSWERS.HostList,
    handle: async ({ control }) => ({ hosts: (await control.status()).hosts }),
  }),
  jsonRoute({
    method: 'GET',
    path: 'hosts/{name}',
    summary: 'What may be changed of a host',
    answer: ANSWERS.Host,
    handle: async ({ control, captured }) => await control.host(captured('name')),
  }),
  linesRoute({
    path: 'hosts/{name}/drain',
    summary: 'Take a host out of use and move what runs there away',
    body: drainRequestSchema,
    conditional: true,
    refusals: [409],
    progress: ANSWERS.FleetProgress,
    report: ANSWERS.Drain,
    handle: async ({ control, captured, body, ifMatch }, say) =>
      await control.drainHost(captured('name'), { ...body, ifMatch }, say),
  }),
  jsonRoute({
    method: 'POST',
    path: 'hosts/{name}/undrain',
    summary: 'Let a host be given containers again',
    conditional: true,
    refusals: [409],
    answer: ANSWERS.HostUndrained,
    handle: async ({ control, captured, ifMatch }) => await control.undrainHost(captured('name'), ifMatch),
  }),
  linesRoute({
    path: 'rebalance',
    summary: 'Plan the moves that are worth their cost, and make them',
    body: planOrderSchema,
    progress: ANSWERS.FleetProgress,
    report: ANSWERS.Rebalance,
    handle: async ({ control, body }, say) => await control.rebalance(body, say),
  }),
  jsonRoute({
    method: 'GET',
    path: 'readings',
    summary: 'The counters of containers that run, at one moment',
    answer: ANSWERS.ReadingList,
    handle: async ({ control }) => ({ readings: await control.readings() }),
  }),
  jsonRoute({
    method: 'GET',
    path: 'usage',
    summary: 'What was used, from the ledger',
    query: usageQuerySchema,
    answer: ANSWERS.UsageList,
    handle: async ({ control, clock, query: { tenant, since, until, by } }) => ({
      usage: await control.usage({ tenant, sinceMs: since, untilMs: until ?? clock.nowMs(), by }),
    }),
  }),
  jsonRoute({
    method: 'GET',
    path: 'changes',
    summary: 'The change log, after a cursor',
    query: changesQuerySchema,
    answer: ANSWERS.ChangeList,
    handle: async ({ control, query: { after, limit, latest } }) => ({
      changes: latest ? await latestChanges(control, limit) : await control.changes(after ?? 0, limit),
    }),
  }),
  eventsRoute({
    path: 'events',
    summary: 'The change log as server-sent events, as things happen; resumes by Last-Event-ID',
    query: eventsQuerySchema,
    refusals: [429],
    handle: async (exchange, { streams }) => {
      await streams.serve(exchange);
    },
  }),
];
