/** What an HTTP/1.1 proxy owes both its peers beside framing: expectations, interim responses, trailers, versions, ends, backpressure, upgrades. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { eventually } from '../../support/edge.ts';
import { matching } from '../../support/matchers.ts';
import type { RawClient } from '../../support/raw-client.ts';
import type { EndpointConnection } from '../../support/raw-endpoint.ts';
import { valuesOf } from '../../support/raw-message.ts';
import type { RawMessage } from '../../support/raw-message.ts';
import { afterwards, answering, seenAt, startStage, write } from '../../support/raw-scripted.ts';
import type { Stage } from '../../support/raw-scripted.ts';

const H = 'Host: app.test\r\n';
const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const EARLY_HINT = 'HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n';
/** Longer than anything takes that needs no waiting. */
const SOON_MS = 1_500;

const get = (target: string, fields = '', version = '1.1'): string => `GET ${target} HTTP/${version}\r\n${H}${fields}\r\n`;
const post = (target: string, length: number, fields = '', version = '1.1'): string =>
  `POST ${target} HTTP/${version}\r\n${H}Content-Length: ${String(length)}\r\n${fields}\r\n`;
const statuses = (client: RawClient): number[] => client.reader.messages.map(({ status }) => status);
const names = (message: Pick<RawMessage, 'fields'>): string[] => message.fields.map(([name]) => name.toLowerCase());

let stage: Stage;

beforeAll(async () => {
  stage = await startStage();
});

afterAll(async () => {
  await stage[Symbol.asyncDispose]();
});

describe('Expect: 100-continue', () => {
  test('is the endpoint’s to answer: 100, then the body, then the response', async () => {
    const target = stage.at({
      onHead: (_head, connection) => {
        write(connection, 'HTTP/1.1 100 Continue\r\n\r\n');
      },
      onRequest: ({ message, connection }) => {
        write(connection, `HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n${message.body}`);
      },
    });
    using client = await stage.client();
    client.expect('POST');
    client.send(post(target, 5, 'Expect: 100-continue\r\n'));
    expect(await client.until(() => client.reader.messages.length === 1), client.state).toBe(true);
    expect(statuses(client)).toEqual([100]);
    client.send('hello');
    await client.answers(1);
    expect(statuses(client)).toEqual([100, 200]);
    expect(client.finals[0]?.body).toBe('hello');
    expect(valuesOf(seenAt(stage, target), 'expect')).toEqual(['100-continue']);
    expect(await afterwards(client)).toBe('stays');
  });

  test('that is refused: the answer comes without the body, and the connection closes', async () => {
    const target = stage.at({
      onHead: (_head, connection) => {
        write(connection, 'HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno');
      },
    });
    using client = await stage.client();
    client.expect('POST');
    client.send(post(target, 1000, 'Expect: 100-continue\r\n'));
    const [answer] = await client.answers(1);
    expect([answer?.status, answer?.body]).toEqual([413, 'no']);
    expect(statuses(client)).toEqual([413]);
    expect(await client.closed(SOON_MS), client.state).toBe(true);
    const [connection] = stage.endpoint.each.filter(({ received }) => received.join('').includes(target));
    await eventually(() => (connection?.closed === true ? true : undefined));
  });

  test('of a client that does not wait', async () => {
    const target = stage.at(answering(`HTTP/1.1 100 Continue\r\n\r\n${OK}`));
    using client = await stage.client();
    const answer = await client.ask(`${post(target, 5, 'Expect: 100-continue\r\n')}hello`);
    expect(answer.status).toBe(200);
    expect(seenAt(stage, target).body).toBe('hello');
    expect(await afterwards(client)).toBe('stays');
  });

  test('that the endpoint does not answer does not hold the body back', async () => {
    const target = stage.at(answering(OK));
    using client = await stage.client();
    client.expect('POST');
    client.send(post(target, 5, 'Expect: 100-continue\r\n'));
    await sleep(50);
    client.send('hello');
    await client.answers(1);
    expect(statuses(client)).toEqual([200]);
    // Nobody was told to go on, so that the edge may as well close.
    expect(['closes', 'stays']).toContain(await afterwards(client));
  });

  test('of an HTTP/1.0 client means nothing, and brings it no 100', async () => {
    const target = stage.at(answering(`HTTP/1.1 100 Continue\r\n\r\n${OK}`));
    using client = await stage.client();
    await client.ask(`${post(target, 5, 'Expect: 100-continue\r\n', '1.0')}hello`);
    expect(statuses(client)).toEqual([200]);
    expect(names(seenAt(stage, target))).not.toContain('expect');
  });
});

