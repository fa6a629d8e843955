/** Whose word about clients counts: what goes on, and what is replaced. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { eventually } from '../../support/edge.ts';
import type { RawMessage } from '../../support/raw-message.ts';
import { valuesOf } from '../../support/raw-message.ts';
import { answering, seenAt, startStage } from '../../support/raw-scripted.ts';
import type { Stage } from '../../support/raw-scripted.ts';

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const OWN_ID = /^[\da-f]{24}$/;

interface Seen {
  /** What the endpoint got. */
  readonly request: RawMessage;
  /** `client` and `requestId` of the access log. */
  readonly client: string;
  readonly requestId: string;
}

async function send(stage: Stage, fields: string, version = '1.1'): Promise<Seen> {
  const target = stage.at(answering(OK));
  using client = await stage.client();
  const answer = await client.ask(`GET ${target} HTTP/${version}\r\nHost: app.test\r\n${fields}\r\n`);
  expect(answer.status, client.state).toBe(200);
  const line = await eventually(async () => (await stage.edge.accessLog(0)).find(({ path }) => path === target));
  return { request: seenAt(stage, target), client: line.client, requestId: line.requestId };
}

/** The members of a list that may be spread over several fields. */
function members(request: RawMessage, name: string): string[] {
  return valuesOf(request, name).flatMap((value) => value.split(',').map((member) => member.trim()));
}

describe.concurrent('a client that is not trusted', () => {
  let stage: Stage;

  beforeAll(async () => {
    stage = await startStage({ trust: { trustedProxies: ['192.0.2.1', '10.0.0.0/8'], proxyProtocol: false } });
  });

  afterAll(async () => {
    await stage[Symbol.asyncDispose]();
  });

  test('says nothing of where a request comes from: that is ours, once', async () => {
    const { request, client } = await send(
      stage,
      'X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.test\r\nX-Forwarded-Port: 1\r\n' +
        'X_Forwarded_For: 198.51.100.2\r\nForwarded: for=198.51.100.1;proto=https\r\nX-Real-IP: 198.51.100.1\r\nX-Ecluse-Host: evil\r\n',
    );
    const names = ['x-forwarded-for', 'x-forwarded-proto', 'x-forwarded-host', 'x-ecluse-host', 'forwarded'];
    expect(names.map((name) => valuesOf(request, name))).toEqual([
      ['127.0.0.1'],
      ['http'],
      ['app.test'],
      ['alpha'],
      ['for=127.0.0.1;proto=http;host="app.test"'],
    ]);
    for (const name of ['x-forwarded-port', 'x_forwarded_for', 'x-real-ip']) expect(valuesOf(request, name)).toEqual([]);
    expect(client).toBe('127.0.0.1');
  });

  test('cannot have these fields taken away by nominating them', async () => {
    const { request } = await send(stage, 'Connection: X-Forwarded-For, X-Request-Id, Forwarded, X-Forwarded-Proto\r\n');
    expect(
      ['x-forwarded-for', 'forwarded', 'x-forwarded-proto', 'x-request-id'].map((name) => valuesOf(request, name).length),
    ).toEqual([1, 1, 1, 1]);
  });

  test('gets an id of ours, whatever it sends', async () => {
    const { request, requestId } = await send(stage, 'X-Request-Id: mine\r\nX_Request_Id: mine\r\n');
    expect(requestId).toMatch(OWN_ID);
    expect(valuesOf(request, 'x-request-id')).toEqual([requestId]);
    expect(valuesOf(request, 'x_request_id')).toEqual([]);
  });

  test('finds the id in answers of the edge', async () => {
    using client = await stage.client();
    const answer = await client.ask('GET /nowhere HTTP/1.1\r\nHost: unknown.test\r\nX-Request-Id: mine\r\n\r\n');
    expect(answer.status).toBe(404);
    const [id] = valuesOf(answer, 'x-request-id');
    const line = await eventually(async () => (await stage.edge.accessLog(0)).find(({ path }) => path === '/nowhere'));
    expect(id).toMatch(OWN_ID);
    expect(line.requestId).toBe(id);
  });
});

