/** Requests that do not wait for answers: each gets its own, in order, and a bad one ends the connection behind the answers before it. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { RawClient } from '../../support/raw-client.ts';
import { caseOf, echoOf } from '../../support/raw-endpoint.ts';
import type { SeenRequest } from '../../support/raw-endpoint.ts';
import { inLane, startLanes } from '../../support/raw-lanes.ts';
import type { Lane, Lanes } from '../../support/raw-lanes.ts';
import { isBetween, valuesOf } from '../../support/raw-message.ts';

const SLOW_MS = 60;

interface Part {
  readonly text: string;
  readonly method: string;
  readonly status: number;
  /** Absent: not looked at. */
  readonly body?: string;
}

interface Pipeline {
  readonly name: string;
  readonly parts: readonly Part[];
  /** How the last answer leaves the connection. */
  readonly after: 'stays' | 'closes';
  /** Written behind the parts: never answered. */
  readonly ignored: string;
}

const H = 'Host: a.test\r\n';
let ids = 0;

/** A request that the endpoint echoes. */
function part(
  method: string,
  target: string,
  more: { fields?: string; body?: string; version?: string; host?: string } = {},
): Part {
  ids += 1;
  const id = `p${String(ids)}`;
  const { fields = '', body = '', version = '1.1', host = H } = more;
  const payload = fields.includes('chunked') ? body.replace(/^[\da-f]+\r\n/, '').replace(/\r\n0\r\n\r\n$/, '') : body;
  return {
    text: `${method} ${target} HTTP/${version}\r\n${host}X-Case: ${id}\r\n${fields}\r\n${body}`,
    method,
    status: 200,
    body: method === 'HEAD' ? '' : `${id} ${method} ${target} ${String(payload.length)}`,
  };
}

const get = (target = '/g', fields = ''): Part => part('GET', target, { fields });
const post = (body: string): Part => part('POST', '/p', { fields: `Content-Length: ${String(body.length)}\r\n`, body });
const chunked = (body: string): Part =>
  part('POST', '/c', { fields: 'Transfer-Encoding: chunked\r\n', body: `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n` });
const plain = (status: number): Part => ({ ...part('GET', `/${String(status)}`), status, body: '' });
const refusedAs = (status: number, text: string): Part => ({ text, method: 'GET', status });
const times = <T>(count: number, make: (index: number) => T): T[] => Array.from({ length: count }, (_, index) => make(index));

function pipeline(name: string, parts: readonly Part[], after: Pipeline['after'] = 'stays', ignored = ''): Pipeline {
  return { name, parts, after, ignored };
}

const LAST = { fields: 'Connection: close\r\n' };
const BAD = refusedAs(400, `GET /bad HTTP/1.1\r\n${H}X : 1\r\n\r\n`);
const SMUGGLED = `GET /smuggled HTTP/1.1\r\n${H}\r\n`;
const OLD = { version: '1.0', fields: 'Connection: keep-alive\r\n' };