describe('an interim response', () => {
  test('goes on to an HTTP/1.1 client at once', async () => {
    const { promise: asked, resolve: ask } = Promise.withResolvers<EndpointConnection>();
    const target = stage.at({
      onRequest: ({ connection }) => {
        write(connection, EARLY_HINT.repeat(2));
        ask(connection);
      },
    });
    using client = await stage.client();
    client.expect('GET');
    client.send(get(target));
    expect(await client.until(() => client.reader.messages.length === 2), client.state).toBe(true);
    write(await asked, OK);
    await client.answers(1);
    expect(statuses(client)).toEqual([103, 103, 200]);
    expect(client.reader.messages[0]?.fields).toContainEqual(['Link', '</a.css>; rel=preload']);
    expect(await afterwards(client)).toBe('stays');
  });

  test('does not go on to an HTTP/1.0 client', async () => {
    const target = stage.at(answering(EARLY_HINT + OK));
    using client = await stage.client();
    const answer = await client.ask(get(target, '', '1.0'));
    expect([answer.status, answer.body]).toEqual([200, 'ok']);
    expect(statuses(client)).toEqual([200]);
  });
});

describe('trailers', () => {
  test('go to the endpoint', async () => {
    const target = stage.at(answering(OK));
    using client = await stage.client();
    await client.ask(
      `POST ${target} HTTP/1.1\r\n${H}Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 7\r\nX-More: 8\r\n\r\n`,
    );
    const seen = seenAt(stage, target);
    expect([seen.body, seen.trailers, valuesOf(seen, 'trailer')]).toEqual([
      'hello',
      [
        ['X-Sum', '7'],
        ['X-More', '8'],
      ],
      ['X-Sum'],
    ]);
    expect(await afterwards(client)).toBe('stays');
  });

  test('come to the client, who said that they are welcome', async () => {
    const target = stage.at(
      answering('HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n'),
    );
    using client = await stage.client();
    const answer = await client.ask(get(target, 'TE: trailers\r\n'));
    expect([answer.body, answer.trailers]).toEqual(['ok', [['X-Sum', '7']]]);
    expect(valuesOf(answer, 'trailer')).toEqual(['X-Sum']);
    const seen = seenAt(stage, target);
    expect(valuesOf(seen, 'te')).toEqual(['trailers']);
    expect(valuesOf(seen, 'connection').join(',').toLowerCase()).toContain('te');
    expect(await afterwards(client)).toBe('stays');
  });
});

const CHUNKED = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 7\r\n\r\n';

