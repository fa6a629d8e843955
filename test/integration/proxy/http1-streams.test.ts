/** Bodies on their way: as they come, however large, held back where nobody reads; and what each side sees when the other is gone. */
import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { eventually } from '../../support/edge.ts';
import type { EndpointConnection } from '../../support/raw-endpoint.ts';
import {
  afterwards,
  answering,
  HELD_BACK_BYTES,
  pour,
  seenAt,
  standsStill,
  startStage,
  write,
} from '../../support/raw-scripted.ts';
import type { Stage } from '../../support/raw-scripted.ts';

const MIB = 1024 * 1024;
const H = 'Host: app.test\r\n';
const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';

const get = (target: string, version = '1.1'): string => `GET ${target} HTTP/${version}\r\n${H}\r\n`;
const post = (target: string, length: number): string =>
  `POST ${target} HTTP/1.1\r\n${H}Content-Length: ${String(length)}\r\n\r\n`;
const sha256 = (text: string): string => createHash('sha256').update(text, 'latin1').digest('hex');

let stage: Stage;

beforeAll(async () => {
  stage = await startStage();
});

afterAll(async () => {
  await stage[Symbol.asyncDispose]();
});

function inChunks(head: string, payload: string): string {
  const size = 60_000;
  let text = `${head}Transfer-Encoding: chunked\r\n\r\n`;
  for (let at = 0; at < payload.length; at += size) {
    const piece = payload.slice(at, at + size);
    text += `${piece.length.toString(16)}\r\n${piece}\r\n`;
  }
  return `${text}0\r\n\r\n`;
}