const PIPELINES: readonly Pipeline[] = [
  ...[2, 3, 10, 50].map((count) =>
    pipeline(
      `${String(count)} requests`,
      times(count, (index) => get(`/${String(index)}`)),
    ),
  ),
  pipeline(
    '50 with bodies of 4 KiB',
    times(50, (index) => post(String(index % 10).repeat(4096))),
  ),
  pipeline(
    '10 chunked',
    times(10, (index) => chunked(String(index).repeat(100))),
  ),
  pipeline('bodies and none', [
    get(),
    post('hello'),
    get(),
    chunked('hello'),
    get(),
    post(''),
    chunked(SMUGGLED),
    post(SMUGGLED),
    get(),
  ]),
  pipeline('an empty line between them', [get(), emptyLineFirst(), emptyLineFirst()]),
  pipeline('HEAD, 204 and 304 between others', [
    get(),
    part('HEAD', '/h'),
    plain(204),
    get(),
    plain(304),
    part('HEAD', '/h'),
    post('x'),
    plain(204),
  ]),
  pipeline('HEAD with a body', [part('HEAD', '/h', { fields: 'Content-Length: 5\r\n', body: 'hello' }), get()]),
  pipeline('the last one closes', [get(), get(), part('GET', '/l', LAST)], 'closes'),
  pipeline('what is behind the one that closes is not read', [get(), part('GET', '/l', LAST)], 'closes', SMUGGLED.repeat(3)),
  pipeline('garbage behind the one that closes is not read', [get(), part('GET', '/l', LAST)], 'closes', '\0garbage'),
  pipeline('a slow one first', [get('/slow'), get('/1'), get('/2'), get('/3')]),
  pipeline('slow ones between', [get('/1'), get('/slow'), post('hello'), get('/slow'), get('/2')]),
  pipeline('a slow one first, a bad one behind it', [get('/slow'), BAD], 'closes', SMUGGLED),
  pipeline('a bad one first', [BAD], 'closes', SMUGGLED),
  pipeline('a bad one in the middle', [get(), post('hello'), chunked('x'), BAD], 'closes', SMUGGLED.repeat(5)),
  pipeline('a bad one last', [...times(20, () => get()), BAD], 'closes'),
  pipeline(
    'a bad framing in the middle',
    [get(), refusedAs(400, `POST / HTTP/1.1\r\n${H}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n`)],
    'closes',
    SMUGGLED,
  ),
  pipeline(
    'a bad chunk in the middle',
    [get(), refusedAs(400, `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX`)],
    'closes',
    SMUGGLED,
  ),
  pipeline('TRACE in the middle', [get(), refusedAs(405, `TRACE / HTTP/1.1\r\n${H}\r\n`)], 'closes', SMUGGLED),
  pipeline('another version in the middle', [get(), refusedAs(505, `GET / HTTP/3.0\r\n${H}\r\n`)], 'closes', SMUGGLED),
  pipeline(
    'two hosts in turn',
    times(10, (index) => part('GET', `/${String(index)}`, index % 2 === 0 ? {} : { host: 'Host: b.test\r\n' })),
  ),
  pipeline('HTTP/1.0 with keep-alive', [
    ...times(3, () => part('GET', '/o', OLD)),
    part('POST', '/o', { ...OLD, fields: `${OLD.fields}Content-Length: 5\r\n`, body: 'hello' }),
  ]),
  pipeline(
    'HTTP/1.0 with keep-alive, then without',
    [part('GET', '/o', OLD), part('GET', '/o', { version: '1.0' })],
    'closes',
    SMUGGLED,
  ),
  pipeline('HTTP/1.0 without keep-alive', [part('GET', '/o', { version: '1.0' })], 'closes', SMUGGLED),
  pipeline('HTTP/1.0 and 1.1 in turn', [part('GET', '/o', OLD), get(), part('GET', '/o', OLD), get()]),
  pipeline('HTTP/1.0 with keep-alive, HEAD, 204 and 304', [
    part('HEAD', '/o', OLD),
    { ...part('GET', '/204', OLD), status: 204, body: '' },
    { ...part('GET', '/304', OLD), status: 304, body: '' },
    part('GET', '/o', OLD),
  ]),
];

function emptyLineFirst(): Part {
  const one = get();
  return { ...one, text: `\r\n${one.text}` };
}

function reply({ message, connection }: SeenRequest): void {
  const { socket } = connection;
  const send = (text: string): void => {
    if (socket.writable) socket.write(text, 'latin1');
  };
  if (message.target === '/204') send('HTTP/1.1 204 No Content\r\n\r\n');
  else if (message.target === '/304') send('HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n');
  else if (message.target === '/slow') setTimeout(send, SLOW_MS, echoOf(message));
  else send(echoOf(message));
}

let lanes: Lanes;

beforeAll(async () => {
  lanes = await startLanes({ onRequest: reply });
});

afterAll(async () => {
  await lanes[Symbol.asyncDispose]();
});

