/** Logs, attach and stats: at every API version, in every framing, over TLS, across a move. */
import { spawn } from 'node:child_process';
import { request } from 'node:https';
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { text as textOf } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { busyboxTar, callApi, credentialsOf } from '../../support/docker-api.ts';
import type { Credentials } from '../../support/docker-api.ts';
import { addTenant, startNode } from '../../support/node.ts';
import type { TestNode } from '../../support/node.ts';
import { connectWebSocket } from '../../support/websocket.ts';

const BUSYBOX = '/bin/busybox';
const RAW = 'application/vnd.docker.raw-stream';
const MULTIPLEXED = 'application/vnd.docker.multiplexed-stream';

let node: TestNode;
let acme: Credentials;

beforeAll(async () => {
  node = await startNode({ hosts: ['a', 'b'] });
  await addTenant(node, 'acme');
  acme = await credentialsOf(node, 'acme');
  await node.docker('acme', ['import', '-', 'bb'], await busyboxTar(node.dataDir));
});

afterAll(async () => {
  await node[Symbol.asyncDispose]();
});

async function out(...args: readonly string[]): Promise<string> {
  const answer = await node.docker('acme', args);
  expect(answer, args.join(' ')).toMatchObject({ exitCode: 0 });
  return answer.stdout;
}

async function start(name: string, script: string, ...flags: readonly string[]): Promise<void> {
  await out('run', '-d', '--name', name, '-m', '64m', ...flags, 'bb', BUSYBOX, 'sh', '-c', script);
}

async function upgrade(path: string, body?: string): Promise<{ readonly answer: IncomingMessage; readonly socket: Socket }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ readonly answer: IncomingMessage; readonly socket: Socket }>();
  const headers = { host: 'localhost', connection: 'Upgrade', upgrade: 'tcp', 'content-type': 'application/json' };
  const options = { ...acme, host: '127.0.0.1', port: node.ports.docker, method: 'POST', path, agent: false, headers };
  const outgoing = request(options);
  outgoing.once('upgrade', (answer, socket, head) => {
    if (head.length > 0) socket.unshift(head);
    resolve({ answer, socket });
  });
  outgoing.once('response', (answer) => {
    reject(new Error(`status ${String(answer.statusCode)}`));
  });
  outgoing.once('error', reject);
  outgoing.end(body);
  return await promise;
}

