/** `ecluse.yaml`, flags and defaults. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { configJsonSchema, loadConfig } from '#config';
import type { NodeConfig } from '#config';
import { EcluseError } from '#errors';
import { EDGE_LIMITS } from '#proxy/edge-limits.ts';
import { nearestWord } from '../../src/suggest.ts';

const NO_OVERRIDES = { http: undefined, https: undefined, docker: undefined, metrics: undefined };
let folder = '';

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ecluse-config-'));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function load(text: string | Buffer, request: Partial<Parameters<typeof loadConfig>[0]> = {}): Promise<NodeConfig> {
  const file = join(folder, 'ecluse.yaml');
  await writeFile(file, text);
  return await loadConfig({ file, dataDir: undefined, demo: false, overrides: NO_OVERRIDES, ...request });
}

/** The problems that are said, without the folder of the test. */
async function problems(
  text: string | Buffer,
  request: Partial<Parameters<typeof loadConfig>[0]> = {},
): Promise<readonly string[]> {
  const thrown: unknown = await load(text, request).catch((error: unknown) => error);
  expect(thrown).toBeInstanceOf(EcluseError);
  expect(thrown).toMatchObject({ code: 'ECLUSE_CONFIG_INVALID' });
  return thrown instanceof Error ? thrown.message.split('\n').map((line) => line.replace(`${folder}/`, '')) : [];
}