describe('versions', () => {
  test.each(['', 'Connection: keep-alive\r\n'])(
    'chunks come without chunks to an HTTP/1.0 client, until close (%j)',
    async (fields) => {
      const target = stage.at(answering(CHUNKED));
      using client = await stage.client();
      const answer = await client.ask(get(target, fields, '1.0'));
      expect([answer.framing, answer.body]).toEqual(['untilClose', 'hello world']);
      expect(names(answer)).not.toContain('transfer-encoding');
      expect(names(answer)).not.toContain('trailer');
      expect(client.ended).toBe('end');
    },
  );

  test('a response until close comes in chunks to an HTTP/1.1 client, and the connection stays', async () => {
    const target = stage.at(answering('HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello', 'end'));
    using client = await stage.client();
    const answer = await client.ask(get(target));
    expect([answer.framing, answer.body]).toEqual(['chunked', 'hello']);
    expect(await afterwards(client)).toBe('stays');
  });

  test('a response until close stays one to an HTTP/1.0 client', async () => {
    const target = stage.at(answering('HTTP/1.0 200 OK\r\n\r\nhello', 'end'));
    using client = await stage.client();
    const answer = await client.ask(get(target, 'Connection: keep-alive\r\n', '1.0'));
    expect([answer.framing, answer.body, client.ended]).toEqual(['untilClose', 'hello', 'end']);
  });

  test('a length stays one to an HTTP/1.0 client that stays', async () => {
    const target = stage.at(answering(OK));
    using client = await stage.client();
    const answer = await client.ask(get(target, 'Connection: keep-alive\r\n', '1.0'));
    expect([answer.framing, answer.body]).toEqual(['fixed', 'ok']);
    expect(await afterwards(client)).toBe('stays');
  });

  test('the endpoint is always spoken to in HTTP/1.1, the client always answered in it', async () => {
    const target = stage.at(answering('HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok', 'end'));
    using client = await stage.client();
    const answer = await client.ask(get(target, '', '1.0'));
    expect([answer.startLine, seenAt(stage, target).startLine]).toEqual(['HTTP/1.1 200 OK', `GET ${target} HTTP/1.1`]);
  });
});

