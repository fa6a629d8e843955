/** What a command line means, and what is said of a wrong one. */
import { describe, expect, test } from 'vitest';
import { EcluseError, errorLine } from '#errors';
import { parseCommandLine } from '../../src/cli.ts';
import { helpText } from '../../src/cli-help.ts';
import { COMMANDS_TO_COME } from '../../src/cli-spec.ts';
import { COMMAND_SPECS } from '../../src/cli-table.ts';
import { csvField, plainText, shellWord, spanText, tableText } from '../../src/cli-text.ts';
import { LoadMeter } from '../../src/cli-top.ts';

function parse(line: string): ReturnType<typeof parseCommandLine> {
  return parseCommandLine(line.split(' ').filter((word) => word !== ''));
}

/** The error of a wrong command line, as it is printed. */
function refusal(line: string): string {
  try {
    parse(line);
  } catch (error) {
    return error instanceof EcluseError && error.code === 'ECLUSE_USAGE'
      ? errorLine(error)
      : `not a usage error: ${String(error)}`;
  }
  return 'not refused';
}

describe('parseCommandLine()', () => {
  const daemon = { dataDir: undefined, adminSocket: undefined };

  test.each([
    ['', { kind: 'help', topic: '' }],
    ['--help', { kind: 'help', topic: '' }],
    ['help tenant', { kind: 'help', topic: 'tenant' }],
    ['help tenant add', { kind: 'help', topic: 'tenant add' }],
    ['tenant --help', { kind: 'help', topic: 'tenant' }],
    ['migrate -h', { kind: 'help', topic: 'migrate' }],
    ['--version', { kind: 'version', json: false }],
    ['version --json', { kind: 'version', json: true }],
    ['status', { kind: 'status', json: false, daemon }],
    [
      'ps -a --tenant acme --data /d',
      { kind: 'ps', all: true, tenant: 'acme', json: false, daemon: { ...daemon, dataDir: '/d' } },
    ],
    ['top --once --admin /s', { kind: 'top', once: true, json: false, daemon: { ...daemon, adminSocket: '/s' } }],
    ['events -f --json', { kind: 'events', follow: true, last: 20, json: true, daemon }],
    ['migrate acme/web --to b', { kind: 'migrate', container: 'acme/web', to: 'b', endSessions: false, json: false, daemon }],
    ['migrate web --to b --end-sessions', { kind: 'migrate', container: 'web', to: 'b', endSessions: true, json: false, daemon }],
    ['host ls --json', { kind: 'host-ls', json: true, daemon }],
    [
      'doctor --fix --quiet --for-tests',
      { kind: 'doctor', fix: true, quiet: true, forTests: true, json: false, dataDir: undefined },
    ],
    ['route ls', { kind: 'route-ls', host: undefined, json: false, daemon }],
    [
      'route add shop.test/api shop -X GET -X POST -H x-beta:1 --dry-run',
      {
        kind: 'route-add',
        route: {
          match: { host: 'shop.test', path: '/api', methods: ['GET', 'POST'], headers: { 'x-beta': '1' } },
          service: 'shop',
        },
        ifVersion: undefined,
        dryRun: true,
        note: '',
        json: false,
        daemon,
      },
    ],
    [
      'route add shop.test shop=95,next=5',
      {
        kind: 'route-add',
        route: {
          match: { host: 'shop.test' },
          split: [
            { service: 'shop', weight: 95 },
            { service: 'next', weight: 5 },
          ],
        },
        ifVersion: undefined,
        dryRun: false,
        note: '',
        json: false,
        daemon,
      },
    ],
    [
      'route rm *.shop.test~^/v[0-9]+ --if-version 7 --note x',
      {
        kind: 'route-rm',
        match: { host: '*.shop.test', path: '~^/v[0-9]+' },
        ifVersion: 7,
        dryRun: false,
        note: 'x',
        json: false,
        daemon,
      },
    ],
    [
      'service set shop http://127.0.0.1:1 http://127.0.0.1:2',
      {
        kind: 'service-set',
        name: 'shop',
        service: { endpoints: ['http://127.0.0.1:1', 'http://127.0.0.1:2'] },
        ifVersion: undefined,
        dryRun: false,
        note: '',
        json: false,
        daemon,
      },
    ],
    [
      'service set shop http://127.0.0.1:1 http://[::1]:2=0 --balance hash(cookie:sid) --health /up --unhealthy-after 5 --idle-timeout 1h --pending 3 --hold 5s --send-proxy 2',
      {
        kind: 'service-set',
        name: 'shop',
        service: {
          endpoints: ['http://127.0.0.1:1', { url: 'http://[::1]:2', weight: 0 }],
          balance: 'hash(cookie:sid)',
          health: { path: '/up', unhealthyAfter: 5 },
          timeouts: { idle: '1h' },
          limits: { pending: 3, hold: '5s' },
          sendProxy: 2,
        },
        ifVersion: undefined,
        dryRun: false,
        note: '',
        json: false,
        daemon,
      },
    ],
    [
      'service set shop https://127.0.0.1:1 --server-name shop.internal --ca inner --client-cert edge',
      {
        kind: 'service-set',
        name: 'shop',
        service: {
          endpoints: ['https://127.0.0.1:1'],
          tls: { serverName: 'shop.internal', ca: 'inner', clientCertificate: 'edge' },
        },
        ifVersion: undefined,
        dryRun: false,
        note: '',
        json: false,
        daemon,
      },
    ],
    [
      'apply a b',
      { kind: 'apply', files: ['a', 'b'], watch: false, ifVersion: undefined, dryRun: false, note: '', json: false, daemon },
    ],
    ['diff a', { kind: 'apply', files: ['a'], watch: false, ifVersion: undefined, dryRun: true, note: '', json: false, daemon }],
    ['rollback 4', { kind: 'rollback', to: 4, ifVersion: undefined, dryRun: false, note: '', json: false, daemon }],
    [
      'explain https://shop.test/a?b=c -X PUT -H A:b',
      {
        kind: 'explain',
        host: 'shop.test',
        target: '/a?b=c',
        method: 'PUT',
        headers: { a: 'b' },
        version: undefined,
        json: false,
        daemon,
      },
    ],
    [
      'explain shop.test --version 3',
      { kind: 'explain', host: 'shop.test', target: '/', method: 'GET', headers: {}, version: 3, json: false, daemon },
    ],
    ['host drain b --dry-run', { kind: 'host-drain', host: 'b', dryRun: true, endSessions: false, json: false, daemon }],
    ['host undrain b', { kind: 'host-undrain', host: 'b', json: false, daemon }],
    ['rebalance', { kind: 'rebalance', dryRun: false, json: false, daemon }],
    ['host rm b', { kind: 'not-implemented', name: 'host rm' }],
  ])('%s', (line, command) => {
    expect(parse(line)).toEqual(command);
  });

  test('up takes listen addresses, checked and as they were written', () => {
    expect(parse('up --demo --config f --http 127.0.0.1:8081 --docker [::1]:2377 --metrics off')).toEqual({
      kind: 'up',
      configFile: 'f',
      dataDir: undefined,
      demo: true,
      checkOnly: false,
      listen: { http: '127.0.0.1:8081', https: undefined, docker: '[::1]:2377', metrics: 'off' },
    });
    expect(parse('up --check')).toMatchObject({ kind: 'up', checkOnly: true });
    expect(parse('upgrade')).toMatchObject({ kind: 'upgrade', drainMs: 60_000 });
    expect(parse('upgrade --drain 10m')).toMatchObject({ kind: 'upgrade', drainMs: 600_000 });
    expect(refusal('up --http 8080')).toContain('--http: "8080" is not an address');
    expect(refusal('up --http :70000')).toContain('port 70000');
    expect(refusal('up --http 300.1.2.3:80')).toContain('neither an IP address nor a host name');
  });

  test('tenant settings have units, and domains add up', () => {
    expect(parse('tenant add acme --memory 4g --containers 10 --domain a.example.com --domain b.example.com')).toMatchObject({
      name: 'acme',
      settings: {
        memoryBytesMax: 4 * 1024 ** 3,
        containersMax: 10,
        imagesMax: undefined,
        domains: ['a.example.com', 'b.example.com'],
      },
    });
    expect(parse('tenant set acme --no-domains --state suspended')).toMatchObject({
      settings: { domains: [] },
      state: 'suspended',
    });
    expect(refusal('tenant set acme')).toContain('nothing to change');
    expect(refusal('tenant set acme --domain a.b --no-domains')).toContain('exclude each other');
    expect(refusal('tenant add acme --memory 4q')).toBe('--memory: "4q" is not a value with a unit; write it like 16MiB or 2g');
    expect(refusal('tenant add acme --containers -1')).toContain('--containers');
  });

  test('usage windows are times or how long ago', () => {
    expect(parse('usage')).toMatchObject({
      since: { kind: 'ago', ms: 30 * 86_400_000 },
      until: { kind: 'ago', ms: 0 },
      by: 'container',
      format: 'table',
    });
    expect(parse('usage --since 2026-01-31T12:00:00Z --until 2h --by hour --format csv')).toMatchObject({
      since: { kind: 'at', atMs: Date.UTC(2026, 0, 31, 12) },
      until: { kind: 'ago', ms: 7_200_000 },
      by: 'hour',
      format: 'csv',
    });
    expect(parse('usage --json')).toMatchObject({ format: 'json' });
    expect(refusal('usage --since yesterday')).toContain('--since cannot be "yesterday"');
    expect(refusal('usage --since 30')).toContain('like 2h or 30d');
    expect(refusal('usage --by tennant')).toContain('did you mean tenant?');
  });

  test.each([
    ['tenat ls', 'did you mean tenant?'],
    ['tenant lst', 'did you mean tenant ls?'],
    ['tenant', 'tenant needs one of add, ls, set, rm, env'],
    ['frobnicate', 'see: ecluse help'],
    ['ps --tennant x', 'did you mean --tenant?'],
    ['ps -z', 'ps has no flag -z'],
    ['ps x', 'ps does not take "x"'],
    ['ps --tenant', '--tenant'],
    ['ps --tenant=', '--tenant has an empty value'],
    ['ps --all=yes', '--all'],
    ['migrate web', 'add --to HOST'],
    ['migrate --to b', 'migrate needs CONTAINER'],
    ['--data /d ps', 'flags come after the command'],
    ['help frobnicate', 'there is no command "frobnicate"'],
    ['events --last many', '--last cannot be "many"'],
    ['ps __proto__', 'does not take'],
    ['constructor', 'there is no command "constructor"'],
  ])('refuses: %s', (line, said) => {
    expect(refusal(line)).toContain(said);
  });
});