describe('loadConfig()', () => {
  test('without a file has the defaults of a node', async () => {
    const config = await loadConfig({ file: undefined, dataDir: undefined, demo: false, overrides: NO_OVERRIDES });
    expect(config).toMatchObject({
      dataDir: '/var/lib/ecluse',
      listen: {
        http: { host: '0.0.0.0', port: 80 },
        https: { host: '0.0.0.0', port: 443 },
        docker: { host: '0.0.0.0', port: 2376 },
        metrics: { host: '127.0.0.1', port: 9180 },
        adminSocket: '/run/ecluse/admin.sock',
      },
      hosts: [{ name: 'local', engine: 'managed' }],
      domain: 'localhost',
      accessLogFile: '/var/lib/ecluse/logs/access.jsonl',
      edge: EDGE_LIMITS,
      trustedProxies: [],
      proxyProtocol: false,
      demo: false,
    });
    expect(config.workers).toBeGreaterThanOrEqual(1);
  });

  test('--demo changes the defaults, and a file and flags still win', async () => {
    const { keys, ...demo } = await load('', { demo: true, dataDir: '/d' });
    expect(demo).toEqual({
      dataDir: '/d',
      listen: {
        http: { host: '127.0.0.1', port: 8080 },
        https: { host: '127.0.0.1', port: 8443 },
        docker: { host: '127.0.0.1', port: 2376 },
        metrics: { host: '127.0.0.1', port: 9180 },
        adminSocket: '/d/admin.sock',
      },
      workers: 2,
      hosts: [
        { name: 'a', engine: 'managed' },
        { name: 'b', engine: 'managed' },
      ],
      domain: 'localhost',
      accessLogFile: '/d/logs/access.jsonl',
      edge: EDGE_LIMITS,
      trustedProxies: [],
      unknownNames: 'default',
      redirect: false,
      registries: ['*'],
      migration: { transfer: 'shared', bandwidth: undefined, concurrency: 2 },
      rebalance: { mode: 'off', goals: ['relieve', 'consolidate'] },
      proxyProtocol: false,
      logLevel: 'warn',
      demo: true,
      file: join(folder, 'ecluse.yaml'),
    });
    expect(keys.get('workers')).toBe('2');
    const overrides = { ...NO_OVERRIDES, http: ':1', metrics: 'off' };
    const config = await load('listen: { http: ":2", https: ":3" }\nworkers: 1\n', { demo: true, overrides });
    expect(config.listen).toMatchObject({
      http: { port: 1 },
      https: { host: '0.0.0.0', port: 3 },
      docker: { port: 2376 },
      metrics: undefined,
    });
    expect(config.workers).toBe(1);
  });

  test('reads every key, JSON too, and resolves paths by the file', async () => {
    const text = JSON.stringify({
      data: 'state',
      listen: { http: 'localhost:80', https: '[::1]:443', docker: 'off', admin: 'unix:///tmp/a.sock', metrics: 'off' },
      workers: 'auto',
      state: 'sqlite',
      hosts: [{ name: 'n1', engine: 'unix:///var/run/docker.sock' }],
      domain: 'apps.example.com',
      accessLog: 'access.log',
    });
    expect(await load(text)).toMatchObject({
      dataDir: join(folder, 'state'),
      listen: {
        http: { host: 'localhost', port: 80 },
        https: { host: '::1', port: 443 },
        docker: undefined,
        adminSocket: '/tmp/a.sock',
      },
      hosts: [{ name: 'n1', engine: 'unix:///var/run/docker.sock' }],
      domain: 'apps.example.com',
      accessLogFile: join(folder, 'access.log'),
    });
  });

  test('says every problem with its line, its path and what was meant', async () => {
    const text = `listen: { htp: ":80", https: 443, docker: ":70000" }
worker: 3
workers: 99
state: postgres://db/ecluse
hosts:
  - name: A
    engine: managed
    port: 3
  - engine: tcp://h
domain: Exa mple
`;
    expect(await problems(text)).toEqual([
      expect.stringMatching(/^ecluse\.yaml:1: listen\.https: 443 is not an address; write it like/),
      'ecluse.yaml:1: listen.docker: port 70000 of ":70000" is above 65535',
      'ecluse.yaml:1: listen.htp: unknown key; did you mean http?',
      'ecluse.yaml:2: worker: unknown key; did you mean workers?',
      'ecluse.yaml:3: workers: 99 is not a number of workers; write "auto" or a number from 1 to 64',
      'ecluse.yaml:4: state: a PostgreSQL store is not implemented yet; write "sqlite", or leave the key out',
      expect.stringMatching(/^ecluse\.yaml:6: hosts\[0\]\.name: "A" is not a host name of ours/),
      'ecluse.yaml:8: hosts[0].port: unknown key; the keys here are name, engine',
      'ecluse.yaml:9: hosts[1].name: this key is required',
      expect.stringMatching(/^ecluse\.yaml:9: hosts\[1\]\.engine: "tcp:\/\/h" is not an engine/),
      expect.stringMatching(/^ecluse\.yaml:10: domain: "Exa mple" is not a domain/),
    ]);
  });

  test.each([
    ['[]', /^ecluse\.yaml:1: \[\] is not a mapping of keys$/],
    ['just words', /^ecluse\.yaml:1: "just words" is not a mapping of keys$/],
    ['hosts: []', /hosts: an empty list/],
    ['hosts: [{name: a, engine: managed}, {name: a, engine: managed}]', /two hosts have the name a/],
    ['hosts: [{name: a, engine: "unix:///s"}, {name: b, engine: "unix:///s"}]', /two hosts have the engine/],
    ['listen: { http: ":80", https: ":80" }', /http and https have the same address 0\.0\.0\.0:80/],
    ['listen: 80', /listen: 80 is not a mapping of keys/],
    ['listen: { admin: relative.sock }', /listen\.admin: "relative\.sock" is not the path of a unix socket/],
    ['data: ""', /data: an empty path/],
    ['a: 1\na: 2', /^ecluse\.yaml:2: not YAML: Map keys must be unique/],
    ['a: [1', /^ecluse\.yaml:1: not YAML/],
    ['a: *nowhere', /not YAML/],
    ['---\na: 1\n---\nb: 2\n', /not YAML/],
    [Buffer.from([0xff, 0xfe, 0x00]), /the file is not UTF-8 text/],
    [' '.repeat(1024 * 1024 + 1), /more than 1 MiB/],
  ])('refuses %j', async (text, said) => {
    const [first = ''] = await problems(text);
    expect(first).toMatch(said);
  });

  test('reads every key of the edge', async () => {
    const text = `trustedProxies: [10.0.0.0/8, 192.0.2.7, "2001:db8::/32"]
proxyProtocol: true
edge:
  limits: { lineSize: 8k, headSize: 64 KiB, fieldCount: 64, chunkExtensionSize: 0B, chunkExtensionsSize: 1KiB, trailersSize: 4096B,
    trailerCount: 8, requestBodySize: 1.5GiB, connections: 100, tlsHandshakes: 5, upstreamConnections: 6, upstreamIdleConnections: 0,
    progressSize: off }
  timeouts: { head: 5s, idle: 1m, tlsHandshake: 3s, connect: 250ms, firstByte: 1h, streamIdle: 24h, total: 90s, progress: 10s,
    upstreamIdle: 4s }
  tenant: { connections: 10, exchanges: 11, heldRequests: 0, heldSize: 2MiB, bufferedSize: 1MiB, upgradedStreams: 12 }
`;
    expect(await load(text)).toMatchObject({
      trustedProxies: ['10.0.0.0/8', '192.0.2.7', '2001:db8::/32'],
      proxyProtocol: true,
      edge: {
        lineBytesMax: 8192,
        headBytesMax: 65_536,
        fieldCountMax: 64,
        chunkExtensionBytesMax: 0,
        chunkExtensionBytesTotalMax: 1024,
        trailerBytesMax: 4096,
        trailerCountMax: 8,
        requestBodyBytesMax: 1_610_612_736,
        connectionsMax: 100,
        tlsHandshakesMax: 5,
        upstreamConnectionsMax: 6,
        upstreamIdleSocketsMax: 0,
        headTimeoutMs: 5_000,
        idleTimeoutMs: 60_000,
        tlsHandshakeTimeoutMs: 3_000,
        connectTimeoutMs: 250,
        firstByteTimeoutMs: 3_600_000,
        streamIdleTimeoutMs: 86_400_000,
        totalTimeoutMs: 90_000,
        progressWindowMs: 10_000,
        progressBytesMin: 0,
        upstreamIdleMs: 4_000,
        tenant: {
          connections: 10,
          exchanges: 11,
          heldRequests: 0,
          heldBytes: 2_097_152,
          bufferedBytes: 1_048_576,
          upgradedStreams: 12,
        },
      },
    });
  });

  test('one key of the edge leaves the defaults of the others', async () => {
    expect((await load('edge: { timeouts: { head: 5s } }')).edge).toEqual({ ...EDGE_LIMITS, headTimeoutMs: 5_000 });
    expect((await load('edge: { timeouts: { total: off } }')).edge).toEqual(EDGE_LIMITS);
    expect((await load('edge: {}')).edge).toEqual(EDGE_LIMITS);
  });

  test('says every problem of the edge with its line, its path and what was meant', async () => {
    const text = `trustedProxies:
  - 10.0.0.1/8
proxyProtocol: on
edge:
  limit: {}
  limits:
    headSize: 1MiB
    lineSize: 16 potatoes
    fieldCount: 12.5
    requestBodySize: 17
  timeouts:
    head: 30
    conect: 2s
    idle: off
    streamIdle: 25h
    total: 10ms
  tenant:
    exchanges: many
    bufferedBytes: 1MiB
`;
    expect(await problems(text)).toEqual([
      'ecluse.yaml:2: trustedProxies[0]: "10.0.0.1/8" is an address inside of a network; write "10.0.0.0/8" for the network, or "10.0.0.1" for the address alone',
      'ecluse.yaml:3: proxyProtocol: "on" is neither true nor false',
      'ecluse.yaml:5: edge.limit: unknown key; did you mean limits?',
      'ecluse.yaml:7: edge.limits.headSize: "1MiB" is not from 1KiB to 256KiB',
      'ecluse.yaml:8: edge.limits.lineSize: "16 potatoes" is not a size; write it like "512B", "16KiB" or "1GiB"',
      'ecluse.yaml:9: edge.limits.fieldCount: 12.5 is not a number from 16 to 1024',
      'ecluse.yaml:10: edge.limits.requestBodySize: 17 is not a size; write it like "512B", "16KiB" or "1GiB"',
      'ecluse.yaml:12: edge.timeouts.head: 30 is not a duration; write it like "500ms", "30s" or "10m"',
      'ecluse.yaml:13: edge.timeouts.conect: unknown key; did you mean connect?',
      'ecluse.yaml:14: edge.timeouts.idle: "off" is not a duration; write it like "500ms", "30s" or "10m"',
      'ecluse.yaml:15: edge.timeouts.streamIdle: "25h" is not from 1s to 24h',
      'ecluse.yaml:16: edge.timeouts.total: "10ms" is not from 1s to 24h',
      'ecluse.yaml:18: edge.tenant.exchanges: "many" is not a number from 1 to 1000000',
      'ecluse.yaml:19: edge.tenant.bufferedBytes: unknown key; did you mean bufferedSize?',
    ]);
  });

  test.each([
    ['edge: 3', /edge: 3 is not a mapping of keys/],
    ['edge: { limits: { lineSize: 64KiB } }', /edge\.limits\.lineSize: a line cannot be longer than headSize/],
    ['edge: { limits: { chunkExtensionSize: 4KiB, chunkExtensionsSize: 1KiB } }', /cannot be longer than chunkExtensionsSize/],
    ['edge: { limits: { headSize: 1e9KiB } }', /is not a size/],
    ['edge: { limits: { headSize: -1KiB } }', /is not a size/],
    [`edge: { limits: { headSize: ${'9'.repeat(400)}GiB } }`, /is not from 1KiB to 256KiB/],
    ['edge: { limits: { progressSize: 0B } }', /"0B" is not from 1B to 1MiB/],
    ['edge: { limits: { connections: 0 } }', /0 is not a number from 16 to 1000000/],
    ['trustedProxies: 10.0.0.0/8', /trustedProxies: "10\.0\.0\.0\/8" is not a list/],
    ['trustedProxies: [10]', /trustedProxies\[0\]: 10 is not an address or a network/],
    ['trustedProxies: [proxy.example]', /"proxy\.example" is neither an address nor a network/],
    ['listen: { https: "off" }\ntls: { redirect: true }', /tls\.redirect: there is no HTTPS to send to/],
    ['proxyProtocol: true', /proxyProtocol: no header would be read: trustedProxies is empty/],
  ])('refuses the edge of %j', async (text, said) => {
    const [first = ''] = await problems(text);
    expect(first).toMatch(said);
  });

  test('aliases that would unfold without end are refused', async () => {
    const bomb = Array.from(
      { length: 9 },
      (_, n) =>
        `k${String(n + 1)}: &a${String(n + 1)} [${Array(9)
          .fill(`*a${String(n)}`)
          .join(',')}]`,
    );
    expect((await problems(['k0: &a0 [x]', ...bomb].join('\n'))).join('\n')).toMatch(/not YAML|unknown key/);
  });

  test('refuses what cannot be read', async () => {
    const request = { dataDir: undefined, demo: false, overrides: NO_OVERRIDES };
    await expect(loadConfig({ ...request, file: join(folder, 'absent') })).rejects.toThrow(/absent: no such file$/);
    await expect(loadConfig({ ...request, file: folder })).rejects.toThrow(/it is a directory$/);
    await expect(loadConfig({ ...request, file: '/dev/zero' })).rejects.toThrow(/more than 1 MiB$/);
  });

  test('refuses a data directory whose admin socket Linux cannot open', async () => {
    const thrown: unknown = await load('', { dataDir: `/${'x'.repeat(100)}` }).catch((error: unknown) => error);
    expect(thrown).toMatchObject({
      code: 'ECLUSE_CONFIG_INVALID',
      message: expect.stringContaining('the path of the admin socket has 112 bytes, and Linux takes 107') as unknown,
      mend: expect.stringContaining('--data') as unknown,
    });
  });

  test('keys of the prototype are unknown keys', async () => {
    expect(await problems('__proto__: { data: /x }\nconstructor: 1\n')).toHaveLength(2);
  });
});

