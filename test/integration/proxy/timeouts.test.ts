/** What is waited for, how long, and what becomes of it: with limits of some hundred milliseconds. */
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { EDGE_LIMITS } from '#proxy/edge-limits.ts';
import type { AccessLogLine } from '#proxy/access-log-schema.ts';
import type { EdgeCertificate } from '#tls/certificate.ts';
import { makeCertificate } from '../../support/certificates.ts';
import { startDeaf } from '../../support/deaf-endpoint.ts';
import { configOf, eventually, startEdge } from '../../support/edge.ts';
import { ask } from '../../support/http-client.ts';
import type { EndpointConnection } from '../../support/raw-endpoint.ts';
import { valuesOf } from '../../support/raw-message.ts';
import { answering, pour, startStage, write } from '../../support/raw-scripted.ts';
import type { Stage } from '../../support/raw-scripted.ts';

const H = 'Host: app.test\r\n';
const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const ENDLESS = 'HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nbegun';
const LIMIT_MS = 300;
/** Time-outs are up to 0.3 s late; the rest is for a busy machine. */
const LATE_MS = 300 + 250;
/** Timers of the test and of the edge round apart. */
const EARLY_MS = 5;
const NEVER_MS = 3_600_000;
const GIB = 1024 ** 3;

const get = (target: string, fields = ''): string => `GET ${target} HTTP/1.1\r\n${H}${fields}\r\n`;
const post = (target: string, length: number): string =>
  `POST ${target} HTTP/1.1\r\n${H}Content-Length: ${String(length)}\r\n\r\n`;

/** How long something takes. */
async function timed<T>(work: () => Promise<T>): Promise<{ readonly ms: number; readonly result: T }> {
  const startMs = performance.now();
  const result = await work();
  return { ms: performance.now() - startMs, result };
}

function expectWithin(ms: number, limitMs: number, lateMs = LATE_MS): void {
  expect(ms).toBeGreaterThan(limitMs - EARLY_MS);
  expect(ms).toBeLessThan(limitMs + lateMs);
}

async function lineOf(stage: Stage, target: string): Promise<AccessLogLine> {
  return await eventually(async () => (await stage.edge.accessLog(0)).find(({ path }) => path === target));
}

async function metric(stage: Stage, line: string): Promise<number> {
  const text = await stage.edge.pool.metrics();
  const found = text.split('\n').find((each) => each.startsWith(`${line} `));
  return Number(found?.slice(line.length) ?? 0);
}

