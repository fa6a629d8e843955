/**
 * A service as operators write it: where it is served, and how its requests are shared out, checked and bounded (DESIGN §2.3). What is written is kept
 * as it is; `compile-settings.ts` makes numbers of it.
 */
import { isIP } from 'node:net';
import * as z from 'zod';
import { parseBalance } from '#routing/balance.ts';
import { faultOf } from './fault.ts';

const ENDPOINTS_MAX = 1000;
/** Finer shares than thousandths nobody can tell apart. */
const WEIGHT_MAX = 1000;

/** `http://127.0.0.1:9001`. */
function endpointFault(text: string): string | undefined {
  const found = /^http:\/\/(\[[0-9a-fA-F:.]+\]|[0-9.]+)(?::([0-9]{1,5}))?\/?$/.exec(text);
  const address = found?.[1]?.replaceAll(/[[\]]/g, '');
  if (address === undefined) return 'write http://ADDRESS:PORT, with an IP address and nothing behind it';
  if (isIP(address) === 0) return `${address} is no IP address`;
  const port = Number(found?.[2] ?? '80');
  return port >= 1 && port <= 65_535 ? undefined : `${String(port)} is no port`;
}

const url = z.string().max(80).superRefine(faultOf(endpointFault)).describe('http://ADDRESS:PORT');

const weightedSchema = z.strictObject({
  url,
  weight: z
    .int()
    .min(0)
    .max(WEIGHT_MAX)
    .exactOptional()
    .describe('Its share, beside the weights of the others. 0: it takes nothing new, and ends what it has. Default: 1.'),
});

type EndpointSettings = string | z.infer<typeof weightedSchema>;

export function urlOf(endpoint: EndpointSettings): string {
  return typeof endpoint === 'string' ? endpoint : endpoint.url;
}

export function weightOf(endpoint: EndpointSettings): number {
  return typeof endpoint === 'string' ? 1 : (endpoint.weight ?? 1);
}

function endpointsFault(list: readonly EndpointSettings[]): string | undefined {
  if (new Set(list.map(urlOf)).size !== list.length) return 'an endpoint is there twice';
  if (list.length > 0 && list.every((endpoint) => weightOf(endpoint) === 0))
    return 'all weights are 0: nothing would take its requests; write no endpoint where that is meant';
  return undefined;
}

const balance = z
  .string()
  .superRefine(
    faultOf((text) => {
      const read = parseBalance(text);
      return read.kind === 'invalid' ? read.reason : undefined;
    }),
  )
  .describe(
    'Which endpoint takes a request: least-request (the default), round-robin, random-two, hash(header:NAME), hash(cookie:NAME) or hash(ip).',
  );

export const serviceSchema = z.strictObject({
  endpoints: z
    .array(z.union([url, weightedSchema]))
    .max(ENDPOINTS_MAX)
    .superRefine(faultOf(endpointsFault))
    .describe('Where it is served; none: its routes answer 503.'),
  balance: balance.exactOptional(),
  sendProxy: z
    .union([z.literal(1), z.literal(2)])
    .exactOptional()
    .describe('The version of the PROXY protocol that its endpoints want.'),
});

export type ServiceSettings = z.infer<typeof serviceSchema>;