type How = 'one write' | 'split anywhere' | 'one by one, without waiting';

async function write(client: RawClient, row: Pipeline, lane: Lane, how: How): Promise<void> {
  const texts = [...row.parts.map(({ text }) => text), row.ignored].map((text) => inLane(text, lane));
  if (how === 'one write') client.send(texts.join(''));
  else if (how === 'split anywhere') {
    const all = texts.join('');
    const step = Math.max(7, Math.ceil(all.length / 60));
    for (let at = 0; at < all.length; at += step) {
      client.send(all.slice(at, at + step));
      await sleep(1);
    }
  } else for (const text of texts) client.send(text);
}

/** What is wrong with what came of `row`. */
async function faultsOf(row: Pipeline, how: How): Promise<string[]> {
  return await lanes.take(async (lane) => {
    using client = await RawClient.open({ port: lanes.httpPort });
    const faults: string[] = [];
    const before = lane.a.seen.length;
    client.expect(...row.parts.map(({ method }) => method));
    await write(client, row, lane, how);
    const answers = await client.answers(row.parts.length);
    for (const [index, { status, body }] of row.parts.entries()) {
      const answer = answers[index];
      if (answer?.status !== status || (body !== undefined && answer.body !== body))
        faults.push(`answer ${String(index)} is ${answer?.startLine ?? 'missing'} ${JSON.stringify(answer?.body)}`);
    }
    faults.push(...(await faultsOfEnd(row, client, lane)));
    if (!isBetween(client.reader)) faults.push('something is left');
    if (client.finals.length > row.parts.length + (row.after === 'closes' ? 0 : 1)) faults.push('an answer too many');
    const surplus = lane.a.seen.slice(before).filter(({ message }) => caseOf(message) === '');
    for (const { message } of surplus) faults.push(`the endpoint got ${message.startLine}`);
    return faults.length === 0 ? [] : [...faults, client.state];
  });
}

async function faultsOfEnd(row: Pipeline, client: RawClient, lane: Lane): Promise<string[]> {
  const last = client.finals.at(-1);
  if (last === undefined || client.over !== (client.ended !== 'no')) return ['nothing to go on with'];
  if (row.after === 'closes') {
    const said = valuesOf(last, 'connection').join().toLowerCase();
    const faults = said === 'close' ? [] : [`the last answer says ${JSON.stringify(said)} about the connection`];
    return (await client.closed()) ? faults : [...faults, 'the connection stays'];
  }
  if (client.ended !== 'no') return ['the connection closes'];
  const next = await client.ask(inLane(get('/next').text, lane));
  return /^p\d+ GET \/next 0$/.test(next.body) ? [] : [`the next answer is ${next.startLine} ${next.body}`];
}

describe.each(['one write', 'split anywhere', 'one by one, without waiting'] as const)('pipelined in %s', (how) => {
  test.concurrent.for(PIPELINES.map((row) => [row.name, row] as const))('%s', async ([, row]) => {
    const faults = await faultsOf(row, how);
    expect(faults, faults.join('\n')).toEqual([]);
  });
});

test('HTTP/1.0 clients are told that the connection stays', async () => {
  await lanes.take(async (lane) => {
    using client = await RawClient.open({ port: lanes.httpPort });
    const answer = await client.ask(inLane(part('GET', '/o', OLD).text, lane));
    expect(valuesOf(answer, 'connection').map((value) => value.toLowerCase())).toEqual(['keep-alive']);
  });
});

test('a request that comes in octets behind a slow one is answered behind it', async () => {
  await lanes.take(async (lane) => {
    using client = await RawClient.open({ port: lanes.httpPort });
    client.expect('GET', 'GET');
    client.send(inLane(get('/slow').text, lane));
    for (const octet of inLane(get('/next').text, lane)) {
      client.send(octet);
      await sleep(0);
    }
    const answers = await client.answers(2);
    expect(answers.map(({ body }) => body.split(' ')[2])).toEqual(['/slow', '/next']);
  });
});