describe('fields', () => {
  test('of the connection are not passed on to the endpoint', async () => {
    const target = stage.at(answering(OK));
    using client = await stage.client();
    await client.ask(
      get(
        target,
        'Connection: keep-alive, x-hop, X-Other\r\nX-Hop: 1\r\nx-other: 2\r\nX_Hop: 3\r\nKeep-Alive: timeout=1\r\nProxy-Connection: close\r\nProxy-Authorization: x\r\nTE: gzip\r\nUpgrade: foo\r\nX-Kept: 4\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nForwarded: for=1.2.3.4\r\nX-Ecluse-Host: evil\r\n',
      ),
    );
    const seen = seenAt(stage, target);
    for (const name of ['x-hop', 'x-other', 'keep-alive', 'proxy-connection', 'proxy-authorization', 'te', 'upgrade'])
      expect(names(seen)).not.toContain(name);
    expect(valuesOf(seen, 'x-kept')).toEqual(['4']);
    expect(valuesOf(seen, 'x-forwarded-for')).toEqual(['127.0.0.1']);
    expect(valuesOf(seen, 'x-forwarded-proto')).toEqual(['http']);
    expect(valuesOf(seen, 'x-ecluse-host')).toEqual(['alpha']);
    expect(valuesOf(seen, 'forwarded').join()).not.toContain('1.2.3.4');
  });

  test('of the connection are not passed on to the client', async () => {
    const target = stage.at(
      answering(
        'HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=1\r\nProxy-Connection: x\r\nProxy-Authenticate: x\r\nUpgrade: foo\r\nX-Kept: 4\r\nContent-Length: 2\r\n\r\nok',
      ),
    );
    using client = await stage.client();
    const answer = await client.ask(get(target));
    for (const name of ['x-hop', 'proxy-connection', 'proxy-authenticate', 'upgrade']) expect(names(answer)).not.toContain(name);
    expect(valuesOf(answer, 'keep-alive').join()).not.toContain('timeout=1,');
    expect(valuesOf(answer, 'x-kept')).toEqual(['4']);
    expect(await afterwards(client)).toBe('stays');
  });

  test('that are repeated keep their order, their case and their number', async () => {
    const lines = 'Set-Cookie: a=1\r\nX-a: 1\r\nset-cookie: b=2; c\r\nX-A:  2 \r\n';
    const target = stage.at(answering(`HTTP/1.1 200 OK\r\n${lines}Content-Length: 2\r\n\r\nok`));
    using client = await stage.client();
    const answer = await client.ask(get(target, 'Cookie: a\r\nX-b: 1\r\ncookie: b\r\nX-B: \xe9\r\n'));
    expect(answer.fields.slice(0, 4)).toEqual([
      ['Set-Cookie', 'a=1'],
      ['X-a', '1'],
      ['set-cookie', 'b=2; c'],
      ['X-A', '2'],
    ]);
    const wanted = new Set(['cookie', 'x-b']);
    expect(seenAt(stage, target).fields.filter(([name]) => wanted.has(name.toLowerCase()))).toEqual([
      ['Cookie', 'a'],
      ['X-b', '1'],
      ['cookie', 'b'],
      ['X-B', '\xe9'],
    ]);
  });

  test.each([
    ['is added where there is none', '', matching(/^\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$/)],
    ['stays as the endpoint has it', 'Date: Tue, 15 Nov 1994 08:12:31 GMT\r\n', 'Tue, 15 Nov 1994 08:12:31 GMT'],
  ])('Date %s', async (_what, line, wanted) => {
    const target = stage.at(answering(`HTTP/1.1 200 OK\r\n${line}Content-Length: 0\r\n\r\n`));
    using client = await stage.client();
    expect(valuesOf(await client.ask(get(target)), 'date')).toEqual([wanted]);
  });

  test('an absolute target gives the Host, and goes on in origin form', async () => {
    const target = stage.at(answering(OK));
    using client = await stage.client();
    await client.ask(`GET http://APP.test:80${target} HTTP/1.1\r\nHost: app.test\r\n\r\n`);
    expect(valuesOf(seenAt(stage, target), 'host').map((host) => host.toLowerCase())).toEqual(['app.test:80']);
  });

  test('OPTIONS * is about the server', async () => {
    using client = await stage.client();
    const answer = await client.ask(`OPTIONS * HTTP/1.1\r\n${H}X-Case: o\r\n\r\n`);
    expect(answer.body).toBe('o OPTIONS * 0');
    expect(await afterwards(client)).toBe('stays');
  });

  test('a response to HEAD, and a 304, say how long the body would be', async () => {
    const target = stage.at(answering('HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nContent-Length: 9\r\n\r\n'));
    const other = stage.at(answering('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n'));
    using client = await stage.client();
    const answers = [await client.ask(get(target)), await client.ask(`HEAD ${other} HTTP/1.1\r\n${H}\r\n`)];
    expect(answers.map((answer) => [valuesOf(answer, 'content-length'), answer.body])).toEqual([
      [['9'], ''],
      [['9'], ''],
    ]);
    expect(await afterwards(client)).toBe('stays');
  });

  test('an answer of the edge’s own has a length and says what happened', async () => {
    using client = await stage.client();
    const answer = await client.ask(`GET /x HTTP/1.1\r\n${H}X : 1\r\n\r\n`);
    expect([answer.status, answer.framing, names(answer).includes('date')]).toEqual([400, 'fixed', true]);
    expect(valuesOf(answer, 'proxy-status')).toEqual(['ecluse; error=http_request_error']);
    expect(await client.closed(SOON_MS), client.state).toBe(true);
  });
});

describe('connections to endpoints', () => {
  test('are used again', async () => {
    using client = await stage.client();
    expect(await afterwards(client)).toBe('stays');
    const before = stage.endpoint.connections();
    for (let count = 0; count < 50; count += 1) expect(await afterwards(client)).toBe('stays');
    expect(stage.endpoint.connections() - before).toBe(0);
    using other = await stage.client();
    expect(await afterwards(other)).toBe('stays');
    expect(stage.endpoint.connections() - before).toBe(0);
  });

  test.each([
    ['that say close', 'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok'],
    ['of HTTP/1.0', 'HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok'],
  ])('%s are not', async (_what, text) => {
    const target = stage.at(answering(text));
    using client = await stage.client();
    await client.ask(get(target));
    const used = stage.endpoint.seen.find(({ message }) => message.target === target)?.connection;
    expect(await afterwards(client)).toBe('stays');
    expect(used?.reader.messages.at(-1)?.target).toBe(target);
    await eventually(() => (used?.closed === true ? true : undefined));
  });
});
