/**
 * What an operator writes: services and routes, as in a file for `ecluse apply` (DESIGN §2.3). Addresses are IP addresses: a name would be looked up on
 * the way of a request.
 */
import * as z from 'zod';
import { parseRouteHost } from '#routing/host-name.ts';
import { parsePathPattern } from '#routing/path-pattern.ts';
import { parseConditions } from '#routing/route-conditions.ts';
import { actionsSchema, helperServicesOf } from './action-schema.ts';
import { faultOf, serviceName } from './schema-parts.ts';
import { serviceSchema } from './service-schema.ts';
import { CA_BUNDLES_MAX, caBundleName, caBundleSchema, hstsFault, routeTlsSchema } from './tls-schema.ts';

/** Each is asked in turn where it is an expression, and a change of one sends all of its host to the workers. */
export const ROUTES_PER_HOST_MAX = 1000;
/** Twice what is measured: 100 000 take a worker 41 MB of heap, and the node 3 s at its start (`npm run bench -- reconfigure`). */
export const ROUTES_MAX = 200_000;
export const SERVICES_MAX = 200_000;
/** As many as somebody compares at once. */
const SHARES_MAX = 16;
const WEIGHT_MAX = 10_000;

const matchShape = {
  host: z
    .string()
    .superRefine(
      faultOf((text) => {
        const read = parseRouteHost(text);
        return read.kind === 'invalid' ? read.reason : undefined;
      }),
    )
    .describe('Exact, *.example.com (one label), or *.'),
  path: z
    .string()
    .superRefine(
      faultOf((text) => {
        const read = parsePathPattern(text);
        return read.kind === 'invalid' ? read.reason : undefined;
      }),
    )
    .exactOptional()
    .describe('A prefix by segments (/x), one path (=/x), or an expression of RE2 (~^/v[0-9]+/). Default: /.'),
  methods: z.array(z.string()).exactOptional().describe('Default: all.'),
  headers: z.record(z.string(), z.string()).exactOptional().describe('Fields and the values that they must have.'),
};

const matchSchema = z.strictObject(matchShape).superRefine(
  faultOf(({ methods, headers }) => {
    const read = parseConditions(methods, headers);
    return read.kind === 'invalid' ? read.reason : undefined;
  }),
);

const shareSchema = z.strictObject({
  service: serviceName,
  weight: z.int().min(0).max(WEIGHT_MAX).describe('Its share of the sum of all.'),
});

const splitSchema = z
  .array(shareSchema)
  .min(1)
  .max(SHARES_MAX)
  .refine((shares) => new Set(shares.map(({ service }) => service)).size === shares.length, 'a service is there twice')
  .refine((shares) => shares.some(({ weight }) => weight > 0), 'all weights are 0');

/** A route leads to one service, or several, or answers itself. */
function targetFault(route: {
  readonly service?: string;
  readonly split?: unknown;
  readonly actions?: { readonly redirect?: unknown; readonly respond?: unknown };
}): string | undefined {
  const { service, split, actions: { redirect, respond } = {} } = route;
  const answers = redirect !== undefined || respond !== undefined;
  const leads = service !== undefined || split !== undefined;
  if (answers) return leads ? 'a route that redirects or responds itself has no service and no split' : undefined;
  return (service === undefined) === (split === undefined) ? 'a route has either service or split' : undefined;
}

export const routeSchema = z
  .strictObject({
    match: matchSchema.describe('Which requests it is for.'),
    service: serviceName.exactOptional(),
    split: splitSchema.exactOptional().describe('Several services instead of one, each with its share of the requests.'),
    actions: actionsSchema.exactOptional().describe('What happens to its requests beside that.'),
    tls: routeTlsSchema.exactOptional().describe('What it wants of TLS.'),
  })
  .superRefine(faultOf(targetFault))
  .superRefine(faultOf(({ match, tls }) => hstsFault(match.host, tls)));

/** All that operators wrote. */
export const documentSchema = z.strictObject({
  services: z.record(serviceName, serviceSchema).prefault({}).describe('By name.'),
  routes: z
    .array(routeSchema)
    .max(ROUTES_MAX)
    .prefault([])
    .describe('Those of a host are asked in the order that the guide tells.'),
  caBundles: z
    .record(caBundleName, caBundleSchema)
    .refine((all) => Object.keys(all).length <= CA_BUNDLES_MAX, `more than ${String(CA_BUNDLES_MAX)} CA bundles`)
    .exactOptional()
    .describe('CAs whose certificates routes ask of clients and services of endpoints, by name. Default: none.'),
});

/** The JSON Schema of the file, for editors; kept in docs/routes.schema.json. */
export function documentJsonSchema(): object {
  return z.toJSONSchema(documentSchema, { io: 'input' });
}

/** Whether `__proto__` is a key anywhere: what parses leaves it out without a word. */
export function hasPrototypeKey(value: unknown): boolean {
  return JSON.stringify(value).includes('"__proto__":');
}

/** One step of a transaction. */
export const operationSchema = z.discriminatedUnion('op', [
  z.strictObject({ op: z.literal('put-service'), name: serviceName, service: serviceSchema }),
  z.strictObject({ op: z.literal('remove-service'), name: serviceName }),
  z.strictObject({ op: z.literal('put-route'), route: routeSchema }),
  z.strictObject({ op: z.literal('remove-route'), match: matchSchema }),
  z.strictObject({ op: z.literal('put-ca-bundle'), name: caBundleName, caBundle: caBundleSchema }),
  z.strictObject({ op: z.literal('remove-ca-bundle'), name: caBundleName }),
]);

/** As many as a script makes at once; a file has more, and is one document. */
export const OPERATIONS_MAX = 10_000;
export const transactionSchema = z.strictObject({ operations: z.array(operationSchema).min(1).max(OPERATIONS_MAX) });

export type RouteSettings = z.infer<typeof routeSchema>;
export type RouteMatchSettings = z.infer<typeof matchSchema>;
export type EdgeDocument = z.infer<typeof documentSchema>;
export type Operation = z.infer<typeof operationSchema>;

/** The services that a route leads to, asks and copies to, each once. Those that it leads to are first; there may be none. */
export function servicesOf({ service, split, actions }: RouteSettings): readonly string[] {
  const one = service === undefined ? [] : [service];
  const led = split === undefined ? one : split.map((share) => share.service);
  return actions === undefined ? led : [...new Set([...led, ...helperServicesOf(actions)])];
}

/** The CA bundle that a route names, if it does. */
export function caBundleOfRoute({ tls }: RouteSettings): string | undefined {
  return tls?.clientCertificate?.ca;
}
