/** The commands for the edge's settings: services, routes, versions, and where a request goes. Pure. */
import type { ChangeFlags, Command } from './cli-command.ts';
import { countOf, DRY_RUN_FLAG, remote, REMOTE_FLAGS } from './cli-flags.ts';
import type { ActionSettings } from '#routing/operator/action-schema.ts';
import { SERVICE_FLAGS, serviceOfFlags } from './cli-service-flags.ts';
import { usageError } from './cli-spec.ts';
import type { CommandSpec, FlagSpec, Given } from './cli-spec.ts';

const CHANGE_FLAGS: readonly FlagSpec[] = [
  { ...DRY_RUN_FLAG, about: 'print what would change, and change nothing' },
  { name: 'if-version', value: 'N', about: 'only if nobody changed the routes since this version' },
  { name: 'note', value: 'TEXT', about: 'why, for the history' },
  ...REMOTE_FLAGS,
];
const MATCH_FLAGS: readonly FlagSpec[] = [
  { name: 'method', short: 'X', value: 'M', repeats: true, about: 'only for this method; once for each' },
  { name: 'header', short: 'H', value: 'NAME:VALUE', repeats: true, about: 'only with this field; once for each' },
];

const REDIRECT_STATUSES = [301, 302, 303, 307, 308] as const;

function changeOf(given: Given): ChangeFlags {
  const version = given.text('if-version');
  return {
    ifVersion: version === undefined ? undefined : countOf('if-version', version, 0),
    dryRun: given.has('dry-run'),
    note: given.text('note') ?? '',
  };
}

function headersOf(given: Given): Readonly<Record<string, string>> {
  return Object.fromEntries(
    (given.texts('header') ?? []).map((text) => {
      const found = /^([^:\s]+):\s*(.*)$/.exec(text);
      if (found === null) throw usageError(`--header cannot be "${text}"`, 'write NAME:VALUE');
      return [(found[1] ?? '').toLowerCase(), found[2] ?? ''];
    }),
  );
}

/** `HOST`, `HOST/path`, `HOST=/path` or `HOST~expression`. */
function matchOf(given: Given) {
  const found = /^([^/=~]+)([/=~].*)?$/.exec(given.operand(0));
  if (found === null)
    throw usageError(`"${given.operand(0)}" names no route`, 'write HOST, HOST/PREFIX, HOST=/PATH or HOST~EXPRESSION');
  const [, host = '', path] = found;
  const methods = given.texts('method');
  const headers = headersOf(given);
  return {
    host,
    ...(path === undefined ? {} : { path }),
    ...(methods === undefined ? {} : { methods: [...methods] }),
    ...(Object.keys(headers).length === 0 ? {} : { headers }),
  };
}

/** `shop`, or `shop=95,shop-next=5`. */
function targetOf(text: string): { service: string } | { split: { service: string; weight: number }[] } {
  if (!text.includes('=')) return { service: text };
  const split = text.split(',').map((share) => {
    const found = /^([^=]+)=(\d{1,5})$/.exec(share);
    if (found === null) throw usageError(`"${share}" is no share of a split`, 'write SERVICE=WEIGHT,SERVICE=WEIGHT');
    return { service: found[1] ?? '', weight: Number(found[2]) };
  });
  return { split };
}

function actionsOf(given: Given): { actions?: ActionSettings } {
  const stripPrefix = given.text('strip-prefix');
  const limit = given.text('rate-limit');
  if (stripPrefix === undefined && limit === undefined) return {};
  return {
    actions: {
      ...(stripPrefix === undefined ? {} : { stripPrefix }),
      ...(limit === undefined ? {} : { rateLimit: rateLimitOf(limit) }),
    },
  };
}

