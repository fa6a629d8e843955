/** The table of commands: their words, operands and flags, what help says of them, and what they mean. Pure. */
import { parseSizeBytes } from '#units';
import type { Command, TenantSettings } from './cli-command.ts';
import { countOf, DATA_FLAG, DRY_RUN_FLAG, JSON_FLAG, oneOf, remote, REMOTE_FLAGS, TENANT_FLAG, withUnit } from './cli-flags.ts';
import { usageError } from './cli-spec.ts';
import { CERT_COMMAND_SPECS } from './cli-table-cert.ts';
import { EDGE_COMMAND_SPECS } from './cli-table-edge.ts';
import { METERING_COMMAND_SPECS } from './cli-table-metering.ts';
import { NODE_COMMAND_SPECS } from './cli-table-node.ts';
import type { CommandSpec, FlagSpec, Given } from './cli-spec.ts';
import { parseListenAddress } from './listen-address.ts';

const END_SESSIONS_FLAG: FlagSpec = { name: 'end-sessions', about: 'end exec sessions, which keep a container otherwise' };
const TENANT_SETTING_FLAGS: readonly FlagSpec[] = [
  { name: 'memory', value: 'SIZE', about: 'the sum of the memory limits of its containers, like 4g' },
  { name: 'containers', value: 'N', about: 'how many containers it may have' },
  { name: 'images', value: 'N', about: 'how many images it may have' },
  { name: 'networks', value: 'N', about: 'how many networks it may have' },
  { name: 'volumes', value: 'N', about: 'how many volumes it may have' },
  { name: 'ports', value: 'N', about: 'how many ports it may publish at a time' },
  { name: 'cpus', value: 'N', about: 'the sum of --cpus of its containers, like 4 or 0.5; 0: no limit' },
  { name: 'address', value: 'IP', about: 'an address of this machine for its published ports and its DOCKER_HOST' },
  { name: 'domain', value: 'D', repeats: true, about: 'a domain that its routes may use; once for each' },
];

/** `0.5` of a processor is 500 thousandths. */
function milliOf(flag: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (/^\d{1,4}(?:\.\d{1,3})?$/.test(text)) return Math.round(Number(text) * 1000);
  throw usageError(`--${flag} cannot be "${text}"`, 'use a number like 4 or 0.5');
}

function settingsOf({ text, texts }: Given): TenantSettings {
  const memory = text('memory');
  const count = (flag: string): number | undefined => {
    const given = text(flag);
    return given === undefined ? undefined : countOf(flag, given, 0);
  };
  return {
    memoryBytesMax: memory === undefined ? undefined : withUnit('memory', memory, parseSizeBytes),
    containersMax: count('containers'),
    imagesMax: count('images'),
    networksMax: count('networks'),
    volumesMax: count('volumes'),
    portsMax: count('ports'),
    cpuMilliMax: milliOf('cpus', text('cpus')),
    domains: texts('domain'),
    address: text('address'),
  };
}

function changeOf(given: Given): Command {
  const state = given.text('state');
  const settings = settingsOf(given);
  if (given.has('no-domains') && settings.domains !== undefined) throw usageError('--domain and --no-domains exclude each other');
  if (given.has('no-address') && settings.address !== undefined)
    throw usageError('--address and --no-address exclude each other');
  const domains = given.has('no-domains') ? [] : settings.domains;
  const address = given.has('no-address') ? '' : settings.address;
  const isEmpty = state === undefined && Object.values({ ...settings, domains, address }).every((value) => value === undefined);
  if (isEmpty) throw usageError('there is nothing to change', 'give at least one of its flags; see: ecluse help tenant set');
  return {
    kind: 'tenant-set',
    ...remote(given),
    name: given.operand(0),
    settings: { ...settings, domains, address },
    state: state === undefined ? undefined : oneOf<'active' | 'suspended'>('state', state, ['active', 'suspended']),
  };
}

function listenText(given: Given, flag: string): string | undefined {
  const text = given.text(flag);
  if (text === undefined) return undefined;
  const parsed = parseListenAddress(text);
  if (parsed.kind === 'invalid') throw usageError(`--${flag}: ${parsed.why}`);
  return text;
}

function migrateOf(given: Given): Command {
  const to = given.text('to');
  if (given.has('cancel')) {
    if (to !== undefined) throw usageError('--to and --cancel exclude each other');
    return { kind: 'migrate-cancel', ...remote(given), container: given.operand(0) };
  }
  if (to === undefined)
    throw usageError('migrate needs a host to move the container to', 'add --to HOST; see the hosts with: ecluse host ls');
  return { kind: 'migrate', ...remote(given), container: given.operand(0), to, endSessions: given.has('end-sessions') };
}

