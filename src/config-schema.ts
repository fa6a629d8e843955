/**
 * The schema of `ecluse.yaml`: its keys, their meaning and their defaults. Nothing else of the program knows a default. Keys about the data plane
 * are in `proxy/config.ts`, those about containers in `caas/config.ts`; `config.ts` puts all together.
 */
import * as z from 'zod';
import { DATA_DIR_DEFAULT } from './node-paths.ts';
import { LISTEN_ADDRESS_EXAMPLES, LISTEN_ADDRESS_PATTERN, formatListenAddress, parseListenAddress } from './listen-address.ts';
import type { ListenAddress } from './listen-address.ts';

/** `demo`: on the loopback interface, two hosts, so that a migration can be seen on one machine. */
export type ConfigProfile = 'node' | 'demo';

const HOSTS_MAX = 10;
/** More processes than any machine of ours has processors. */
export const WORKERS_MAX = 64;

interface Defaults {
  readonly http: string;
  readonly https: string;
  readonly docker: string;
  readonly metrics: string;
  readonly workers: 'auto' | number;
  readonly hosts: readonly { readonly name: string; readonly engine: string }[];
  readonly logLevel: (typeof LOG_LEVELS)[number];
}

const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const;

const DEFAULTS: Readonly<Record<ConfigProfile, Defaults>> = {
  node: {
    http: ':80',
    https: ':443',
    docker: ':2376',
    metrics: '127.0.0.1:9180',
    workers: 'auto',
    hosts: [{ name: 'local', engine: 'managed' }],
    logLevel: 'info',
  },
  demo: {
    http: '127.0.0.1:8080',
    https: '127.0.0.1:8443',
    docker: '127.0.0.1:2376',
    metrics: '127.0.0.1:9180',
    workers: 2,
    hosts: [
      { name: 'a', engine: 'managed' },
      { name: 'b', engine: 'managed' },
    ],
    logLevel: 'warn',
  },
};

function quoted(input: unknown): string {
  return JSON.stringify(input).slice(0, 80);
}

function workersFault({ input }: { readonly input?: unknown }): string {
  return `${quoted(input)} is not a number of workers; write "auto" or a number from 1 to ${String(WORKERS_MAX)}`;
}

const listenAddress = z
  .string({ error: ({ input }) => `${quoted(input)} is not an address; write it like ${LISTEN_ADDRESS_EXAMPLES}` })
  .regex(LISTEN_ADDRESS_PATTERN, {
    error: ({ input }) => `${quoted(input)} is not an address; write it like ${LISTEN_ADDRESS_EXAMPLES}`,
  })
  .transform((text, context): ListenAddress | undefined => {
    const parsed = parseListenAddress(text);
    if (parsed.kind === 'address') return parsed.address;
    if (parsed.kind === 'invalid') context.addIssue({ code: 'custom', message: parsed.why });
    return undefined;
  });

const adminSocket = z
  .string()
  .regex(/^unix:(?:\/\/)?\/.+$/, {
    error: ({ input }) => `${quoted(input)} is not the path of a unix socket; write it like "unix:/run/ecluse/admin.sock"`,
  })
  .transform((text) => text.replace(/^unix:(?:\/\/)?(?=\/)/, ''));

const host = z.strictObject({
  name: z
    .string()
    .regex(/^[a-z][a-z0-9-]{0,14}$/, {
      error: ({ input }) =>
        `${quoted(input)} is not a host name of ours: a small letter, then up to 14 small letters, digits and dashes`,
    })
    .describe('What operators call the host: a small letter, then up to 14 small letters, digits and dashes. Unique.'),
  engine: z
    .string()
    .regex(/^(?:managed|unix:\/\/\/.+)$/, {
      error: ({ input }) =>
        `${quoted(input)} is not an engine; write "managed" or the socket of a Docker Engine like "unix:///var/run/docker.sock"`,
    })
    .describe('"managed": a Docker Engine that the node runs itself. "unix:///path": the socket of one that runs already.'),
});

function hostsFault(hosts: readonly z.infer<typeof host>[]): string | undefined {
  const twice = hosts.find((one, index) => hosts.findIndex((other) => other.name === one.name) !== index);
  if (twice !== undefined) return `two hosts have the name ${twice.name}; names must differ`;
  const shared = hosts.find(
    (one, index) => one.engine !== 'managed' && hosts.findIndex((other) => other.engine === one.engine) !== index,
  );
  return shared === undefined ? undefined : `two hosts have the engine ${shared.engine}; one engine is one host`;
}