describe('logs', () => {
  test('have times, limits and both streams', async () => {
    await start('job', 'echo one; sleep 0.2; echo two >&2; sleep 0.2; echo three'); // Two pipes have no order of their own.
    await out('wait', 'job');
    const answer = await node.docker('acme', ['logs', 'job']);
    expect(answer).toEqual({ exitCode: 0, stdout: 'one\nthree\n', stderr: 'two\n' });
    expect(await node.docker('acme', ['logs', '-f', 'job'])).toEqual(answer);
    const stamped = await out('logs', '-t', 'job');
    expect(stamped).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z one\n.*Z three\n$/);
    expect(await out('logs', '-f', '-t', 'job')).toBe(stamped);
    expect(await out('logs', '--tail', '1', 'job')).toBe('three\n');
    expect(await out('logs', '--since', stamped.split('\n')[1]?.split(' ')[0] ?? '', 'job')).toBe('three\n');
    expect(await out('logs', '--until', '2020-01-01T00:00:00Z', 'job')).toBe('');
    const bad = await callApi(node, acme, { path: '/v1.41/containers/job/logs?stdout=1&since=x' });
    expect(bad.status).toBe(400);
    for (const [version, type] of [
      ['1.24', undefined],
      ['1.41', undefined],
      ['1.42', MULTIPLEXED],
    ] as const) {
      const { headers } = await callApi(node, acme, { path: `/v${version}/containers/job/logs?stdout=1` });
      expect(headers['content-type']).toBe(type);
    }
  });

  test('of a TTY are as they were written', async () => {
    await start('tty', 'echo one; echo two', '-t');
    await out('wait', 'tty');
    for (const flags of [[], ['-f']]) expect(await out('logs', ...flags, 'tty')).toBe('one\r\ntwo\r\n');
    const { headers } = await callApi(node, acme, { path: '/v1.44/containers/tty/logs?stdout=1' });
    expect(headers['content-type']).toBe(RAW);
  });

  test('of many lines come whole, followed or not', async () => {
    await start('many', 'seq 200000');
    await out('wait', 'many');
    const expected = `${Array.from({ length: 200_000 }, (_none, at) => String(at + 1)).join('\n')}\n`;
    for (const flags of [[], ['-f'], ['-f', '--tail', 'all']])
      expect((await out('logs', ...flags, 'many')) === expected).toBe(true);
  });

  test('and stats go on after a move, with every line once', async () => {
    await start('moving', 'i=0; while [ $i -lt 60 ]; do echo $i; i=$((i+1)); sleep 0.1; done');
    const follower = spawn('docker', ['logs', '-f', 'moving'], {
      env: node.dockerEnv('acme'),
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const followed = textOf(follower.stdout);
    const stats = callApi(node, acme, { path: '/v1.41/containers/moving/stats' });
    await delay(1500);
    const host = (await node.ecluse('ps', '--json')).stdout.includes('"host":"a"') ? 'b' : 'a';
    const moved = await node.ecluse('migrate', 'moving', '--to', host);
    expect(moved, moved.stderr).toMatchObject({ exitCode: 0 });
    expect(await followed).toBe(Array.from({ length: 60 }, (_none, at) => `${String(at)}\n`).join(''));
    await out('rm', '-f', 'moving');
    expect((await stats).text.trim().split('\n').length).toBeGreaterThan(3);
  });
});

describe('attach', () => {
  test.each([
    ['1.41', '', RAW],
    ['1.42', '', MULTIPLEXED],
    ['1.42', '-t', RAW],
  ])('at %s %s is a %s, and ends each direction for itself', async (version, tty, type) => {
    const name = `cat${version}${tty}`;
    const flags = tty === '' ? ['-i'] : ['-i', tty];
    await out(
      'create',
      ...flags,
      '--name',
      name,
      '-m',
      '64m',
      'bb',
      BUSYBOX,
      'sh',
      '-c',
      tty === '' ? 'cat; echo done' : 'head -n1; echo done',
    );
    const { answer, socket } = await upgrade(`/v${version}/containers/${name}/attach?stream=1&stdin=1&stdout=1&stderr=1`);
    expect([answer.statusCode, answer.headers['content-type']]).toEqual([101, type]);
    await out('start', name);
    // With a TTY the end of the input ends the output too, as in Docker.
    if (tty === '') socket.end('hello\n');
    else socket.write('hello\n');
    const text = await textOf(socket);
    expect(text).toContain('hello');
    expect(text).toContain('done');
  });

  test('without an upgrade gives output only', async () => {
    await out('create', '--name', 'plain', '-m', '64m', 'bb', BUSYBOX, 'sh', '-c', 'echo out; echo err >&2');
    const attached = callApi(node, acme, { method: 'POST', path: '/v1.42/containers/plain/attach?stream=1&stdout=1' });
    await delay(300);
    await out('start', 'plain');
    const { text, headers } = await attached;
    expect([text, headers['content-type']]).toEqual(['\u0001\0\0\0\0\0\0\u0004out\n', RAW]);
  });

  test.each([
    ['1.27', 'text'],
    ['1.41', 'binary'],
  ])('by WebSocket at %s sends %s frames of both streams, and closes in order', async (version, kind) => {
    const name = `ws${version}`;
    await out(
      'create',
      '-i',
      '--name',
      name,
      '-m',
      '64m',
      'bb',
      BUSYBOX,
      'sh',
      '-c',
      'read line; echo "got $line"; echo err >&2',
    );
    await using client = await connectWebSocket(
      node,
      acme,
      `/v${version}/containers/${name}/attach/ws?stream=1&stdin=1&stdout=1&stderr=1`,
    );
    await out('start', name);
    client.send('hello\n');
    const { messages, code } = await client.untilClosed();
    expect(
      messages
        .map((message) => message.text)
        .join('')
        .split('\n')
        .toSorted()
        .join(' ')
        .trim(),
    ).toBe('err got hello');
    expect(new Set(messages.map((message) => message.kind))).toEqual(new Set([kind]));
    expect(code).toBe(1000);
  });

  test('by WebSocket refuses what is none', async () => {
    const answer = await callApi(node, acme, { path: '/v1.41/containers/plain/attach/ws' });
    expect(answer.status).toBe(400);
    expect(await callApi(node, acme, { path: '/v1.41/containers/none/attach/ws', headers: wsHeaders() })).toMatchObject({
      status: 404,
    });
  });
});

function wsHeaders(): Readonly<Record<string, string>> {
  return {
    connection: 'Upgrade',
    upgrade: 'websocket',
    'sec-websocket-version': '13',
    'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
  };
}

describe('many and slow', () => {
  test('streams of a reader who does not read cost little memory', async () => {
    await start('noisy', 'yes "a line of a log, over and over" | head -c 40000000');
    await out('wait', 'noisy');
    const before = await residentBytes();
    const sockets: Socket[] = [];
    for (let count = 0; count < 50; count += 1) {
      const outgoing = request({
        ...acme,
        host: '127.0.0.1',
        port: node.ports.docker,
        agent: false,
        path: '/v1.41/containers/noisy/logs?stdout=1&follow=1',
      });
      outgoing.on('error', () => undefined);
      outgoing.once('response', (answer) => {
        sockets.push(answer.socket);
        answer.pause();
      });
      outgoing.end();
    }
    await delay(4000);
    expect(sockets).toHaveLength(50);
    const grownBytes = (await residentBytes()) - before;
    for (const socket of sockets) socket.destroy();
    expect(grownBytes).toBeLessThan(150 * 1024 * 1024);
    expect(await out('logs', '--tail', '1', 'noisy')).toMatch(/^a line|^[a-z, ]+$/);
  });
});

async function residentBytes(): Promise<number> {
  const { readFile } = await import('node:fs/promises');
  const status = await readFile(`/proc/${String(node.process.pid)}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024;
}