export const COMMAND_SPECS: readonly CommandSpec[] = [
  {
    words: 'up',
    operands: [],
    about: 'run the node in the foreground',
    flags: [
      { name: 'config', value: 'FILE', about: 'the configuration, ecluse.yaml' },
      DATA_FLAG,
      { name: 'demo', about: 'a node to try out: two hosts, on 127.0.0.1 only' },
      { name: 'check', about: 'say whether the configuration is in order, and run nothing' },
      { name: 'http', value: 'ADDR', about: 'where apps are reached by HTTP, like :8080, or off' },
      { name: 'https', value: 'ADDR', about: 'where apps are reached by HTTPS' },
      { name: 'docker', value: 'ADDR', about: 'where tenants reach the Docker API' },
      { name: 'metrics', value: 'ADDR', about: 'where Prometheus reads /metrics' },
    ],
    command: (given) => ({
      kind: 'up',
      configFile: given.text('config'),
      dataDir: given.text('data'),
      demo: given.has('demo'),
      checkOnly: given.has('check'),
      listen: {
        http: listenText(given, 'http'),
        https: listenText(given, 'https'),
        docker: listenText(given, 'docker'),
        metrics: listenText(given, 'metrics'),
      },
    }),
  },
  {
    words: 'doctor',
    operands: [],
    about: 'say what the machine lacks to run a node, or mend it',
    flags: [
      { name: 'fix', about: 'install and set up what is missing' },
      { name: 'quiet', about: 'print only what is not well' },
      { name: 'for-tests', about: 'also look at what only the test suite needs' },
      JSON_FLAG,
      DATA_FLAG,
    ],
    command: ({ has, text }) => ({
      kind: 'doctor',
      fix: has('fix'),
      quiet: has('quiet'),
      forTests: has('for-tests'),
      json: has('json'),
      dataDir: text('data'),
    }),
  },
  ...NODE_COMMAND_SPECS,
  {
    words: 'tenant add',
    operands: ['NAME'],
    about: 'add a tenant, with its credentials',
    flags: [...TENANT_SETTING_FLAGS, ...REMOTE_FLAGS],
    command: (given) => ({ kind: 'tenant-add', ...remote(given), name: given.operand(0), settings: settingsOf(given) }),
  },
  {
    words: 'tenant ls',
    operands: [],
    about: 'list tenants with their quotas',
    flags: REMOTE_FLAGS,
    command: (given) => ({ kind: 'tenant-ls', ...remote(given) }),
  },
  {
    words: 'tenant set',
    operands: ['NAME'],
    about: "change a tenant's quotas, domains, address or state",
    flags: [
      ...TENANT_SETTING_FLAGS,
      { name: 'no-domains', about: 'allow it no domains of its own any more' },
      { name: 'no-address', about: 'let it share the address of the Docker endpoint again' },
      { name: 'state', value: 'STATE', about: 'active or suspended: a suspended tenant cannot use the Docker API' },
      ...REMOTE_FLAGS,
    ],
    command: changeOf,
  },
  {
    words: 'tenant rm',
    operands: ['NAME'],
    about: 'remove a tenant that owns nothing any more',
    flags: REMOTE_FLAGS,
    command: (given) => ({ kind: 'tenant-rm', ...remote(given), name: given.operand(0) }),
  },
  {
    words: 'tenant env',
    operands: ['NAME'],
    about: 'print what makes docker talk as the tenant: eval "$(ecluse tenant env NAME)"',
    flags: REMOTE_FLAGS,
    command: (given) => ({ kind: 'tenant-env', ...remote(given), name: given.operand(0) }),
  },
  {
    words: 'host ls',
    operands: [],
    about: 'list hosts',
    flags: REMOTE_FLAGS,
    command: (given) => ({ kind: 'host-ls', ...remote(given) }),
  },
  {
    words: 'host drain',
    operands: ['HOST'],
    about: 'take a host out of use and move what runs there away',
    flags: [DRY_RUN_FLAG, END_SESSIONS_FLAG, ...REMOTE_FLAGS],
    command: (given) => ({
      kind: 'host-drain',
      ...remote(given),
      host: given.operand(0),
      dryRun: given.has('dry-run'),
      endSessions: given.has('end-sessions'),
    }),
  },
  {
    words: 'host undrain',
    operands: ['HOST'],
    about: 'let a host be given containers again',
    flags: REMOTE_FLAGS,
    command: (given) => ({ kind: 'host-undrain', ...remote(given), host: given.operand(0) }),
  },
  {
    words: 'rebalance',
    operands: [],
    about: 'move containers off hosts that are too full, or to empty hosts that hold little',
    flags: [DRY_RUN_FLAG, ...REMOTE_FLAGS],
    command: (given) => ({ kind: 'rebalance', ...remote(given), dryRun: given.has('dry-run') }),
  },
  {
    words: 'ps',
    operands: [],
    about: "list all tenants' containers",
    flags: [{ name: 'all', short: 'a', about: 'also those that do not run' }, TENANT_FLAG, ...REMOTE_FLAGS],
    command: (given) => ({ kind: 'ps', ...remote(given), all: given.has('all'), tenant: given.text('tenant') }),
  },
  {
    words: 'top',
    operands: [],
    about: 'show what containers use, live',
    flags: [{ name: 'once', about: 'print one table and end' }, ...REMOTE_FLAGS],
    command: (given) => ({ kind: 'top', ...remote(given), once: given.has('once') }),
  },
  {
    words: 'events',
    operands: [],
    about: 'show what happened on the node',
    flags: [
      { name: 'follow', short: 'f', about: 'go on as things happen' },
      { name: 'last', value: 'N', about: 'how many past events to show (default: 20)' },
      ...REMOTE_FLAGS,
    ],
    command: (given) => ({
      kind: 'events',
      ...remote(given),
      follow: given.has('follow'),
      last: countOf('last', given.text('last') ?? '20', 0),
    }),
  },
  {
    words: 'explain container',
    operands: ['CONTAINER'],
    about: 'show why a container was put on its host',
    flags: REMOTE_FLAGS,
    command: (given) => ({ kind: 'explain-container', ...remote(given), container: given.operand(0) }),
  },
  {
    words: 'migrate',
    operands: ['CONTAINER'],
    about: 'move a running container to another host',
    flags: [
      { name: 'to', value: 'HOST', about: 'the host to move it to' },
      { name: 'cancel', about: 'call off the move that is under way' },
      END_SESSIONS_FLAG,
      ...REMOTE_FLAGS,
    ],
    command: migrateOf,
  },
  {
    words: 'suspend',
    operands: ['CONTAINER'],
    about: 'put a running container to sleep: memory on disk, woken by the next request',
    flags: REMOTE_FLAGS,
    command: (given) => ({ kind: 'suspend', ...remote(given), container: given.operand(0) }),
  },
  {
    words: 'wake',
    operands: ['CONTAINER'],
    about: 'wake a container that sleeps',
    flags: REMOTE_FLAGS,
    command: (given) => ({ kind: 'wake', ...remote(given), container: given.operand(0) }),
  },
  {
    words: 'clone',
    operands: ['CONTAINER'],
    about: 'make warm copies of a running container, behind the same host names',
    flags: [{ name: 'count', value: 'N', about: 'how many (default: 1)' }, ...REMOTE_FLAGS],
    command: (given) => ({
      kind: 'clone',
      ...remote(given),
      container: given.operand(0),
      count: countOf('count', given.text('count') ?? '1', 1),
    }),
  },
  {
    words: 'snapshot ls',
    operands: [],
    about: 'list the snapshots that are kept',
    flags: REMOTE_FLAGS,
    command: (given) => ({ kind: 'snapshot-ls', ...remote(given) }),
  },
  {
    words: 'snapshot rm',
    operands: ['SNAPSHOT'],
    about: 'remove a snapshot',
    flags: REMOTE_FLAGS,
    command: (given) => ({ kind: 'snapshot-rm', ...remote(given), snapshot: given.operand(0) }),
  },
  {
    words: 'snapshot',
    operands: ['CONTAINER'],
    about: 'keep memory, files and volumes of a running container as they are now',
    flags: REMOTE_FLAGS,
    command: (given) => ({ kind: 'snapshot', ...remote(given), container: given.operand(0) }),
  },
  {
    words: 'restore',
    operands: ['SNAPSHOT|CONTAINER'],
    about: 'bring a lost container back from a snapshot, or from its newest one',
    flags: [
      { name: 'to', value: 'HOST', about: 'the host to bring it to (default: the one that placement chooses)' },
      ...REMOTE_FLAGS,
    ],
    command: (given) => ({ kind: 'restore', ...remote(given), reference: given.operand(0), to: given.text('to') }),
  },
  ...METERING_COMMAND_SPECS,
  ...EDGE_COMMAND_SPECS,
  ...CERT_COMMAND_SPECS,
  {
    words: 'version',
    operands: [],
    about: 'print the version',
    flags: [JSON_FLAG],
    command: ({ has }) => ({ kind: 'version', json: has('json') }),
  },
  {
    words: 'config-schema',
    operands: [],
    about: 'print the JSON Schema of ecluse.yaml',
    flags: [
      { name: 'routes', about: 'that of the file for apply' },
      { name: 'admin-api', about: 'the OpenAPI document of the admin API instead' },
    ],
    hidden: true,
    command: ({ has }) => {
      if (has('admin-api')) return { kind: 'config-schema', of: 'admin-api' };
      return { kind: 'config-schema', of: has('routes') ? 'routes' : 'node' };
    },
  },
];
