/** The real `ecluse` command against a real admin socket: what it prints, and with which exit code it ends. */
import { execFile, spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CONTAINER, HUGE, meterOnce, startAdmin } from '../../support/admin.ts';
import type { TestAdmin } from '../../support/admin.ts';

const ECLUSE = resolve(import.meta.dirname, '../../../bin/ecluse');

interface Ended {
  readonly code: number | string | null;
  readonly out: string;
  readonly err: string;
}

async function run(program: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Ended> {
  return await new Promise((done) => {
    const clean = { ...process.env, ECLUSE_DATA: undefined, ECLUSE_DEBUG: undefined, ...env };
    execFile(program, [...args], { env: clean, timeout: 30_000 }, (error, out, err) => {
      done({ code: error === null ? 0 : (error.code ?? null), out, err });
    });
  });
}

let admin: TestAdmin;

beforeAll(async () => {
  admin = await startAdmin();
});
afterAll(async () => {
  await admin[Symbol.asyncDispose]();
});

async function ecluse(line: string, env: NodeJS.ProcessEnv = {}): Promise<Ended> {
  return await run(ECLUSE, line.split(' '), env);
}

/** A command that talks to the daemon of this test. */
async function remote(line: string): Promise<Ended> {
  return await ecluse(`${line} --admin ${admin.socketPath}`);
}

describe('without a daemon', () => {
  test.each([
    ['frobnicate', 2, 'ecluse: there is no command "frobnicate"; see: ecluse help\n'],
    ['ps --tennant x', 2, 'ecluse: ps has no flag --tennant; did you mean --tenant?\n'],
    ['logs web', 1, 'ecluse: logs is not implemented yet in this version; see: ecluse help\n'],
    [
      'ps --data /nowhere/at/all',
      1,
      'ecluse: no ecluse daemon answers at /nowhere/at/all/admin.sock; start it with: ecluse up (or name its data directory with --data)\n',
    ],
  ])('ecluse %s', async (line, code, err) => {
    expect(await ecluse(line)).toEqual({ code, out: '', err });
  });

  test('ECLUSE_DATA says where the daemon is, and --data wins over it', async () => {
    expect((await ecluse('status', { ECLUSE_DATA: '/env/dir' })).err).toContain('/env/dir/admin.sock');
    expect((await ecluse('status --data /flag/dir', { ECLUSE_DATA: '/env/dir' })).err).toContain('/flag/dir/admin.sock');
  });

  test('every problem of a configuration is one line, and nothing starts', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'ecluse-cli-'));
    const file = join(folder, 'e.yaml');
    await writeFile(file, 'worker: 3\nlisten:\n  htp: ":80"\n');
    expect(await ecluse(`up --config ${file} --data ${folder}`)).toEqual({
      code: 1,
      out: '',
      err: `ecluse: ${file}:1: worker: unknown key; did you mean workers?\necluse: ${file}:3: listen.htp: unknown key; did you mean http?\n`,
    });
    await rm(folder, { recursive: true });
  });

  test('version and help', async () => {
    expect(await ecluse('--version')).toEqual({ code: 0, out: 'ecluse 0.1.0\n', err: '' });
    expect(JSON.parse((await ecluse('version --json')).out)).toEqual({ version: '0.1.0' });
    expect((await ecluse('help migrate')).out).toContain('Usage: ecluse migrate CONTAINER [flags]');
  });

  test('a reader that leaves is no error', async () => {
    const { code, out, err } = await run('sh', ['-c', `{ "${ECLUSE}" config-schema; echo "exit $?" >&2; } | true`]);
    expect({ code, out, err }).toEqual({ code: 0, out: '', err: 'exit 0\n' });
  });
});