function listenFault(listen: Readonly<Record<string, unknown>>): string | undefined {
  const taken = new Map<string, string>();
  for (const [key, address] of Object.entries(listen)) {
    if (typeof address !== 'object' || address === null || !('host' in address) || !('port' in address) || address.port === 0)
      continue;
    const text = formatListenAddress({ host: String(address.host), port: Number(address.port) });
    const other = taken.get(text);
    if (other !== undefined) return `${other} and ${key} have the same address ${text}; give one of them another port, or "off"`;
    taken.set(text, key);
  }
  return undefined;
}

function listenSchema(defaults: Defaults) {
  return z
    .strictObject({
      http: listenAddress
        .prefault(defaults.http)
        .describe('Where end users reach apps by HTTP. No host means all IPv4 addresses; "off" closes it.'),
      https: listenAddress.prefault(defaults.https).describe('Where end users reach apps by HTTPS. "off" closes it.'),
      docker: listenAddress
        .prefault(defaults.docker)
        .describe('Where tenants reach the Docker API, by TLS with client certificates. "off" closes it.'),
      admin: adminSocket
        .optional()
        .describe(
          'The admin socket, mode 0600: whoever may open it commands the node. Default: /run/ecluse/admin.sock, or DATA/admin.sock where the data directory is not /var/lib/ecluse.',
        ),
      metrics: listenAddress
        .prefault(defaults.metrics)
        .describe('Where Prometheus reads /metrics, without authentication: keep it on a private address. "off" closes it.'),
    })
    .superRefine((listen, context) => {
      const fault = listenFault(listen);
      if (fault !== undefined) context.addIssue({ code: 'custom', message: fault });
    });
}

/** What describes the file as a whole. */
export const CONFIG_DESCRIPTION = 'Configuration of an Écluse node (ecluse.yaml). All keys are optional.';

/** The schema with the defaults of a profile, without the keys of folders. The return type is the schema itself, which only inference can spell. */
// oxlint-disable-next-line typescript/explicit-module-boundary-types -- see above
export function configSchema(profile: ConfigProfile) {
  const defaults = DEFAULTS[profile];
  return z.strictObject({
    data: z
      .string()
      .min(1, { error: 'an empty path' })
      .prefault(DATA_DIR_DEFAULT)
      .describe('The directory of everything that must survive: state, keys, engines, snapshots. Relative to this file.'),
    listen: listenSchema(defaults).prefault({}).describe('Addresses that the node listens on.'),
    workers: z
      .union(
        [
          z.literal('auto'),
          z.int({ error: workersFault }).min(1, { error: workersFault }).max(WORKERS_MAX, { error: workersFault }),
        ],
        {
          error: workersFault,
        },
      )
      .prefault(defaults.workers)
      .describe('Data-plane processes. "auto": one for each processor.'),
    state: z
      .literal('sqlite', {
        error: ({ input }) =>
          typeof input === 'string' && /^postgres(?:ql)?:/.test(input)
            ? 'a PostgreSQL store is not implemented yet; write "sqlite", or leave the key out'
            : `${quoted(input)} is not a store; write "sqlite"`,
      })
      .prefault('sqlite')
      .describe('The store: "sqlite", a file in the data directory.'),
    hosts: z
      .array(host)
      .min(1, { error: 'an empty list; a node needs a host to put containers on' })
      .max(HOSTS_MAX, { error: `more than ${String(HOSTS_MAX)} hosts` })
      .prefault([...defaults.hosts])
      .superRefine((hosts, context) => {
        const fault = hostsFault(hosts);
        if (fault !== undefined) context.addIssue({ code: 'custom', message: fault });
      })
      .describe(
        'Docker Engines with gVisor that containers are placed on. The first managed one lives in the network of the machine.',
      ),
    domain: z
      .string()
      .regex(/^(?=.{1,190}$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*$/, {
        error: ({ input }) => `${quoted(input)} is not a domain; write it in small letters like "apps.example.com"`,
      })
      .prefault('localhost')
      .describe('A container without a host label is reached at NAME-TENANT.DOMAIN.'),
    logLevel: z
      .enum(LOG_LEVELS, { error: ({ input }) => `${quoted(input)} is not a level; write ${LOG_LEVELS.join(', ')}` })
      .prefault(defaults.logLevel)
      .describe('Which lines of the node and its workers go to standard error: these, and those that are graver.'),
    accessLog: z
      .string()
      .min(1, { error: 'an empty path' })
      .optional()
      .describe('The file of the access log, one JSON line an exchange. Relative to this file. Default: DATA/logs/access.jsonl.'),
  });
}