test('every key of the schema has a value to compare, and only what changed differs', async () => {
  const before = await load('', { dataDir: '/d' });
  const after = await load('edge: { timeouts: { idle: 7s } }\nlogLevel: debug\nlisten: { http: ":81" }\naccessLog: a.log\n', {
    dataDir: '/d',
  });
  expect([...before.keys.keys()]).toEqual([...after.keys.keys()]);
  const changed = [...after.keys].filter(([key, value]) => before.keys.get(key) !== value);
  expect(Object.fromEntries(changed)).toEqual({
    'listen.http': '{"host":"0.0.0.0","port":81}',
    logLevel: '"debug"',
    accessLog: JSON.stringify(join(folder, 'a.log')),
    'edge.timeouts.idle': '7000',
  });
  // What a flag decides is not another value because the file has one, too.
  const flagged = await load('data: /elsewhere\nworkers: auto\n', { dataDir: '/d' });
  expect([...flagged.keys].filter(([key, value]) => before.keys.get(key) !== value)).toEqual([]);
});

test('docs/config.schema.json is that of the code (bin/ecluse config-schema >docs/config.schema.json; npx oxfmt docs)', async () => {
  const kept: unknown = JSON.parse(await readFile(join(import.meta.dirname, '../../docs/config.schema.json'), 'utf8'));
  expect(kept).toEqual(JSON.parse(JSON.stringify(configJsonSchema())));
});

test('every key of the schema is described', () => {
  const missing: string[] = [];
  const walk = (node: unknown, path: string): void => {
    if (typeof node !== 'object' || node === null) return;
    const properties: unknown = Reflect.get(node, 'properties');
    if (typeof properties === 'object' && properties !== null) {
      for (const [key, value] of Object.entries(properties)) {
        if (typeof value === 'object' && value !== null && !('description' in value)) missing.push(`${path}.${key}`);
        walk(value, `${path}.${key}`);
      }
    }
    walk(Reflect.get(node, 'items'), `${path}[]`);
  };
  walk(configJsonSchema(), '');
  expect(missing).toEqual([]);
});

test.each([
  ['htp', 'http'],
  ['metrcis', 'metrics'],
  ['Workers', 'workers'],
  ['cont', 'containers'],
  ['zzz', undefined],
  ['', undefined],
])('nearestWord() of %s', (word, meant) => {
  expect(nearestWord(word, ['http', 'https', 'metrics', 'workers', 'containers'])).toBe(meant);
});