describe('with a daemon', () => {
  test('tenant add, ls, set, env and rm', async () => {
    const added = await remote('tenant add acme --memory 4g --containers 10 --domain shop.example.com');
    expect(added).toMatchObject({ code: 0, err: '' });
    expect(added.out).toContain('acme added: up to 10 containers, 4.00 GiB of memory');
    expect(await remote('tenant add acme')).toEqual({ code: 1, out: '', err: 'ecluse: tenant acme exists already\n' });
    expect((await remote('tenant ls')).out).toMatch(
      /^NAME +STATE +CONTAINERS +MEMORY .*\nacme +active +0\/10 +4\.00 GiB +100 +shop\.example\.com +Less than a second ago\n$|^NAME.*\nacme +active +0\/10 /,
    );
    expect(JSON.parse((await remote('tenant set acme --state suspended --no-domains --json')).out)).toMatchObject({
      state: 'suspended',
      domains: [],
    });
    expect(JSON.parse((await remote('tenant ls --json')).out)).toMatchObject([
      { name: 'acme', quota: { memoryBytesMax: 4 * 1024 ** 3 } },
    ]);
    expect((await remote('tenant env acme')).out).toBe(
      String.raw`export DOCKER_HOST='tcp://[::1]:2376'
export DOCKER_TLS_VERIFY=1
export DOCKER_CERT_PATH='/tmp/it'\''s acme'
`,
    );
    const script = `eval "$("${ECLUSE}" tenant env acme --admin ${admin.socketPath})"; printf '%s|' "$DOCKER_HOST" "$DOCKER_TLS_VERIFY" "$DOCKER_CERT_PATH"`;
    expect((await run('sh', ['-c', script])).out).toBe("tcp://[::1]:2376|1|/tmp/it's acme|");
    expect(JSON.parse((await remote('tenant env acme --json')).out)).toMatchObject({ DOCKER_TLS_VERIFY: '1' });
    expect((await remote('tenant rm acme')).out).toBe('acme removed\n');
    expect(await remote('tenant rm acme')).toEqual({
      code: 1,
      out: '',
      err: 'ecluse: tenant acme does not exist; see: ecluse tenant ls\n',
    });
  });

  test('status, host ls and ps', async () => {
    expect((await remote('status')).out).toMatch(/docker +off\n[\s\S]*config version +7\n/);
    expect((await remote('host ls')).out).toMatch(
      /^NAME +STATE +ENGINE +VERSION +CONTAINERS +CPUS +MEMORY\na +up +managed +20\.10\.24 +1 +2 +1\.00 GiB\nb +down, draining +managed +- +0 +- +-\n$/,
    );
    const ps = (await remote('ps')).out;
    expect(ps).toMatch(/^CONTAINER ID +TENANT +NAME +IMAGE +HOST +CREATED +STATUS +ROUTES\nc0ffeec0ffee +acme +web +shop:1 +a /);
    expect(ps).toContain('https://web-acme.localhost:8443');
    expect((await remote('ps -a')).out).toContain('Exited (0)');
    expect(JSON.parse((await remote('ps --json')).out)).toEqual([CONTAINER]);
    expect((await remote('ps --tenant nobody')).out.trim().split('\n')).toHaveLength(1);
  });

  test('usage as a table, as CSV and as JSON, to the last digit', async () => {
    expect((await remote('usage')).out).toMatch(
      /^TENANT +NAME +CONTAINER ID +CPU S .*\nacme +web +c0ffeec0ffee +1\.500 +9544\.372 +3 +0\.000 +1\.000 /,
    );
    const csv = (await remote('usage --format csv --since 2026-01-01T00:00:00Z --until 2026-01-02T00:00:00Z')).out;
    expect(csv).toBe(
      `key,tenant,name,from,to,cpu_ns,memory_byte_ms,requests,ingress_bytes,egress_bytes,held_ms,snapshot_byte_ms,disk_byte_ms,stream_ms\r\n${CONTAINER.id},acme,web,2026-01-01T00:00:00.000Z,2026-01-02T00:00:00.000Z,1500000000,${HUGE.toString()},3,0,1048576,0,0,0,0\r\n`,
    );
    expect((await remote('usage --json')).out).toContain(`"memoryByteMs": ${HUGE.toString()},`);
    expect(await remote('usage --since 1h --until 2h')).toEqual({
      code: 2,
      out: '',
      err: 'ecluse: --since is later than --until\n',
    });
  });

  test('prices: faults with their lines, applied once, shown and listed', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'ecluse-prices-'));
    const file = join(folder, 'prices.yaml');
    await writeFile(file, 'currency: EUR\nfrom: 2999-01-01T00:30:00Z\nprices:\n  vcpuHours: 0.1\n  egressGb: free\n');
    expect(await remote(`prices check ${file}`)).toEqual({
      code: 1,
      out: '',
      err: [
        `ecluse: ${file}:2: from: prices change on a full hour of UTC, because use is known by the hour`,
        `ecluse: ${file}:4: prices.vcpuHours: unknown key; did you mean vcpuHour?`,
        `ecluse: ${file}:5: prices.egressGb: write an amount of at least 0 with up to six decimals, like 0.0125`,
        '',
      ].join('\n'),
    });
    await writeFile(file, 'currency: EUR\nfrom: 1970-01-01T00:00:00Z\nprices: { vcpuHour: 0.02, egressGb: "0.1" }\n');
    expect((await remote(`prices check ${file}`)).out).toBe('price book 1 would be in force from 1970-01-01T00:00:00.000Z on\n');
    expect((await remote('prices history')).out).toMatch(/^VERSION[^\n]*\n$/);
    expect((await remote(`prices apply ${file} --note first`)).out).toBe(
      'price book 1 is in force from 1970-01-01T00:00:00.000Z on\n',
    );
    expect((await remote(`prices apply ${file}`)).err).toMatch(/^ecluse: from: 1970-01-01T00:00:00Z is over, and prices that/);
    expect((await remote('prices history')).out).toMatch(/\n1 +1970-01-01T00:00:00.000Z +EUR +\S+ +first\n$/);
    expect(JSON.parse((await remote('prices show')).out)).toMatchObject({ prices: { vcpuHour: '0.02', egressGb: '0.1' } });
    await rm(folder, { recursive: true });
  });

  test('invoice: for people, and in every format with the same total', async () => {
    await meterOnce(admin.sql);
    const invoice = async (format: string): Promise<string> =>
      (await remote(`invoice --tenant acme --month 1970-01 --format ${format}`)).out;
    expect(await invoice('text')).toMatch(
      /^invoice acme-1970-01 of Écluse to acme: 1970-01-01 to 1970-01-31\nWHAT[^\n]*\nProcessor time of web +0\.500000 +vCPU-Hours +0\.020000 +0\.010000\nBytes to end users of web +3\.000000 +GB +0\.100000 +0\.300000\ntotal +EUR +0\.310000\n$/,
    );
    expect(JSON.parse(await invoice('json'))).toMatchObject({ invoice: 'acme-1970-01', totalMicros: 310_000 });
    expect(await invoice('csv')).toContain('0.500000000000000000,vCPU-Hours,0.020000,0.010000,EUR\r\n');
    const focus = await invoice('focus');
    expect(focus.split('\r\n')).toHaveLength(4);
    expect((await remote('usage --month 1970-01 --tenant acme --format focus')).out).toBe(focus);
    const events = (await invoice('cloudevents')).trimEnd().split('\n');
    expect(events.map((line): unknown => JSON.parse(line))).toMatchObject([
      { specversion: '1.0' },
      { type: 'ecluse.invoice.draft-line' },
    ]);
    expect(events[1]).toMatch(/"id":"acme-1970-01-draft-[0-9a-f]{32}"/);
    expect((await remote('usage --format cloudevents')).out).toContain('"type":"ecluse.usage"');
    expect((await remote('invoice --tenant nobody')).err).toBe('ecluse: tenant nobody does not exist; see: ecluse tenant ls\n');
    const now = await remote('invoice --tenant acme');
    expect(now.out).toContain('note: the month is not over: this is what there is so far');
    const issued = await remote('invoice issue --month 1970-01 --tenant acme');
    expect([issued.err, issued.out]).toEqual([
      '',
      expect.stringMatching(/^NUMBER +TENANT +.*\n1 +acme +1970-01 +\S+ +EUR +0\.310000\n$/),
    ]);
    expect((await remote('invoice ls')).out).toBe(issued.out);
    expect(await invoice('text')).toMatch(/, number 1, issued \d{4}-\d\d-\d\d\n/);
    expect(await invoice('cloudevents')).toContain('"id":"acme-1970-01-2","source":"ecluse","type":"ecluse.invoice.line"');
    const again = await remote('invoice issue --month 1970-01 --tenant acme');
    expect([again.out, again.err]).toEqual([
      '',
      expect.stringMatching(/^ecluse: acme: not issued: it was issued as number 1 on /),
    ]);
    expect((await remote('invoice issue --month 2999-01')).err).toMatch(/^ecluse: 2999-01 is not over yet/);
  });

  test('ledger: verified, corrected, exported, and proved without a daemon', async () => {
    expect((await remote('ledger verify')).out).toMatch(/\nacme +fits +1 +1 +0 +0 +0 +0\n$/);
    const correct = `ledger correct acme/web --at 1970-01-01T00:10:00Z --reason twice --cpu-seconds=-900`;
    expect((await remote(correct)).out).toBe(`the ledger of acme has a correction of ${CONTAINER.id.slice(0, 12)}\n`);
    // It was issued, and stands.
    expect((await remote('invoice --tenant acme --month 1970-01')).out).toMatch(
      /total +EUR +0\.310000\nnote: since it was issued the ledger says -0\.005000 EUR: no invoice will have it, because the month is longer ago than 3 months\n$/,
    );
    const key = (await remote('ledger key')).out.split(' ')[0] ?? '';
    const exported = (await remote('ledger export --tenant acme')).out;
    const folder = await mkdtemp(join(tmpdir(), 'ecluse-export-'));
    const file = join(folder, 'acme.jsonl');
    await writeFile(file, exported);
    const verifier = resolve(import.meta.dirname, '../../../scripts/verify-ledger.mjs');
    const proved = await run(process.execPath, [verifier, '--key', key, file]);
    expect(proved).toMatchObject({ code: 0, err: '' });
    expect(proved.out).toMatch(/^it fits: 2 rows of tenant acme up to number 2, 1 heads/);
    await admin.sql.write([{ sql: 'UPDATE ledger SET egress_bytes = 1 WHERE number = 1', values: [] }]);
    const misfit = await remote('ledger verify --tenant acme');
    expect(misfit.code).toBe(1);
    expect(misfit.err).toMatch(/^ecluse: the ledger of acme does not fit: acme, row 1: its hash is not that of its fields/);
    await rm(folder, { recursive: true });
  });

  test('top --once makes rates', async () => {
    // A quarter of a processor at 0.02 an hour; memory has no price.
    expect((await remote('top --once')).out).toMatch(
      /^TENANT +NAME +HOST +CPU % +MEMORY +EUR\/H\nacme +web +a +25\.0 +5\.00 MiB +0\.005000\n$/,
    );
    expect(JSON.parse((await remote('top --json')).out)).toMatchObject([{ name: 'web', cpuPercent: 25 }]);
  });

  test('migrate reports, and says why it failed', async () => {
    expect(await remote('migrate acme/web --to b')).toEqual({
      code: 0,
      out: 'acme/web moved from a to b in 2.34 s\nlongest pause: 312 ms\nrequests held for at most: 325 ms\nmemory image: 3.00 MiB\nrequests and streams cut: 0\n',
      err: '',
    });
    expect(JSON.parse((await remote('migrate acme/web --to b --json')).out)).toMatchObject({ pausedMs: 312 });
    expect(await remote('migrate acme/web --to broken')).toEqual({
      code: 1,
      out: '',
      err: 'ecluse: the target died; try again\n',
    });
  });

  test('events shows the last ones, and follows', async () => {
    await remote('tenant add one');
    await remote('tenant add two');
    expect((await remote('events --last 1')).out).toMatch(/^\S+Z +\d+ tenant\.added two\n$/);
    const lines: string[] = [];
    const following = spawn(ECLUSE, ['events', '--follow', '--json', '--last', '1', '--admin', admin.socketPath]);
    await new Promise<void>((done) => {
      following.stdout.on('data', (chunk: Buffer) => {
        lines.push(
          ...chunk
            .toString()
            .split('\n')
            .filter((line) => line !== ''),
        );
        if (lines.length === 1) void remote('tenant rm two');
        else done();
      });
    });
    following.kill('SIGTERM');
    expect(lines.map((line) => JSON.parse(line) as unknown)).toMatchObject([
      { kind: 'tenant.added', key: 'two' },
      { kind: 'tenant.removed', key: 'two' },
    ]);
  });

  test('an unexpected error of the daemon is one line', async () => {
    await using broken = await startAdmin({
      status: async () => {
        throw new TypeError('x is not a function');
      },
    });
    expect(await ecluse(`status --admin ${broken.socketPath}`)).toEqual({
      code: 1,
      out: '',
      err: 'ecluse: unexpected error: x is not a function; see the log of the daemon\n',
    });
  });
});
