/**
 * A service as operators write it: where it is served, and how its requests are shared out, checked and bounded (DESIGN §2.3). What is written is kept
 * as it is; `compile-settings.ts` makes numbers of it.
 */
import { isIP } from 'node:net';
import * as z from 'zod';
import { parseBalance } from '#routing/balance.ts';
import { parseDurationMs } from '#units';
import { faultOf } from './schema-parts.ts';
import { serviceTlsSchema } from './tls-schema.ts';

const ENDPOINTS_MAX = 1000;
/** Finer shares than thousandths nobody can tell apart. */
const WEIGHT_MAX = 1000;

/** `http://127.0.0.1:9001`, `https://127.0.0.1:9443`. */
function endpointFault(text: string): string | undefined {
  const found = /^https?:\/\/(\[[0-9a-fA-F:.]+\]|[0-9.]+)(?::([0-9]{1,5}))?\/?$/.exec(text);
  const address = found?.[1]?.replaceAll(/[[\]]/g, '');
  if (address === undefined) return 'write http://ADDRESS:PORT or https://ADDRESS:PORT, with an IP address and nothing behind it';
  if (isIP(address) === 0) return `${address} is no IP address`;
  const port = Number(found?.[2] ?? '80');
  return port >= 1 && port <= 65_535 ? undefined : `${String(port)} is no port`;
}

const url = z.string().max(80).superRefine(faultOf(endpointFault)).describe('http://ADDRESS:PORT, or https://ADDRESS:PORT');

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

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const DAY = 24 * 60 * MINUTE;
/** Timers of the edge run 0.1 to 0.3 s late: what is shorter could not be told apart. */
const TIMEOUT_MS_MIN = 100;
const DURATION = /^\d+(?:\.\d+)?\s*(?:ms|s|m|h|d)$/i;

/** A text that stays one: it is stored and shown as it was written. */
function duration(minMs: number, maxMs: number) {
  return z.string().superRefine(
    faultOf((text) => {
      if (!DURATION.test(text)) return `"${text.slice(0, 80)}" is not a duration; write it like "500ms", "30s" or "10m"`;
      const ms = parseDurationMs(text);
      return ms >= minMs && ms <= maxMs ? undefined : `"${text}" is not from ${durationText(minMs)} to ${durationText(maxMs)}`;
    }),
  );
}

function durationText(ms: number): string {
  if (ms % DAY === 0) return `${String(ms / DAY)}d`;
  if (ms % MINUTE === 0) return `${String(ms / MINUTE)}m`;
  return ms % SECOND === 0 ? `${String(ms / SECOND)}s` : `${String(ms)}ms`;
}

/** Each is the node's where it is not here. The most is the node's, too (`config.ts`). */
const timeoutsSchema = z.strictObject({
  /** The kernel gives up after two minutes; a client does sooner. */
  connect: duration(TIMEOUT_MS_MIN, MINUTE).exactOptional().describe('Connecting to an endpoint.'),
  /** Reports that take an hour exist; after a day nobody waits. */
  firstByte: duration(TIMEOUT_MS_MIN, DAY)
    .exactOptional()
    .describe('From the last byte of a request to the first of its response.'),
  /** A WebSocket may be silent for hours where its app wants that; what is silent for a day is gone. */
  idle: duration(TIMEOUT_MS_MIN, DAY)
    .exactOptional()
    .describe('A body, a WebSocket or the like in which nothing moved for that long is cut.'),
});

/** An address of the node has that many ports towards an endpoint, and each request takes one. */
const CONNECTIONS_MAX = 60_000;
/** More than that wait for longer than anybody does; the budget of held requests is mostly smaller. */
const PENDING_MAX = 100_000;
/** Browsers and proxies give up after a minute; programs may wait for longer. */
const HOLD_MS_MAX = 10 * MINUTE;