describe.concurrent('a trusted proxy', () => {
  let stage: Stage;

  beforeAll(async () => {
    stage = await startStage({ trust: { trustedProxies: ['127.0.0.1', '10.0.0.0/8', '2001:db8::/32'], proxyProtocol: false } });
  });

  afterAll(async () => {
    await stage[Symbol.asyncDispose]();
  });

  test('has its chain kept and continued', async () => {
    const { request, client } = await send(
      stage,
      'X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.test\r\nForwarded: for=198.51.100.1;proto=https\r\n',
    );
    expect(members(request, 'x-forwarded-for')).toEqual(['198.51.100.1', '127.0.0.1']);
    expect(valuesOf(request, 'x-forwarded-proto')).toEqual(['https']);
    expect(valuesOf(request, 'x-forwarded-host')).toEqual(['shop.test']);
    expect(members(request, 'forwarded')).toEqual(['for=198.51.100.1;proto=https', 'for=127.0.0.1;proto=http;host="app.test"']);
    expect(client).toBe('198.51.100.1');
  });

  test('that says nothing is the client', async () => {
    const { request, client } = await send(stage, '');
    expect(
      ['x-forwarded-for', 'x-forwarded-proto', 'x-forwarded-host', 'forwarded'].map((name) => valuesOf(request, name)),
    ).toEqual([['127.0.0.1'], ['http'], ['app.test'], ['for=127.0.0.1;proto=http;host="app.test"']]);
    expect(client).toBe('127.0.0.1');
  });

  test('may spread a chain over several fields, in their order', async () => {
    const { request, client } = await send(
      stage,
      'X-Forwarded-For: 203.0.113.7, 198.51.100.1\r\nX-A: b\r\nX-Forwarded-For: 10.1.2.3\r\n',
    );
    expect(members(request, 'x-forwarded-for')).toEqual(['203.0.113.7', '198.51.100.1', '10.1.2.3', '127.0.0.1']);
    expect(client).toBe('198.51.100.1');
  });

  test.each([
    ['what stands left of a stranger is not believed', '192.168.0.1, 198.51.100.1', '198.51.100.1'],
    ['those that are trusted are passed over', '198.51.100.1, 10.0.0.1, 10.0.0.2', '198.51.100.1'],
    ['IPv6, with brackets and port', '[2001:DB9:0::1]:443, 2001:db8::2', '2001:db9::1'],
    ['what is no address ends the walk', '198.51.100.1, unknown', '127.0.0.1'],
    ['an empty chain', '', '127.0.0.1'],
  ])('%s', async (_name, chain, expected) => {
    expect((await send(stage, `X-Forwarded-For: ${chain}\r\n`)).client).toBe(expected);
  });

  test('has its id taken over, for the endpoint and the log', async () => {
    const { request, requestId } = await send(stage, 'X-Request-Id: a1-B2_c3/4==\r\n');
    expect(requestId).toBe('a1-B2_c3/4==');
    expect(valuesOf(request, 'x-request-id')).toEqual(['a1-B2_c3/4==']);
  });

  test('has its id in answers of the edge', async () => {
    using client = await stage.client();
    const answer = await client.ask('GET /nobody HTTP/1.1\r\nHost: unknown.test\r\nX-Request-Id: told-by-proxy\r\n\r\n');
    expect(valuesOf(answer, 'x-request-id')).toEqual(['told-by-proxy']);
  });

  test.each([
    ['with a space', 'X-Request-Id: a b\r\n'],
    ['with a quote', 'X-Request-Id: a"b\r\n'],
    ['with octets above ASCII', 'X-Request-Id: a\xe9b\r\n'],
    ['that is empty', 'X-Request-Id:\r\n'],
    ['that is too long', `X-Request-Id: ${'a'.repeat(129)}\r\n`],
    ['that is there twice', 'X-Request-Id: a\r\nX-Request-Id: a\r\n'],
  ])('gets an id of ours for one %s', async (_name, fields) => {
    const { request, requestId } = await send(stage, fields);
    expect(requestId).toMatch(OWN_ID);
    expect(valuesOf(request, 'x-request-id')).toEqual([requestId]);
  });

  test('is not believed about the host of the endpoint', async () => {
    expect(valuesOf((await send(stage, 'X-Ecluse-Host: evil\r\n')).request, 'x-ecluse-host')).toEqual(['alpha']);
  });

  test('is believed anew for each request of its connection', async () => {
    const target = stage.at(answering(OK));
    using client = await stage.client();
    for (const address of ['198.51.100.1', '198.51.100.2']) {
      const answer = await client.ask(
        `GET ${target} HTTP/1.1\r\nHost: app.test\r\nX-Forwarded-For: ${address}\r\nX-Request-Id: of-${address}\r\n\r\n`,
      );
      expect(answer.status).toBe(200);
    }
    await client.ask(`GET ${target} HTTP/1.1\r\nHost: app.test\r\n\r\n`);
    const lines = await eventually(async () => {
      const found = (await stage.edge.accessLog(0)).filter(({ path }) => path === target);
      return found.length === 3 ? found : undefined;
    });
    expect(lines.map((line) => line.client)).toEqual(['198.51.100.1', '198.51.100.2', '127.0.0.1']);
    expect(lines.slice(0, 2).map(({ requestId }) => requestId)).toEqual(['of-198.51.100.1', 'of-198.51.100.2']);
    expect(lines[2]?.requestId).toMatch(OWN_ID);
  });
});