test('help names every command that exists, and none that is to come', () => {
  const listed = helpText('')
    .split('\n')
    .filter((line) => line.startsWith('  '));
  const shown = COMMAND_SPECS.filter(({ hidden }) => hidden !== true);
  // `explain container` and `explain URL`: what is listed is compared whole, not by its first word.
  expect(listed.map((line) => line.trim().split('  ')[0])).toEqual(
    shown.map(({ words, operands }) => [words, ...operands].join(' ')),
  );
  for (const words of COMMANDS_TO_COME) expect(COMMAND_SPECS.map((spec) => spec.words)).not.toContain(words);
  expect(parse('logs web')).toEqual({ kind: 'not-implemented', name: 'logs' });
  expect(helpText('ps')).toContain('-a, --all');
  expect(helpText('tenant')).toContain('tenant env NAME');
});

test.each([
  ['usage --month 2026-13', '--month cannot be "2026-13"'],
  ['usage --month 2026-11 --since 2d', '--month excludes --since and --until'],
  ['usage --format focus', 'FOCUS is about whole months'],
  ['invoice', '--tenant is missing'],
  ['invoice issue --month november', '--month cannot be "november"'],
  ['invoice --tenant acme --month november', '--month cannot be "november"'],
  ['ledger export', '--tenant is missing'],
  ['ledger verify --from 2026-02-30', '--from cannot be "2026-02-30"'],
  ['ledger verify --from 2026-11-02 --to 2026-11-01', '--from is later than --to'],
  ['ledger correct web --requests=-1', '--reason is missing'],
  ['ledger correct web --reason twice', 'there is nothing to correct'],
  ['ledger correct web --reason twice --cpu-seconds lots', '--cpu-seconds cannot be "lots"'],
  ['prices show --version 0', '--version cannot be "0"'],
])('%s is refused: %s', (line, said) => {
  expect(refusal(line)).toContain(said);
});