const limitsSchema = z.strictObject({
  connections: z
    .int()
    .min(1)
    .max(CONNECTIONS_MAX)
    .exactOptional()
    .describe('Most requests that each endpoint gets at once, of the whole node; each worker has its share, and one at least.'),
  pending: z
    .int()
    .min(0)
    .max(PENDING_MAX)
    .exactOptional()
    .describe(
      'Most requests that wait while all endpoints have as many, of the whole node. Default: 0, they are refused at once.',
    ),
  hold: duration(TIMEOUT_MS_MIN, HOLD_MS_MAX)
    .exactOptional()
    .describe('How long a request waits before it is refused. Default: 60s.'),
});

/** Below, a check costs more than what it saves; above, nobody would call it a check. */
const INTERVAL_MS_MIN = SECOND;
const INTERVAL_MS_MAX = 10 * MINUTE;
/** As long as a check lasts that comes to nothing, it keeps another from its turn. */
const CHECK_MS_MAX = 30 * SECOND;
/** With the longest interval that is three hours. */
const IN_A_ROW_MAX = 20;
const PATH_LENGTH_MAX = 1024;
/** Visible ASCII but `#`: what can stand in the target of a request. */
const CHECK_PATH = /^\/[\u0021\u0022\u0024-\u007e]*$/;

/** What is not written of a health check. */
export const HEALTH_DEFAULTS = { interval: '5s', timeout: '1s', unhealthyAfter: 3, healthyAfter: 2 } as const;

const healthSchema = z.strictObject({
  path: z
    .string()
    .max(PATH_LENGTH_MAX)
    .regex(CHECK_PATH, 'write a path, like /healthz, of visible ASCII without #')
    .describe('What is asked for, by GET. A status of 2xx or 3xx says that the endpoint is well.'),
  interval: duration(INTERVAL_MS_MIN, INTERVAL_MS_MAX).exactOptional().describe('From one check to the next. Default: 5s.'),
  timeout: duration(TIMEOUT_MS_MIN, CHECK_MS_MAX)
    .exactOptional()
    .describe('For the connection and the whole head of the answer. Default: 1s.'),
  unhealthyAfter: z
    .int()
    .min(1)
    .max(IN_A_ROW_MAX)
    .exactOptional()
    .describe('Checks in a row that fail before it gets no requests. Default: 3.'),
  healthyAfter: z
    .int()
    .min(1)
    .max(IN_A_ROW_MAX)
    .exactOptional()
    .describe('Checks in a row that pass before it gets them again. Default: 2.'),
});

/** How many endpoints a service has checked. */
export function checksOf({ health, endpoints }: ServiceSettings): number {
  return health === undefined ? 0 : endpoints.length;
}

/** What is said of TLS is said of all of them. */
function schemeFault({
  endpoints,
  tls,
  sendProxy,
}: {
  readonly endpoints: readonly EndpointSettings[];
  readonly tls?: unknown;
  readonly sendProxy?: unknown;
}): string | undefined {
  const secure = endpoints.filter((endpoint) => urlOf(endpoint).startsWith('https:')).length;
  if (secure > 0 && secure < endpoints.length) return 'some of its endpoints are http and some https; write all in the same way';
  if (secure > 0 && sendProxy !== undefined)
    return 'sendProxy is not for https: the header would come within TLS, and not before it';
  return tls !== undefined && secure < endpoints.length ? 'tls is for endpoints that are https://ADDRESS:PORT' : undefined;
}

export const serviceSchema = z
  .strictObject({
    endpoints: z
      .array(z.union([url, weightedSchema]))
      .max(ENDPOINTS_MAX)
      .superRefine(faultOf(endpointsFault))
      .describe('Where it is served; none: its routes answer 503.'),
    balance: balance.exactOptional(),
    health: healthSchema.exactOptional().describe('How its endpoints are checked. Without it they are not.'),
    timeouts: timeoutsSchema.exactOptional().describe("Those of its requests that are not the node's."),
    limits: limitsSchema.exactOptional().describe('What it may have at once, and how long its requests wait.'),
    sendProxy: z
      .union([z.literal(1), z.literal(2)])
      .exactOptional()
      .describe('The version of the PROXY protocol that its endpoints want.'),
    tls: serviceTlsSchema.exactOptional().describe('How endpoints that are https are spoken to.'),
  })
  .superRefine(faultOf(schemeFault));

export type ServiceSettings = z.infer<typeof serviceSchema>;
