/** `docker exec`, by the real client and by hand. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import * as z from 'zod';
import { busyboxTar, callApi, credentialsOf } from '../../support/docker-api.ts';
import type { ApiAnswer, ApiCall, Credentials } from '../../support/docker-api.ts';
import { addTenant, startNode } from '../../support/node.ts';
import type { TestNode } from '../../support/node.ts';

const BUSYBOX = '/bin/busybox';
const idSchema = z.object({ Id: z.string().regex(/^[0-9a-f]{64}$/) });

let node: TestNode;
let acme: Credentials;
let globex: Credentials;
let box: string;

beforeAll(async () => {
  node = await startNode({ hosts: ['a'] });
  for (const tenant of ['acme', 'globex']) await addTenant(node, tenant);
  acme = await credentialsOf(node, 'acme');
  globex = await credentialsOf(node, 'globex');
  await node.docker('acme', ['import', '-', 'bb'], await busyboxTar(node.dataDir));
  box = (await node.docker('acme', ['run', '-d', '--name', 'box', 'bb', BUSYBOX, 'sleep', '1000'])).stdout.trim();
});

afterAll(async () => {
  await node[Symbol.asyncDispose]();
});

async function api(call: ApiCall): Promise<ApiAnswer> {
  return await callApi(node, acme, call);
}

async function create(body: Readonly<Record<string, unknown>>): Promise<string> {
  const answer = await api({ method: 'POST', path: '/v1.41/containers/box/exec', body });
  expect(answer.status, answer.text).toBe(201);
  return idSchema.parse(JSON.parse(answer.text)).Id;
}

function messageOf(answer: ApiAnswer): string {
  return z.strictObject({ message: z.string() }).parse(JSON.parse(answer.text)).message;
}

async function inspect(id: string): Promise<unknown> {
  const parsed: unknown = JSON.parse((await api({ path: `/v1.41/exec/${id}/json` })).text);
  return parsed;
}

describe('docker exec', () => {
  test('a ^C that is typed in its terminal ends its program', async () => {
    const command = `docker exec -it box ${BUSYBOX} sh -c "trap 'echo interrupted; exit 6' INT; echo ready; while :; do sleep 1; done"`;
    const client = spawn('script', ['-qec', command, '/dev/null'], {
      env: node.dockerEnv('acme'),
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    let shown = '';
    const ended = once(client, 'exit');
    for await (const chunk of client.stdout.setEncoding('utf8')) {
      if (!shown.includes('ready') && `${shown}${String(chunk)}`.includes('ready')) client.stdin.write('\u0003');
      shown += String(chunk);
    }
    expect(await ended).toEqual([6, null]);
    expect(shown).toMatch(/interrupted/);
  });

  test('passes input, output, environment, directory and exit code', async () => {
    const script = 'cat; echo "$A $(pwd)"; echo bad >&2; exit 5';
    const answer = await node.docker(
      'acme',
      ['exec', '-i', '-e', 'A=b', '-w', '/bin', 'box', BUSYBOX, 'sh', '-c', script],
      'in\n',
    );
    expect(answer).toEqual({ exitCode: 5, stdout: 'in\nb /bin\n', stderr: 'bad\n' });
  });

  test('runs detached, and says when it ends', async () => {
    const id = await create({ Cmd: [BUSYBOX, 'sh', '-c', 'sleep 1; exit 3'] });
    expect(await inspect(id)).toMatchObject({ ID: id, ContainerID: box, Running: false, ExitCode: null, Pid: 0 });
    const since = String(Date.now() / 1000);
    const started = await api({ method: 'POST', path: `/v1.41/exec/${id}/start`, body: { Detach: true } });
    expect([started.status, started.text]).toEqual([200, '']);
    expect(await inspect(id)).toMatchObject({ Running: true, Pid: 1 });
    const shown = z.object({ ExecIDs: z.array(z.string()) });
    expect(shown.parse(JSON.parse((await api({ path: '/v1.41/containers/box/json' })).text)).ExecIDs).toEqual([id]);
    await delay(1800);
    expect(await inspect(id)).toMatchObject({ Running: false, ExitCode: 3 });
    const events = await node.docker('acme', ['events', '--since', since, '--until', String(Date.now() / 1000)]);
    expect(events.stdout).toContain(`container exec_start: ${BUSYBOX} sh -c sleep 1; exit 3 ${box}`);
    expect(events.stdout).toMatch(new RegExp(`container exec_die ${box} \\(execID=${id}, exitCode=3,`));
    const again = await api({ method: 'POST', path: `/v1.41/exec/${id}/start`, body: {} });
    expect([again.status, messageOf(again)]).toEqual([409, `Error: Exec command ${id} has already run`]);
  });

  test('is one tenant’s only', async () => {
    const id = await create({ Cmd: ['true'] });
    for (const [method, path] of [
      ['GET', 'json'],
      ['POST', 'start'],
      ['POST', 'resize?h=1&w=1'],
    ] as const) {
      const body = path === 'start' ? {} : undefined;
      const answer = await callApi(node, globex, { method, path: `/v1.41/exec/${id}/${path}`, body });
      expect([answer.status, messageOf(answer)]).toEqual([404, `No such exec instance: ${id}`]);
    }
  });

  test.each([
    [{}, 400, 'No exec command specified'],
    [{ Cmd: [] }, 400, 'No exec command specified'],
    [{ Cmd: ['id'], privileged: true }, 403, 'ecluse: Privileged is not supported: containers run unprivileged in a sandbox'],
    [{ Cmd: ['id'], cmd: ['ls'] }, 403, 'ecluse: cmd is given twice in different spellings'],
    ['', 400, 'got EOF while reading request body'],
  ])('refuses %j', async (body, status, message) => {
    const headers = { 'content-type': 'application/json' };
    const answer = await api({ method: 'POST', path: '/v1.41/containers/box/exec', body, headers });
    expect([answer.status, messageOf(answer)]).toEqual([status, message]);
  });

  test('refuses bodies that are no JSON, and sizes that are none', async () => {
    const text = await api({
      method: 'POST',
      path: '/v1.41/containers/box/exec',
      body: 'Cmd=id',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
    });
    expect([text.status, messageOf(text)]).toEqual([
      400,
      "Content-Type specified (application/x-www-form-urlencoded) must be 'application/json'",
    ]);
    const id = await create({ Cmd: ['true'] });
    expect((await api({ method: 'POST', path: `/v1.41/exec/${id}/resize?h=x&w=1` })).status).toBe(400);
  });

  test('is limited in number, and a restart frees what was never started', async () => {
    const made = await Promise.all(
      Array.from({ length: 5 }, async () => {
        let last: ApiAnswer | undefined;
        for (let count = 0; count < 210; count += 1) {
          last = await api({ method: 'POST', path: '/v1.41/containers/box/exec', body: { Cmd: ['true'] } });
        }
        return last;
      }),
    );
    const refused = made.filter((answer) => answer?.status === 429);
    expect(refused.length).toBeGreaterThan(0);
    expect(refused[0]?.text).toContain('exec sessions that have not ended');
    await node.docker('acme', ['restart', '-t', '0', 'box']);
  });
});