test('what a correction takes away is exact', () => {
  const line = 'ledger correct web --reason twice --cpu-seconds=-12.5 --memory-gib-hours=-1.5 --requests=-3 --egress=-2GiB';
  expect(parse(line)).toMatchObject({
    kind: 'ledger-correct',
    container: 'web',
    quantities: {
      cpuNs: -12_500_000_000,
      memoryByteMs: (-3n * 1024n ** 3n * 3_600_000n) / 2n,
      requests: -3,
      egressBytes: -2 * 1024 ** 3,
      ingressBytes: 0,
    },
  });
  expect(parse('invoice ls')).toMatchObject({ kind: 'invoice-ls', month: undefined });
  expect(parse('invoice issue --month 2026-11')).toMatchObject({ kind: 'invoice-issue', month: '2026-11', tenant: undefined });
  expect(parse('invoice --tenant acme --month 2026-11 --format focus')).toMatchObject({ month: '2026-11', format: 'focus' });
  expect(parse('usage --month 2026-11 --format focus')).toMatchObject({ month: '2026-11', tenant: undefined });
});

test('every read command has --json', () => {
  const without = COMMAND_SPECS.filter(({ flags }) => flags.every(({ name }) => name !== 'json')).map(({ words }) => words);
  expect(without).toEqual(['up', 'hash-password', 'config-schema']);
});

