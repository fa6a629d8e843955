/** The routes of the admin API: which method and path calls what of the node. */
import { EcluseError } from '#errors';
import type { AdminRoute, RouteContext } from './admin-route.ts';
import { CERTIFICATE_ROUTES } from './certificate-routes.ts';
import { CONFIG_ROUTES } from './config-routes.ts';
import { latestChanges } from './event-stream.ts';
import { exactJson } from './exact-json.ts';
import { queryOf, readJson, sendJson } from './exchange.ts';
import type { Exchange } from './exchange.ts';
import {
  changesQuerySchema,
  containersQuerySchema,
  cloneRequestSchema,
  drainRequestSchema,
  migrateRequestSchema,
  parseRequest,
  planOrderSchema,
  restoreRequestSchema,
  tenantChangeSchema,
  tenantRequestSchema,
  upgradeRequestSchema,
  usageQuerySchema,
} from './requests.ts';

export const ADMIN_ROUTES: readonly AdminRoute[] = [
  {
    method: 'GET',
    path: 'status',
    handle: async (exchange, { control }) => {
      sendJson(exchange, 200, await control.status());
    },
  },
  {
    method: 'POST',
    path: 'upgrade',
    handle: async (exchange, { control }) => {
      const order = parseRequest(upgradeRequestSchema, await readJson(exchange), 'body');
      sendJson(exchange, 202, await control.upgrade(order));
    },
  },
  {
    method: 'GET',
    path: 'hosts',
    handle: async (exchange, { control }) => {
      sendJson(exchange, 200, { hosts: (await control.status()).hosts });
    },
  },
  {
    method: 'GET',
    path: 'tenants',
    handle: async (exchange, { control }) => {
      sendJson(exchange, 200, { tenants: await control.tenants() });
    },
  },
  {
    method: 'POST',
    path: 'tenants',
    handle: async (exchange, { control }) => {
      sendJson(exchange, 201, await control.addTenant(parseRequest(tenantRequestSchema, await readJson(exchange), 'body')));
    },
  },
  {
    method: 'PATCH',
    path: 'tenants/{name}',
    handle: async (exchange, { control }) => {
      const change = parseRequest(tenantChangeSchema, await readJson(exchange), 'body');
      sendJson(exchange, 200, await control.setTenant(captured(exchange, 'name'), change));
    },
  },
  {
    method: 'DELETE',
    path: 'tenants/{name}',
    handle: async (exchange, { control }) => {
      await control.removeTenant(captured(exchange, 'name'));
      exchange.response.writeHead(204).end();
    },
  },
  {
    method: 'GET',
    path: 'tenants/{name}/env',
    handle: async (exchange, { control }) => {
      sendJson(exchange, 200, await control.tenantEnv(captured(exchange, 'name')));
    },
  },
  {
    method: 'GET',
    path: 'containers',
    handle: async (exchange, { control }) => {
      const { all, tenant } = parseRequest(containersQuerySchema, queryOf(exchange), 'query');
      sendJson(exchange, 200, { containers: await control.containers({ all, tenant }) });
    },
  },
  {
    method: 'GET',
    path: 'containers/{ref}/placement',
    handle: async (exchange, { control }) => {
      sendJson(exchange, 200, await control.explainContainer(captured(exchange, 'ref')));
    },
  },
  { method: 'POST', path: 'containers/{ref}/migrate', handle: migrate },
  {
    method: 'DELETE',
    path: 'containers/{ref}/migrate',
    handle: async (exchange, { control }) => {
      await control.cancelMigration(captured(exchange, 'ref'));
      exchange.response.writeHead(204).end();
    },
  },
  {
    method: 'POST',
    path: 'containers/{ref}/suspend',
    handle: async (exchange, { control }) => {
      sendJson(exchange, 200, await control.suspend(captured(exchange, 'ref')));
    },
  },
  {
    method: 'POST',
    path: 'containers/{ref}/wake',
    handle: async (exchange, { control }) => {
      sendJson(exchange, 200, await control.wake(captured(exchange, 'ref')));
    },
  },
  {
    method: 'POST',
    path: 'containers/{ref}/clone',
    handle: async (exchange, { control }) => {
      const { count } = parseRequest(cloneRequestSchema, await readJson(exchange), 'body');
      sendJson(exchange, 200, await control.clone(captured(exchange, 'ref'), count));
    },
  },
  {
    method: 'POST',
    path: 'hosts/{name}/drain',
    handle: async (exchange, { control }) => {
      const order = parseRequest(drainRequestSchema, await readJson(exchange), 'body');
      await tellLines(exchange, async (say) => await control.drainHost(captured(exchange, 'name'), order, say));
    },
  },
  {
    method: 'POST',
    path: 'hosts/{name}/undrain',
    handle: async (exchange, { control }) => {
      sendJson(exchange, 200, await control.undrainHost(captured(exchange, 'name')));
    },
  },
  {
    method: 'POST',
    path: 'rebalance',
    handle: async (exchange, { control }) => {
      const order = parseRequest(planOrderSchema, await readJson(exchange), 'body');
      await tellLines(exchange, async (say) => await control.rebalance(order, say));
    },
  },
  {
    method: 'POST',
    path: 'containers/{ref}/snapshot',
    handle: async (exchange, { control }) => {
      sendJson(exchange, 201, await control.snapshot(captured(exchange, 'ref')));
    },
  },
  {
    method: 'GET',
    path: 'snapshots',
    handle: async (exchange, { control }) => {
      sendJson(exchange, 200, { snapshots: await control.snapshots() });
    },
  },
  {
    method: 'DELETE',
    path: 'snapshots/{ref}',
    handle: async (exchange, { control }) => {
      await control.removeSnapshot(captured(exchange, 'ref'));
      exchange.response.writeHead(204).end();
    },
  },
  {
    method: 'POST',
    path: 'snapshots/{ref}/restore',
    handle: async (exchange, { control }) => {
      const { to } = parseRequest(restoreRequestSchema, await readJson(exchange), 'body');
      sendJson(exchange, 200, await control.restore(captured(exchange, 'ref'), to));
    },
  },
  {
    method: 'GET',
    path: 'readings',
    handle: async (exchange, { control }) => {
      sendJson(exchange, 200, { readings: await control.readings() });
    },
  },
  {
    method: 'GET',
    path: 'usage',
    handle: async (exchange, { control, clock }) => {
      const { tenant, since, until, by } = parseRequest(usageQuerySchema, queryOf(exchange), 'query');
      const query = { tenant, sinceMs: since, untilMs: until ?? clock.nowMs(), by };
      sendJson(exchange, 200, { usage: await control.usage(query) });
    },
  },
  {
    method: 'GET',
    path: 'changes',
    handle: async (exchange, { control }) => {
      const { after, limit, latest } = parseRequest(changesQuerySchema, queryOf(exchange), 'query');
      const changes = latest ? await latestChanges(control, limit) : await control.changes(after ?? 0, limit);
      sendJson(exchange, 200, { changes });
    },
  },
  {
    method: 'GET',
    path: 'events',
    handle: async (exchange, { streams }) => {
      await streams.serve(exchange);
    },
  },
  ...CONFIG_ROUTES,
  ...CERTIFICATE_ROUTES,
];