describe('silence', () => {
  let stage: Stage;
  let certificate: EdgeCertificate;

  beforeAll(async () => {
    certificate = await makeCertificate('app.test');
    stage = await startStage({
      certificates: [certificate],
      limits: {
        headTimeoutMs: LIMIT_MS,
        idleTimeoutMs: 2 * LIMIT_MS,
        tlsHandshakeTimeoutMs: LIMIT_MS,
        tlsHandshakesMax: 2,
        connectTimeoutMs: LIMIT_MS,
        firstByteTimeoutMs: LIMIT_MS,
        streamIdleTimeoutMs: LIMIT_MS,
        upstreamIdleMs: LIMIT_MS,
        progressBytesMin: 0,
      },
    });
  });

  afterAll(async () => {
    await stage[Symbol.asyncDispose]();
  });

  test('a head that does not end is answered with 408 and closed', async () => {
    using client = await stage.client();
    client.expect('GET');
    client.send('GET /half HTTP/1.1\r\nHo');
    const { ms, result } = await timed(async () => await client.answers(1));
    expect(result[0]?.status, client.state).toBe(408);
    expectWithin(ms, LIMIT_MS);
    expect(valuesOf(result[0] ?? { fields: [] }, 'proxy-status')).toEqual(['ecluse; error=http_request_error']);
    expect(await client.closed()).toBe(true);
    const line = await eventually(async () =>
      (await stage.edge.accessLog(0)).find(
        ({ errorCode, upstreamOutBytes }) => errorCode === 'request-timeout' && upstreamOutBytes === 0,
      ),
    );
    expect(line).toMatchObject({ status: 408, endpoint: null, tenant: null });
  });

  test('a head that trickles gets no more time than one that stands still', async () => {
    using client = await stage.client();
    client.expect('GET');
    const trickle = async (): Promise<void> => {
      for (const octet of `GET /trickle HTTP/1.1\r\n${H}X-Long: ${'x'.repeat(200)}`) {
        if (client.over || client.finals.length > 0) return;
        client.send(octet);
        await sleep(20);
      }
    };
    const { ms, result } = await timed(async () => {
      const trickling = trickle();
      const answers = await client.answers(1);
      await trickling;
      return answers;
    });
    expect(result[0]?.status, client.state).toBe(408);
    expectWithin(ms, LIMIT_MS);
  });

  test('the answer to a head that does not end has its body, whatever was asked before', async () => {
    using client = await stage.client();
    const target = stage.at(answering('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n'));
    expect((await client.ask(get(target).replace('GET', 'HEAD'))).status).toBe(200);
    client.expect('GET');
    client.send('GET /after-head HT');
    const [, answer] = await client.answers(2);
    expect(answer?.status, client.state).toBe(408);
    expect(answer?.body, client.state).not.toBe('');
  });

  test('a connection on which nothing comes is closed without a word', async () => {
    using client = await stage.client();
    const { ms, result } = await timed(async () => await client.closed());
    expect([result, client.text]).toEqual([true, '']);
    expectWithin(ms, LIMIT_MS);
  });

  test('a connection that is idle after a response is closed without a word', async () => {
    using client = await stage.client();
    await client.ask(get(stage.at(answering(OK))));
    const length = client.text.length;
    const { ms, result } = await timed(async () => await client.closed());
    expect([result, client.ended, client.text.length]).toEqual([true, 'end', length]);
    expectWithin(ms, 2 * LIMIT_MS);
  });

  test('a connection that is used again in time is not idle', async () => {
    using client = await stage.client();
    const target = stage.at(answering(OK));
    for (let round = 0; round < 4; round += 1) {
      expect((await client.ask(get(target))).status).toBe(200);
      await sleep(LIMIT_MS);
    }
    expect(client.ended).toBe('no');
  });

  test('an endpoint that does not accept is given up with 504', async () => {
    await using deaf = await startDeaf();
    await using edge = await startEdge({
      config: configOf([{ id: 'deaf', address: '127.0.0.1', port: deaf.port, hostName: 'h', generation: 1 }]),
      limits: { connectTimeoutMs: LIMIT_MS },
    });
    const { ms, result } = await timed(async () => await ask({ port: edge.httpPort }));
    expect([result.status, result.headers['proxy-status']]).toEqual([504, 'ecluse; error=connection_timeout']);
    expectWithin(ms, LIMIT_MS);
    const [line] = await edge.accessLog(1);
    expect(line).toMatchObject({ status: 504, errorCode: 'connect-timeout', endpoint: 'deaf', connectMs: null });
    expect(await edge.pool.metrics()).toContain('ecluse_timeouts_total{kind="connect-timeout"} 1');
  });

  test('an endpoint that does not answer is given up with 504', async () => {
    const target = stage.at({});
    using client = await stage.client();
    const { ms, result } = await timed(async () => await client.ask(get(target)));
    expect([result.status, valuesOf(result, 'proxy-status')]).toEqual([504, ['ecluse; error=http_response_timeout']]);
    expectWithin(ms, LIMIT_MS);
    expect(await lineOf(stage, target)).toMatchObject({ status: 504, errorCode: 'first-byte-timeout', firstByteMs: null });
    expect(await metric(stage, 'ecluse_timeouts_total{kind="first-byte-timeout"}')).toBeGreaterThan(0);
  });

  test('the time for the first byte begins when the request is whole', async () => {
    const target = stage.at({
      onRequest: ({ connection }) => {
        setTimeout(() => {
          write(connection, OK);
        }, LIMIT_MS / 2);
      },
    });
    using client = await stage.client();
    client.expect('POST');
    client.send(post(target, 6));
    for (const octet of 'abcdef') {
      await sleep(100);
      client.send(octet);
    }
    expect((await client.answers(1))[0]?.status, client.state).toBe(200);
  });

  test('a request body that stands still is answered with 408', async () => {
    const target = stage.at({});
    using client = await stage.client();
    client.expect('POST');
    client.send(`${post(target, 10)}half`);
    const { ms, result } = await timed(async () => await client.answers(1));
    expect(result[0]?.status, client.state).toBe(408);
    expectWithin(ms, LIMIT_MS);
    expect(await lineOf(stage, target)).toMatchObject({ status: 408, errorCode: 'request-timeout' });
  });

  test('a response that stands still is cut, so that nobody takes it for whole', async () => {
    const target = stage.at(answering(ENDLESS));
    using client = await stage.client();
    client.expect('GET');
    client.send(get(target));
    await client.until(() => client.text.endsWith('begun'));
    const { ms, result } = await timed(async () => await client.closed());
    expect([result, client.finals.length]).toEqual([true, 0]);
    expectWithin(ms, LIMIT_MS);
    expect(await lineOf(stage, target)).toMatchObject({ status: 200, errorCode: 'stream-idle' });
  });

  test('a response that moves now and then is not cut', async () => {
    const target = stage.at({
      onRequest: ({ connection }) => {
        void (async () => {
          write(connection, 'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n');
          for (const octet of 'eightoct') {
            await sleep(LIMIT_MS / 2);
            write(connection, octet);
          }
        })();
      },
    });
    using client = await stage.client();
    expect(await client.ask(get(target))).toMatchObject({ status: 200, body: 'eightoct' });
  });

  test('a client that does not read is cut by silence too, where progress is off', async () => {
    let endpoint: EndpointConnection | undefined;
    const target = stage.at({
      onRequest: ({ connection }) => {
        endpoint = connection;
        write(connection, `HTTP/1.1 200 OK\r\nContent-Length: ${String(GIB)}\r\n\r\n`);
        void pour(connection.socket, GIB).done;
      },
    });
    using client = await stage.client();
    client.socket.pause();
    client.send(get(target));
    await eventually(() => endpoint);
    await sleep(10 * LIMIT_MS);
    expect(endpoint?.socket.destroyed).toBe(true);
    expect(await lineOf(stage, target)).toMatchObject({ status: 200, errorCode: 'stream-idle' });
  });

  test('a tunnel in which nothing moves is closed on both sides', async () => {
    let endpoint: EndpointConnection | undefined;
    const target = stage.at({
      onRequest: ({ connection }) => {
        endpoint = connection;
        write(connection, 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n');
      },
    });
    using client = await stage.client();
    client.expect('GET');
    client.send(get(target, 'Connection: Upgrade\r\nUpgrade: echo\r\n'));
    await client.until(() => client.text.includes('\r\n\r\n'));
    for (let round = 0; round < 4; round += 1) {
      await sleep(LIMIT_MS / 2);
      client.send('x');
    }
    expect(client.ended).toBe('no');
    const { ms, result } = await timed(async () => await client.closed());
    expect(result).toBe(true);
    expectWithin(ms, LIMIT_MS);
    await eventually(() => (endpoint?.closed === true ? true : undefined));
    expect(await lineOf(stage, target)).toMatchObject({ status: 101, errorCode: 'stream-idle' });
  });

  test('an idle connection to an endpoint is used again in time, and closed after it', async () => {
    const target = stage.at(answering(OK));
    using client = await stage.client();
    await client.ask(get(target));
    const before = stage.endpoint.connections();
    await client.ask(get(target));
    expect(stage.endpoint.connections()).toBe(before);
    const last = stage.endpoint.seen.at(-1)?.connection;
    const { ms } = await timed(async () => await eventually(() => (last?.closed === true ? true : undefined)));
    expectWithin(ms, LIMIT_MS);
    using later = await stage.client();
    await later.ask(get(target));
    expect(stage.endpoint.connections()).toBe(before + 1);
  });

  describe('in TLS handshakes', () => {
    /** A connection to the HTTPS port that says nothing. */
    async function silent(): Promise<{ readonly socket: Socket; readonly closed: Promise<unknown> }> {
      const socket = connect({ host: '127.0.0.1', port: stage.edge.httpsPort });
      const [opened, closed] = [Promise.withResolvers<undefined>(), Promise.withResolvers<undefined>()];
      socket.on('error', () => undefined);
      socket.once('connect', () => {
        opened.resolve(undefined);
      });
      socket.once('close', () => {
        closed.resolve(undefined);
      });
      socket.resume();
      await opened.promise;
      return { socket, closed: closed.promise };
    }

    test('is cut, and counted', async () => {
      const before = await metric(stage, 'ecluse_timeouts_total{kind="tls-handshake"}');
      const { closed } = await silent();
      const { ms } = await timed(async () => await closed);
      expectWithin(ms, LIMIT_MS);
      expect(await metric(stage, 'ecluse_timeouts_total{kind="tls-handshake"}')).toBe(before + 1);
    });

    test('is limited in number; the places come back', async () => {
      const before = await metric(stage, 'ecluse_refused_handshakes_total');
      for (let round = 0; round < 3; round += 1) {
        const first = await silent();
        const second = await silent();
        const { ms } = await timed(async () => await (await silent()).closed);
        expect(ms).toBeLessThan(LIMIT_MS - 50);
        first.socket.destroy();
        await second.closed;
        await sleep(20);
        expect((await ask({ port: stage.edge.httpsPort, serverName: 'app.test', path: stage.at(answering(OK)) })).status).toBe(
          200,
        );
      }
      expect(await metric(stage, 'ecluse_refused_handshakes_total')).toBe(before + 3);
    });
  });
});

describe('the whole exchange', () => {
  const TOTAL_MS = 600;
  let stage: Stage;

  beforeAll(async () => {
    stage = await startStage({ limits: { totalTimeoutMs: TOTAL_MS } });
  });

  afterAll(async () => {
    await stage[Symbol.asyncDispose]();
  });

  /** Writes an octet now and then, as long as it may. */
  function trickling(onBegin: (connection: EndpointConnection) => void = () => undefined): string {
    return stage.at({
      onRequest: ({ connection }) => {
        onBegin(connection);
        void (async () => {
          write(connection, ENDLESS);
          while (connection.socket.writable) {
            await sleep(40);
            write(connection, 'x');
          }
        })();
      },
    });
  }

  test('is cut when its time is over, although it moves', async () => {
    const target = trickling();
    using client = await stage.client();
    client.expect('GET');
    client.send(get(target));
    const { ms, result } = await timed(async () => await client.closed());
    expect([result, client.finals.length]).toEqual([true, 0]);
    expectWithin(ms, TOTAL_MS);
    expect(await lineOf(stage, target)).toMatchObject({ status: 200, errorCode: 'total-timeout' });
    expect(await metric(stage, 'ecluse_timeouts_total{kind="total-timeout"}')).toBe(1);
  });

  test('is answered with 504 where nothing of a response went out', async () => {
    const target = stage.at({});
    using client = await stage.client();
    const { ms, result } = await timed(async () => await client.ask(get(target)));
    expect(result.status).toBe(504);
    expectWithin(ms, TOTAL_MS);
    expect(await lineOf(stage, target)).toMatchObject({ errorCode: 'total-timeout' });
  });

  test('counts the time that a request was held', async () => {
    const target = stage.at({});
    const endpointId = stage.endpoint.endpoint().id;
    await stage.edge.pool.freeze([endpointId], { deadlineMs: 5_000, drainMs: 100 });
    using client = await stage.client();
    client.expect('GET');
    client.send(get(target));
    const { ms, result } = await timed(async () => {
      await sleep(TOTAL_MS - 200);
      await stage.edge.pool.thaw([endpointId]);
      return await client.answers(1);
    });
    expect(result[0]?.status, client.state).toBe(504);
    expectWithin(ms, TOTAL_MS);
  });

  test('is no tunnel', async () => {
    const target = stage.at(answering('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n'));
    using client = await stage.client();
    client.expect('GET');
    client.send(get(target, 'Connection: Upgrade\r\nUpgrade: echo\r\n'));
    expect(await client.closed(2 * TOTAL_MS)).toBe(false);
  });

  test('is late by no more than others, also where its time is longer than the window of progress', async () => {
    await using other = await startStage({ limits: { totalTimeoutMs: 1_100, progressWindowMs: 800, progressBytesMin: 0 } });
    using client = await other.client();
    const { ms, result } = await timed(async () => await client.ask(get(other.at({}))));
    expect(result.status).toBe(504);
    expectWithin(ms, 1_100, 450);
  });
});

describe('progress', () => {
  const WINDOW_MS = 400;
  const BYTES = 1_000;
  let stage: Stage;

  beforeAll(async () => {
    stage = await startStage({
      limits: {
        progressWindowMs: WINDOW_MS,
        progressBytesMin: BYTES,
        firstByteTimeoutMs: NEVER_MS,
        streamIdleTimeoutMs: NEVER_MS,
      },
    });
  });

  afterAll(async () => {
    await stage[Symbol.asyncDispose]();
  });

  test('a body that comes with an octet now and then is cut with 408', async () => {
    const target = stage.at({});
    using client = await stage.client();
    client.expect('POST');
    client.send(post(target, 100_000));
    const { ms, result } = await timed(async () => {
      while (client.finals.length === 0 && !client.over) {
        client.send('x');
        await sleep(50);
      }
      return await client.answers(1);
    });
    expect(result[0]?.status, client.state).toBe(408);
    expectWithin(ms, WINDOW_MS);
    expect(await lineOf(stage, target)).toMatchObject({ status: 408, errorCode: 'client-too-slow' });
    expect(await metric(stage, 'ecluse_timeouts_total{kind="client-too-slow"}')).toBe(1);
  });

  test('a body that moves enough in each window is carried to its end', async () => {
    const target = stage.at(answering(OK));
    using client = await stage.client();
    client.expect('POST');
    client.send(post(target, 12 * 500));
    for (let piece = 0; piece < 12; piece += 1) {
      client.send('x'.repeat(500));
      await sleep(100);
    }
    expect((await client.answers(1))[0]?.status, client.state).toBe(200);
  });

  test('a client that does not read its response is cut', async () => {
    let endpoint: EndpointConnection | undefined;
    const target = stage.at({
      onRequest: ({ connection }) => {
        endpoint = connection;
        write(connection, `HTTP/1.1 200 OK\r\nContent-Length: ${String(GIB)}\r\n\r\n`);
        void pour(connection.socket, GIB).done;
      },
    });
    using client = await stage.client();
    client.socket.pause();
    client.send(get(target));
    await eventually(() => endpoint);
    await eventually(() => (endpoint?.socket.destroyed === true ? true : undefined));
    expect(await lineOf(stage, target)).toMatchObject({ status: 200, errorCode: 'client-too-slow' });
  });

  test('a client that waits for a slow endpoint is not blamed', async () => {
    const target = stage.at({
      onRequest: ({ connection }) => {
        setTimeout(() => {
          write(connection, OK);
        }, 3 * WINDOW_MS);
      },
    });
    using client = await stage.client();
    expect((await client.ask(get(target))).status).toBe(200);
  });

  test('a client whose body the endpoint does not read is not blamed', async () => {
    const target = stage.at({
      onHead: (_head, { socket }) => {
        socket.pause();
        setTimeout(() => socket.resume(), 4 * WINDOW_MS);
      },
      onRequest: ({ connection }) => {
        write(connection, OK);
      },
    });
    using client = await stage.client();
    client.expect('POST');
    const length = 32 * 1024 * 1024;
    client.send(post(target, length));
    client.send(Buffer.alloc(length, 'x'));
    const [answer] = await client.answers(1, 20_000);
    expect(answer?.status, client.state).toBe(200);
  });

  test('the defaults are as the guide has them', () => {
    expect(EDGE_LIMITS).toMatchObject({
      progressWindowMs: 30_000,
      progressBytesMin: 512,
      headTimeoutMs: 30_000,
      idleTimeoutMs: 60_000,
    });
  });
});
