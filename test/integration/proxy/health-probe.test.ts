/** One health check against real sockets: what passes, what fails and why, and that it ends. */
import type { Socket } from 'node:net';
import { describe, expect, test } from 'vitest';
import { probe } from '#proxy/health/probe.ts';
import type { ProbeTarget } from '#proxy/health/probe.ts';
import { eventually } from '../../support/edge.ts';
import { startDeaf } from '../../support/deaf-endpoint.ts';
import { startRawUpstream } from '../../support/upstream.ts';

const TIMEOUT_MS = 400;
/** For a busy machine. */
const LATE_MS = 600;

function targetOf(port: number, over: Partial<ProbeTarget> = {}): ProbeTarget {
  return { address: '127.0.0.1', port, path: '/healthz?deep=1', timeoutMs: TIMEOUT_MS, sendProxy: undefined, ...over };
}

/** What a check of an endpoint says that answers every request so. */
async function outcomeOf(answer: (socket: Socket) => void): Promise<string> {
  let open = 0;
  await using upstream = await startRawUpstream((socket) => {
    open += 1;
    socket.on('close', () => (open -= 1));
    socket.on('end', () => socket.end());
    socket.once('data', () => {
      answer(socket);
    });
  });
  const startMs = performance.now();
  const outcome = await probe(targetOf(upstream.port), new AbortController().signal);
  expect(performance.now() - startMs).toBeLessThan(TIMEOUT_MS + LATE_MS);
  await eventually(() => (open === 0 ? true : undefined));
  return outcome.kind === 'passed' ? 'passed' : outcome.reason;
}

function text(answer: string): (socket: Socket) => void {
  return (socket) => socket.write(answer, 'latin1');
}

describe('probe()', () => {
  test.each([
    ['HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok', 'passed'],
    ['HTTP/1.1 204 No Content\r\n\r\n', 'passed'],
    ['HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n', 'passed'],
    ['HTTP/1.0 200 OK\r\n\r\nall is well', 'passed'],
    ['HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n', 'passed'],
    ['HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno chunk', 'passed'],
    ['HTTP/1.1 404 Not Found\r\n\r\n', 'it answered with status 404'],
    ['HTTP/1.1 503 No\r\n\r\n', 'it answered with status 503'],
    ['HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n', 'it answered with status 101'],
    ['HTTP/1.1 100 Continue\r\n\r\n'.repeat(9), 'it answered with 1xx again and again'],
    ['HTTP/1.1 200 OK\r\nbad header\r\n\r\n', expect.stringMatching(/^its answer is malformed: /)],
    ['SSH-2.0-OpenSSH\r\n', expect.stringMatching(/^its answer is malformed: /)],
    [`HTTP/1.1 200 OK\r\n${'X: y\r\n'.repeat(200)}\r\n`, expect.stringMatching(/^its answer is malformed: /)],
    [`HTTP/1.1 200 OK\r\nX: ${'y'.repeat(20_000)}`, expect.stringMatching(/^its answer is malformed: /)],
  ])('of an answer like %j', async (answer, expected) => {
    expect(await outcomeOf(text(answer))).toEqual(expected);
  });

  test('passes whatever the body does, and does not read it all', async () => {
    let sent = 0;
    const pour = (socket: Socket): void => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n');
      const more = (): void => {
        sent += 65_536;
        if (socket.writable && sent < 1024 ** 3) socket.write(Buffer.alloc(65_536), more);
      };
      more();
    };
    expect(await outcomeOf(pour)).toBe('passed');
    expect(sent).toBeLessThan(64 * 1024 ** 2);
  });

  test('fails where the head does not come, or not all of it in time', async () => {
    expect(await outcomeOf(() => undefined)).toBe(`no whole answer in ${String(TIMEOUT_MS)} ms`);
    const trickle = (socket: Socket): void => {
      socket.write('HTTP/1.1 200 OK\r\n');
      const timer = setInterval(() => socket.write('X: y\r\n'), 50);
      socket.on('close', () => {
        clearInterval(timer);
      });
    };
    expect(await outcomeOf(trickle)).toBe(`no whole answer in ${String(TIMEOUT_MS)} ms`);
    expect(await outcomeOf((socket) => socket.end('HTTP/1.1 200 OK\r\n'))).toBe(
      'it closed the connection without a whole answer',
    );
    expect(await outcomeOf((socket) => socket.resetAndDestroy())).toBe('it reset the connection');
  });

  test('fails where nobody listens, or nobody accepts', async () => {
    const upstream = await startRawUpstream(() => undefined);
    await upstream[Symbol.asyncDispose]();
    const refused = await probe(targetOf(upstream.port), new AbortController().signal);
    expect(refused).toEqual({ kind: 'failed', reason: 'it refused the connection' });
    await using deaf = await startDeaf();
    const silent = await probe(targetOf(deaf.port), new AbortController().signal);
    expect(silent).toEqual({ kind: 'failed', reason: `no connection in ${String(TIMEOUT_MS)} ms` });
  });

  test.each([
    [undefined, ''],
    [1, 'PROXY UNKNOWN\r\n'],
    [2, '\r\n\r\n\0\r\nQUIT\n\x20\0\0\0'],
  ] as const)('asks as a client would, behind PROXY version %j', async (sendProxy, header) => {
    let seen = '';
    await using upstream = await startRawUpstream((socket) => {
      socket.on('data', (chunk: Buffer) => {
        seen += chunk.toString('latin1');
        if (seen.includes('close\r\n\r\n')) socket.end('HTTP/1.1 200 OK\r\n\r\n');
      });
    });
    await probe(targetOf(upstream.port, { sendProxy }), new AbortController().signal);
    const host = `127.0.0.1:${String(upstream.port)}`;
    expect(seen).toBe(
      `${header}GET /healthz?deep=1 HTTP/1.1\r\nHost: ${host}\r\nUser-Agent: ecluse-health\r\nAccept: */*\r\nConnection: close\r\n\r\n`,
    );
  });

  test('ends at once when it is called off', async () => {
    await using upstream = await startRawUpstream((socket) => {
      socket.on('end', () => socket.end());
    });
    const stop = new AbortController();
    const outcome = probe(targetOf(upstream.port, { timeoutMs: 3_600_000 }), stop.signal);
    await eventually(() => (upstream.connections() === 1 ? true : undefined));
    stop.abort();
    expect((await outcome).kind).toBe('failed');
    expect((await probe(targetOf(upstream.port), stop.signal)).kind).toBe('failed');
    expect(upstream.connections()).toBe(1);
  });
});
