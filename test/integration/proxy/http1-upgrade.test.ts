/** Upgrades over raw sockets: bytes at any time, ends of each direction on its own, backpressure, and answers that are none. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { eventually } from '../../support/edge.ts';
import type { RawClient } from '../../support/raw-client.ts';
import type { EndpointConnection } from '../../support/raw-endpoint.ts';
import { valuesOf } from '../../support/raw-message.ts';
import { afterwards, answering, HELD_BACK_BYTES, pour, standsStill, startStage, write } from '../../support/raw-scripted.ts';
import type { Stage } from '../../support/raw-scripted.ts';

const H = 'Host: app.test\r\n';
/** Longer than anything takes that needs no waiting. */
const SOON_MS = 1_500;

const get = (target: string, fields: string): string => `GET ${target} HTTP/1.1\r\n${H}${fields}\r\n`;

interface Tunnel extends Disposable {
  readonly client: RawClient;
  readonly connection: EndpointConnection;
  /** What the endpoint got behind the request. */
  readonly received: () => string;
}

let stage: Stage;

beforeAll(async () => {
  stage = await startStage();
});

afterAll(async () => {
  await stage[Symbol.asyncDispose]();
});

describe('an upgrade', () => {
  const ASK = 'Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n';
  const AGREE =
    'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: a\r\n\r\n';

  /** An agreed upgrade; the endpoint's socket is the test's. */
  async function agreed(early = ''): Promise<Tunnel> {
    const { promise: begun, resolve: begin } = Promise.withResolvers<EndpointConnection>();
    let tunnelled = '';
    const target = stage.at({
      onRequest: ({ connection }) => {
        connection.socket.removeAllListeners('data');
        connection.socket.removeAllListeners('end');
        tunnelled = connection.reader.rest;
        connection.socket.on('data', (chunk: Buffer) => {
          tunnelled += chunk.toString('latin1');
        });
        connection.socket.on('end', () => {
          connection.closed = true;
        });
        write(connection, AGREE);
        begin(connection);
      },
    });
    const client = await stage.client();
    client.expect('GET');
    client.send(get(target, ASK) + early);
    const connection = await begun;
    await client.until(() => client.finals.length === 1);
    expect(client.finals[0]?.fields).toEqual([
      ['Sec-WebSocket-Accept', 'a'],
      ['Connection', 'Upgrade'],
      ['Upgrade', 'websocket'],
    ]);
    return {
      client,
      connection,
      received: () => tunnelled,
      [Symbol.dispose]: () => {
        client[Symbol.dispose]();
      },
    };
  }
  const tunnelled = (client: RawClient): string => client.text.slice(client.text.indexOf('\r\n\r\n') + 4);

  test('with bytes that did not wait for it, either way', async () => {
    using tunnel = await agreed('early');
    const { client, connection, received } = tunnel;
    write(connection, 'hello');
    await client.until(() => tunnelled(client) === 'hello');
    await eventually(() => (received() === 'early' ? true : undefined));
    client.send('more');
    await eventually(() => (received() === 'earlymore' ? true : undefined));
    expect(tunnelled(client)).toBe('hello');
  });

  test('whose client ends first still hears the endpoint', async () => {
    using tunnel = await agreed();
    const { client, connection, received } = tunnel;
    client.send('last words');
    client.socket.end();
    await eventually(() => (connection.closed && received() === 'last words' ? true : undefined));
    write(connection, 'an answer', 'end');
    expect(await client.closed(SOON_MS)).toBe(true);
    expect([client.ended, tunnelled(client)]).toEqual(['end', 'an answer']);
  });

  test('whose endpoint ends first still hears the client', async () => {
    using tunnel = await agreed();
    const { client, connection, received } = tunnel;
    write(connection, 'last words', 'end');
    expect(await client.closed(SOON_MS)).toBe(true);
    expect([client.ended, tunnelled(client), connection.closed]).toEqual(['end', 'last words', false]);
    client.send('an answer');
    client.socket.end();
    await eventually(() => (connection.closed && received() === 'an answer' ? true : undefined));
  });

  test('whose endpoint resets ends for the client, and the other way round', async () => {
    using one = await agreed();
    one.connection.socket.resetAndDestroy();
    expect(await one.client.closed(SOON_MS)).toBe(true);
    using other = await agreed();
    other.client.socket.resetAndDestroy();
    await eventually(() => (other.connection.socket.destroyed || other.connection.closed ? true : undefined));
  });

  test('has backpressure to the client', async () => {
    using tunnel = await agreed();
    const { client, connection } = tunnel;
    client.socket.pause();
    const total = HELD_BACK_BYTES;
    const poured = pour(connection.socket, total);
    expect(await standsStill(poured.sent)).toBe(true);
    expect(poured.sent()).toBeGreaterThan(0);
    expect(poured.sent()).toBeLessThan(total / 2);
    const size = (): number => client.received.reduce((sum, { length }) => sum + length, 0);
    client.socket.resume();
    expect(await client.until(() => size() > total, 20_000)).toBe(true);
  });

  test('has backpressure to the endpoint', async () => {
    using tunnel = await agreed();
    const { client, connection } = tunnel;
    let size = 0;
    connection.socket.removeAllListeners('data');
    connection.socket.pause();
    const total = HELD_BACK_BYTES;
    const poured = pour(client.socket, total);
    expect(await standsStill(poured.sent)).toBe(true);
    expect(poured.sent()).toBeGreaterThan(0);
    expect(poured.sent()).toBeLessThan(total / 2);
    connection.socket.on('data', ({ length }: Buffer) => {
      size += length;
    });
    connection.socket.resume();
    await eventually(() => (size === total ? true : undefined));
  });

  test.each([
    ['200', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'],
    ['404', 'HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nok'],
    ['426', 'HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: other\r\nContent-Length: 2\r\n\r\nok'],
    ['chunked 200', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n'],
    ['200 until close', 'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok'],
  ])('that is answered %s is a request as any other', async (what, text) => {
    const target = stage.at(answering(text, what.endsWith('close') ? 'end' : 'stay'));
    using client = await stage.client();
    const answer = await client.ask(get(target, ASK));
    expect([answer.status, answer.body]).toEqual([Number(/\d+/.exec(text.slice(9))?.[0]), 'ok']);
    expect(valuesOf(answer, 'upgrade')).toEqual(what === '426' ? ['other'] : []);
    expect(['closes', 'stays']).toContain(await afterwards(client));
  });

  test('that is refused leaves what came early to be read as a request', async () => {
    const target = stage.at(answering('HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno'));
    using client = await stage.client();
    client.expect('GET', 'GET');
    client.send(get(target, ASK) + get('/behind', 'X-Case: behind\r\n'));
    await client.answers(2, SOON_MS);
    const [answer, behind, ...more] = client.finals;
    expect([answer?.status, more.length]).toEqual([404, 0]);
    // Either is right: the request behind is answered as one, or the connection closes behind the refusal.
    expect(behind?.body ?? (client.ended === 'no' ? client.state : 'closed')).toMatch(/^(?:behind GET \/behind 0|closed)$/);
  });
});