function captured(exchange: Exchange, name: string): string {
  return exchange.captured[name] ?? '';
}

async function migrate(exchange: Exchange, { control }: RouteContext): Promise<void> {
  const order = parseRequest(migrateRequestSchema, await readJson(exchange), 'body');
  await tellLines(exchange, async (say) => await control.migrate(captured(exchange, 'ref'), order, say));
}

/**
 * What takes its time is told line by line: `{"progress":…}`, then `{"report":…}` or `{"error":…}`. It goes on where the client leaves: a move is one
 * transaction, and its end is in the change log. What is refused before anything happened has the error's own status.
 */
async function tellLines(
  { response }: Exchange,
  work: (onProgress: (progress: object) => void) => Promise<object>,
): Promise<void> {
  const say = (line: object): void => {
    if (!response.headersSent) response.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' });
    if (response.writable) response.write(`${exactJson(line)}\n`);
  };
  const report = await work((progress) => {
    say({ progress });
  });
  say({ report });
  response.end();
}

export type RouteMatch = { readonly route: AdminRoute; readonly captured: Readonly<Record<string, string>> };

/** Finds the route of a request. Errors: ECLUSE_NO_ROUTE (404), ECLUSE_METHOD_NOT_ALLOWED (405). */
export function findRoute(method: string, pathname: string): RouteMatch {
  const matches = ADMIN_ROUTES.flatMap((route) => {
    const found = capture(`/v1/${route.path}`.split('/'), pathname.split('/'));
    return found === undefined ? [] : [{ route, captured: found }];
  });
  const match = matches.find(({ route }) => route.method === method);
  if (match !== undefined) return match;
  if (matches.length === 0) {
    throw new EcluseError({
      code: 'ECLUSE_NO_ROUTE',
      source: 'usage',
      message: `there is nothing at ${pathname.slice(0, 200)}`,
      mend: 'resources are below /v1',
      status: 404,
    });
  }
  throw new EcluseError({
    code: 'ECLUSE_METHOD_NOT_ALLOWED',
    source: 'usage',
    message: `${method} is not possible at ${pathname.slice(0, 200)}`,
    mend: `use ${matches.map(({ route }) => route.method).join(' or ')}`,
    status: 405,
  });
}

function capture(pattern: readonly string[], segments: readonly string[]): Readonly<Record<string, string>> | undefined {
  if (pattern.length !== segments.length) return undefined;
  const found: Record<string, string> = {};
  for (const [index, part] of pattern.entries()) {
    const segment = segments[index] ?? '';
    const name = /^\{(\w+)\}$/.exec(part)?.[1];
    if (name === undefined) {
      if (part !== segment) return undefined;
      continue;
    }
    const decoded = decodeSegment(segment);
    if (decoded === undefined || decoded === '') return undefined;
    found[name] = decoded;
  }
  return found;
}

function decodeSegment(segment: string): string | undefined {
  try {
    return decodeURIComponent(segment);
  } catch {
    return undefined; // A broken escape names nothing.
  }
}
