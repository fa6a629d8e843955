/** The routes of the admin API for tenants. */
import { doneRoute, jsonRoute } from './admin-route.ts';
import type { AdminRoute } from './admin-route.ts';
import { ANSWERS } from './answers.ts';
import { entityTagOf } from './entity-tag.ts';
import type { TenantView } from './node-control.ts';
import { tenantChangeSchema, tenantRequestSchema } from './requests.ts';

export const TENANT_ROUTES: readonly AdminRoute[] = [
  jsonRoute({
    method: 'GET',
    path: 'tenants',
    summary: 'All tenants, with how many containers they have',
    answer: ANSWERS.TenantList,
    handle: async ({ control }) => ({ tenants: await control.tenants() }),
  }),
  jsonRoute({
    method: 'POST',
    path: 'tenants',
    summary: 'Add a tenant',
    body: tenantRequestSchema,
    status: 201,
    refusals: [409],
    answer: ANSWERS.TenantView,
    tag: tenantTag,
    handle: async ({ control, body }) => await control.addTenant(body),
  }),
  jsonRoute({
    method: 'GET',
    path: 'tenants/{name}',
    summary: 'What may be changed of a tenant',
    answer: ANSWERS.Tenant,
    handle: async ({ control, captured }) => await control.tenant(captured('name')),
  }),
  jsonRoute({
    method: 'PATCH',
    path: 'tenants/{name}',
    summary: 'Change what is named of a tenant',
    body: tenantChangeSchema,
    conditional: true,
    refusals: [409],
    answer: ANSWERS.TenantView,
    tag: tenantTag,
    handle: async ({ control, captured, body, ifMatch }) => await control.setTenant(captured('name'), body, ifMatch),
  }),
  doneRoute({
    method: 'DELETE',
    path: 'tenants/{name}',
    summary: 'Remove a tenant that owns nothing any more',
    conditional: true,
    refusals: [409],
    handle: async ({ control, captured, ifMatch }) => {
      await control.removeTenant(captured('name'), ifMatch);
    },
  }),
  jsonRoute({
    method: 'GET',
    path: 'tenants/{name}/env',
    summary: 'What makes a Docker client speak as the tenant',
    refusals: [409],
    answer: ANSWERS.TenantEnv,
    handle: async ({ control, captured }) => await control.tenantEnv(captured('name')),
  }),
];

/** The number of its containers changes by itself, and is nothing of the tenant's own. */
function tenantTag({ containers: _containers, ...tenant }: TenantView): string {
  return entityTagOf(tenant);
}