describe('streams', () => {
  test('a response goes on as it comes, its head before its body', async () => {
    let connection: EndpointConnection | undefined;
    const target = stage.at({
      onRequest: (seen) => {
        connection = seen.connection;
        write(connection, 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n');
      },
    });
    using client = await stage.client();
    client.expect('GET');
    client.send(get(target));
    expect(await client.until(() => client.reader.pending !== undefined), client.state).toBe(true);
    if (connection !== undefined) write(connection, '5\r\nhello\r\n');
    expect(await client.until(() => client.text.endsWith('5\r\nhello\r\n')), client.state).toBe(true);
    if (connection !== undefined) write(connection, '0\r\n\r\n');
    expect((await client.answers(1))[0]?.body).toBe('hello');
    expect(await afterwards(client)).toBe('stays');
  });

  test('a request goes on as it comes, its head before its body', async () => {
    const { promise: begun, resolve: begin } = Promise.withResolvers<EndpointConnection>();
    const target = stage.at({
      ...answering(OK),
      onHead: (_head, connection) => {
        begin(connection);
      },
    });
    using client = await stage.client();
    client.expect('POST');
    client.send(post(target, 10));
    const { reader } = await begun;
    client.send('hello');
    await eventually(() => (reader.pending?.pieces.join('') === 'hello' ? true : undefined));
    client.send('world');
    expect((await client.answers(1))[0]?.status).toBe(200);
    expect(await afterwards(client)).toBe('stays');
  });

  test('an answer goes on while the body is being uploaded, and the rest of it harms nobody', async () => {
    const target = stage.at({
      onHead: (_head, connection) => {
        write(connection, OK);
      },
    });
    using client = await stage.client();
    client.expect('POST');
    client.send(post(target, MIB) + 'x'.repeat(1000));
    expect((await client.answers(1))[0]?.body).toBe('ok');
    client.send('x'.repeat(MIB - 1000));
    await sleep(50);
    if (client.ended === 'no') await client.until(() => client.ended !== 'no', 300);
    expect(client.finals.length, client.state).toBe(1);
    using fresh = await stage.client();
    expect(await afterwards(fresh)).toBe('stays');
  });

  const payload = Array.from({ length: 5 * MIB }, (_, index) => String.fromCodePoint((index * 7 + (index >> 10)) & 0xff)).join(
    '',
  );

  test.each(['fixed', 'chunked'] as const)('5 MiB up, %s', async (framing) => {
    const target = stage.at(answering(OK));
    using client = await stage.client();
    client.expect('POST');
    client.send(
      framing === 'fixed' ? post(target, payload.length) + payload : inChunks(`POST ${target} HTTP/1.1\r\n${H}`, payload),
    );
    expect((await client.answers(1, 10_000))[0]?.status, client.state).toBe(200);
    const seen = seenAt(stage, target);
    expect([seen.framing, seen.body.length, sha256(seen.body)]).toEqual([framing, payload.length, sha256(payload)]);
    expect(await afterwards(client)).toBe('stays');
  });

  test.each(['fixed', 'chunked'] as const)('5 MiB down, %s', async (framing) => {
    const head = 'HTTP/1.1 200 OK\r\n';
    const target = stage.at(
      answering(
        framing === 'fixed' ? `${head}Content-Length: ${String(payload.length)}\r\n\r\n${payload}` : inChunks(head, payload),
      ),
    );
    using client = await stage.client();
    client.expect('GET');
    client.send(get(target));
    const [answer] = await client.answers(1, 10_000);
    expect([answer?.framing, answer?.body.length, sha256(answer?.body ?? '')]).toEqual([
      framing,
      payload.length,
      sha256(payload),
    ]);
    expect(await afterwards(client)).toBe('stays');
  });

  test('a client that does not read holds the endpoint back', async () => {
    const total = HELD_BACK_BYTES;
    let poured: ReturnType<typeof pour> | undefined;
    const target = stage.at({
      onRequest: ({ connection }) => {
        write(connection, `HTTP/1.1 200 OK\r\nContent-Length: ${String(total)}\r\n\r\n`);
        poured = pour(connection.socket, total);
      },
    });
    using client = await stage.client();
    client.expect('GET');
    client.send(get(target));
    await client.until(() => client.reader.pending !== undefined);
    client.socket.pause();
    expect(await standsStill(() => poured?.sent() ?? 0)).toBe(true);
    expect(poured?.sent()).toBeGreaterThan(0);
    expect(poured?.sent()).toBeLessThan(total / 2);
    client.socket.resume();
    expect((await client.answers(1, 20_000))[0]?.body.length).toBe(total);
  });

  test('an endpoint that does not read holds the client back', async () => {
    const total = HELD_BACK_BYTES;
    const { promise: begun, resolve: begin } = Promise.withResolvers<EndpointConnection>();
    const target = stage.at({
      ...answering(OK),
      onHead: (_head, connection) => {
        connection.socket.pause();
        begin(connection);
      },
    });
    using client = await stage.client();
    client.expect('POST');
    client.send(post(target, total));
    const { socket } = await begun;
    const poured = pour(client.socket, total);
    expect(await standsStill(poured.sent)).toBe(true);
    expect(poured.sent()).toBeGreaterThan(0);
    expect(poured.sent()).toBeLessThan(total / 2);
    socket.resume();
    expect((await client.answers(1, 20_000))[0]?.status).toBe(200);
    expect(seenAt(stage, target).body.length).toBe(total);
  });
});

describe('an endpoint that ends in the middle', () => {
  const HALVES = [
    ['a length', 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello'],
    ['chunks', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n'],
    ['a chunk', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello'],
  ] as const;

  test.each(HALVES.flatMap(([what, text]) => [[what, 'end', text] as const, [what, 'reset', text] as const]))(
    'of %s by %s: the client sees that something is missing',
    async (_what, then, text) => {
      const target = stage.at(answering(text, then));
      using client = await stage.client();
      client.expect('GET');
      client.send(get(target));
      await client.answers(1);
      // The octets that came go on, and nothing that makes them look whole.
      expect([client.finals.length, client.ended === 'no', client.reader.fault]).toEqual([0, false, undefined]);
      expect(client.text).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
    },
  );

  test.each([
    ['chunks, end', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n', 'end'],
    ['chunks, reset', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n', 'reset'],
    ['until close, reset', 'HTTP/1.1 200 OK\r\n\r\nhello', 'reset'],
  ] as const)('of what an HTTP/1.0 client gets until close (%s): it sees a reset', async (_what, text, then) => {
    const target = stage.at({
      onRequest: ({ connection }) => {
        write(connection, text);
        setTimeout(() => {
          write(connection, '', then);
        }, 30);
      },
    });
    using client = await stage.client();
    client.expect('GET');
    client.send(get(target, '1.0'));
    await client.closed();
    expect([client.ended, client.finals.length]).toEqual(['reset', 0]);
  });
});

describe('a client that goes away is gone for the endpoint within 2 s', () => {
  const scenes: readonly (readonly [when: string, answer: string, send: (target: string) => string, how: 'end' | 'reset'])[] = [
    ['while it waits', '', get, 'reset'],
    ['while it reads', 'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhello', get, 'reset'],
    ['while it reads chunks', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n', get, 'reset'],
    ['while it uploads', '', (target) => `${post(target, 1000)}hello`, 'reset'],
    [
      'while it uploads chunks',
      '',
      (target) => `POST ${target} HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n`,
      'reset',
    ],
    ['by an end while it uploads', '', (target) => `${post(target, 1000)}hello`, 'end'],
  ];

  test.each(scenes)('%s', async (_when, text, send, how) => {
    const { promise: begun, resolve: begin } = Promise.withResolvers<EndpointConnection>();
    const target = stage.at({
      onHead: (_head, connection) => {
        begin(connection);
        if (text !== '') write(connection, text);
      },
    });
    using client = await stage.client();
    client.send(send(target));
    const connection = await begun;
    await sleep(20);
    expect(connection.closed).toBe(false);
    if (how === 'end') client.socket.end();
    else client.socket.resetAndDestroy();
    const limit = performance.now() + 2_000;
    while (!connection.closed && performance.now() < limit) await sleep(10);
    expect(connection.closed).toBe(true);
    expect(stage.endpoint.seen.some(({ message }) => message.target === target && message.method === 'POST')).toBe(false);
  });
});