test('tables are aligned, and have no trailing blanks', () => {
  expect(
    tableText(
      ['NAME', 'N'],
      [
        ['a', '1'],
        ['longer', ''],
      ],
    ),
  ).toBe('NAME     N\na        1\nlonger\n');
  expect(tableText(['NAME'], [])).toBe('NAME\n');
});

test.each([
  ['tcp://127.0.0.1:2376', 'tcp://127.0.0.1:2376'],
  ['tcp://[::1]:2376', "'tcp://[::1]:2376'"],
  ["/it's here", String.raw`'/it'\''s here'`],
  ['', "''"],
])('shellWord() of %j is %s', (text, word) => {
  expect(shellWord(text)).toBe(word);
});

test('spans, CSV fields and foreign text', () => {
  expect([312.4, 1234, 125_000].map(spanText)).toEqual(['312 ms', '1.23 s', '2 min 05 s']);
  expect(['a', 'a,b', 'a"b'].map(csvField)).toEqual(['a', '"a,b"', '"a""b"']);
  expect(plainText('a\u001B[31m\u009B\n')).toBe('a?[31m??');
});

test('LoadMeter makes rates of counters, keeps them between samples and begins again after a move', () => {
  const meter = new LoadMeter();
  const reading = { id: 'x', tenant: 'acme', name: 'web', host: 'a', memoryBytes: 5 };
  const percent = (cpuNs: number, sampledMs: number): number | undefined =>
    meter.take([{ ...reading, cpuNs, sampledMs }])[0]?.cpuPercent;
  expect(percent(0, 1000)).toBeUndefined();
  expect(percent(500_000_000, 2000)).toBe(50);
  expect(percent(500_000_000, 2000)).toBe(50);
  expect(percent(2_500_000_000, 3000)).toBe(200);
  expect(percent(10, 4000)).toBeUndefined();
  expect(percent(10, 5000)).toBe(0);
});