/** `100/s`, `20/1m`. */
function rateLimitOf(text: string): NonNullable<ActionSettings['rateLimit']> {
  const found = /^(\d{1,7})\/(\d*)(ms|s|m|h)$/.exec(text);
  if (found === null) throw usageError(`--rate-limit cannot be "${text}"`, 'write it like 100/s or 20/1m');
  const [, requests = '', count = '', unit = ''] = found;
  return { requests: Number(requests), per: `${count === '' ? '1' : count}${unit}` };
}

function redirectOf(given: Given): Command {
  const text = given.text('status');
  const status = REDIRECT_STATUSES.find((one) => String(one) === (text ?? '302'));
  if (status === undefined)
    throw usageError(`--status cannot be "${String(text)}"`, `use one of ${REDIRECT_STATUSES.join(', ')}`);
  const redirect = { to: given.operand(1), ...(text === undefined ? {} : { status }) };
  return {
    kind: 'route-add',
    ...remote(given),
    ...changeOf(given),
    route: { match: matchOf(given), actions: { redirect } },
  };
}

function explainOf(given: Given): Command {
  const text = given.operand(0);
  const found = /^(?:https?:\/\/)?([^/?#]+)([^#]*)/i.exec(text);
  if (found === null) throw usageError(`"${text}" is no URL`, 'write it like https://shop.example.com/api/cart');
  const [, host = '', rest = ''] = found;
  const version = given.text('version');
  return {
    kind: 'explain',
    ...remote(given),
    host,
    target: rest.startsWith('/') ? rest : `/${rest}`,
    method: given.texts('method')?.at(-1) ?? 'GET',
    headers: headersOf(given),
    version: version === undefined ? undefined : countOf('version', version, 0),
  };
}

function applyOf(given: Given): Command {
  const [watch, change, files] = [given.has('watch'), changeOf(given), given.operands];
  if (watch && (change.dryRun || change.ifVersion !== undefined)) throw usageError('--watch excludes --dry-run and --if-version');
  if (watch && files.includes('-')) throw usageError('--watch needs files, and - is none');
  return { kind: 'apply', ...remote(given), ...change, files, watch };
}

const VERSION_OPERAND = 'VERSION';

export const EDGE_COMMAND_SPECS: readonly CommandSpec[] = [
  {
    words: 'apply',
    operands: ['FILE…'],
    about: 'make services and routes what the files say, in one version; what they do not say goes',
    flags: [{ name: 'watch', about: 'go on, and apply them again whenever one of them changes' }, ...CHANGE_FLAGS],
    command: applyOf,
  },
  {
    words: 'diff',
    operands: ['FILE…'],
    about: 'show what apply would change',
    flags: REMOTE_FLAGS,
    command: (given) => ({
      kind: 'apply',
      ...remote(given),
      ifVersion: undefined,
      note: '',
      dryRun: true,
      watch: false,
      files: given.operands,
    }),
  },
  {
    words: 'history',
    operands: [],
    about: 'list the versions of services and routes, the newest first',
    flags: [{ name: 'last', value: 'N', about: 'how many (default: 20)' }, ...REMOTE_FLAGS],
    command: (given) => ({ kind: 'history', ...remote(given), last: countOf('last', given.text('last') ?? '20', 1) }),
  },
  {
    words: 'rollback',
    operands: [VERSION_OPERAND],
    about: 'make services and routes what they were at a version, under a new one',
    flags: CHANGE_FLAGS,
    command: (given) => ({ kind: 'rollback', ...remote(given), ...changeOf(given), to: countOf('version', given.operand(0), 0) }),
  },
  {
    words: 'config show',
    operands: [],
    about: 'print all services and routes, as apply takes them',
    flags: REMOTE_FLAGS,
    command: (given) => ({ kind: 'config-show', ...remote(given) }),
  },
  {
    words: 'config diff',
    operands: [VERSION_OPERAND],
    about: 'show what changed since a version',
    flags: REMOTE_FLAGS,
    command: (given) => ({ kind: 'diff-since', ...remote(given), since: countOf('version', given.operand(0), 0) }),
  },
  {
    words: 'config lint',
    operands: [],
    about: 'say what is hardly meant: routes that are never asked, services without endpoints',
    flags: REMOTE_FLAGS,
    command: (given) => ({ kind: 'config-lint', ...remote(given) }),
  },
  {
    words: 'route ls',
    operands: [],
    about: 'list the routes that operators wrote',
    flags: [{ name: 'host', value: 'HOST', about: 'only of this host' }, ...REMOTE_FLAGS],
    command: (given) => ({ kind: 'route-ls', ...remote(given), host: given.text('host') }),
  },
  {
    words: 'route add',
    operands: ['ROUTE', 'SERVICE'],
    about: 'add a route (HOST, HOST/PREFIX, HOST=/PATH, HOST~EXPRESSION), or lead it to another service, or to A=95,B=5',
    flags: [
      ...MATCH_FLAGS,
      { name: 'strip-prefix', value: 'PREFIX', about: 'what endpoints do not get to see of paths, like /api' },
      { name: 'rate-limit', value: 'N/TIME', about: 'requests of one address, like 100/s or 20/1m; more get 429' },
      ...CHANGE_FLAGS,
    ],
    command: (given) => ({
      kind: 'route-add',
      ...remote(given),
      ...changeOf(given),
      route: { match: matchOf(given), ...targetOf(given.operand(1)), ...actionsOf(given) },
    }),
  },
  {
    words: 'route redirect',
    operands: ['ROUTE', 'TO'],
    about: 'add a route that sends clients elsewhere: https://{host}{uri}, /new{path}',
    flags: [...MATCH_FLAGS, { name: 'status', value: 'N', about: '301, 302 (default), 303, 307 or 308' }, ...CHANGE_FLAGS],
    command: redirectOf,
  },
  {
    words: 'route rm',
    operands: ['ROUTE'],
    about: 'remove a route; its methods and fields belong to its name',
    flags: [...MATCH_FLAGS, ...CHANGE_FLAGS],
    command: (given) => ({ kind: 'route-rm', ...remote(given), ...changeOf(given), match: matchOf(given) }),
  },
  {
    words: 'hash-password',
    operands: [],
    about: 'read a password from standard input, and print what routes with auth.basic keep of it',
    flags: [],
    command: () => ({ kind: 'hash-password' }),
  },
  {
    words: 'service ls',
    operands: [],
    about: 'list the services that operators wrote',
    flags: REMOTE_FLAGS,
    command: (given) => ({ kind: 'service-ls', ...remote(given) }),
  },
  {
    words: 'service set',
    operands: ['NAME', 'ENDPOINT…'],
    about: 'make a service, or make it what is said here: http://ADDRESS:PORT … or http://ADDRESS:PORT=WEIGHT …',
    flags: [...SERVICE_FLAGS, ...CHANGE_FLAGS],
    command: (given) => ({
      kind: 'service-set',
      ...remote(given),
      ...changeOf(given),
      name: given.operand(0),
      service: serviceOfFlags(given),
    }),
  },
  {
    words: 'service rm',
    operands: ['NAME'],
    about: 'remove a service that no route leads to',
    flags: CHANGE_FLAGS,
    command: (given) => ({ kind: 'service-rm', ...remote(given), ...changeOf(given), name: given.operand(0) }),
  },
  {
    words: 'explain',
    operands: ['URL'],
    about: 'show which route, endpoint and certificate would answer, and why not the others',
    flags: [
      { name: 'method', short: 'X', value: 'M', repeats: true, about: 'of the request (default: GET)' },
      { name: 'header', short: 'H', value: 'NAME:VALUE', repeats: true, about: 'of the request; once for each' },
      { name: 'version', value: 'N', about: 'with the routes of operators as they were at a version' },
      ...REMOTE_FLAGS,
    ],
    command: explainOf,
  },
];
