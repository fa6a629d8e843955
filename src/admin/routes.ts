/** The routes of the admin API: which method and path calls what of the node. Those of one subject are in a file of their own. */
import { EcluseError } from '#errors';
import { jsonRoute } from './admin-route.ts';
import type { AdminRoute } from './admin-route.ts';
import { ANSWERS } from './answers.ts';
import { CONFIG_ANSWERS } from './config-answers.ts';
import { CERTIFICATE_ANSWERS } from './certificate-answers.ts';
import { CERTIFICATE_ROUTES } from './certificate-routes.ts';
import { CONFIG_ROUTES } from './config-routes.ts';
import { CONTAINER_ROUTES } from './container-routes.ts';
import { METERING_ANSWERS } from './metering-answers.ts';
import { METERING_ROUTES } from './metering-routes.ts';
import { NODE_ROUTES } from './node-routes.ts';
import { openApiOf } from './openapi.ts';
import { TENANT_ROUTES } from './tenant-routes.ts';

export const ADMIN_ROUTES: readonly AdminRoute[] = [
  ...NODE_ROUTES,
  ...TENANT_ROUTES,
  ...CONTAINER_ROUTES,
  ...CONFIG_ROUTES,
  jsonRoute({
    method: 'GET',
    path: 'openapi.json',
    summary: 'This API as an OpenAPI document',
    answer: ANSWERS.OpenApi,
    handle: async () => adminOpenApi(),
  }),
  ...CERTIFICATE_ROUTES,
  ...METERING_ROUTES,
];

/** The OpenAPI document of the admin API; kept in docs/admin-api.openapi.json. */
export function adminOpenApi(): Readonly<Record<string, unknown>> {
  return openApiOf(ADMIN_ROUTES, { ...ANSWERS, ...CONFIG_ANSWERS, ...CERTIFICATE_ANSWERS, ...METERING_ANSWERS });
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
