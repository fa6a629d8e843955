/** Which endpoint of an operator's service takes a request, through real workers. */
import type { ServerResponse } from 'node:http';
import { describe, expect, test } from 'vitest';
import { startEdge } from '../../support/edge.ts';
import { ask } from '../../support/http-client.ts';
import type { Ask } from '../../support/http-client.ts';
import { serviceConfig } from '../../support/operator-edge.ts';
import { startUpstream } from '../../support/upstream.ts';
import type { HttpUpstream } from '../../support/upstream.ts';

async function startNamed(stack: AsyncDisposableStack, names: readonly string[]): Promise<readonly HttpUpstream[]> {
  return await Promise.all(names.map(async (name) => stack.use(await startUpstream((_request, response) => response.end(name)))));
}

/** Who answered, one request after the other. */
async function answersOf(asks: readonly Ask[]): Promise<string> {
  let text = '';
  for (const one of asks) text += (await ask(one)).body.toString();
  return text;
}

function count(text: string, name: string): number {
  return text.split(name).length - 1;
}

describe('balance', () => {
  test('round-robin gives endpoints their shares, and a drained one nothing', async () => {
    await using stack = new AsyncDisposableStack();
    const [a, b, c] = await startNamed(stack, ['a', 'b', 'c']);
    const ports = [a?.port ?? 0, b?.port ?? 0, c?.port ?? 0] as const;
    const weighted = serviceConfig(
      [
        [ports[0], 1],
        [ports[1], 3],
        [ports[2], 0],
      ],
      { balance: 'round-robin' },
    );
    const edge = stack.use(await startEdge({ config: weighted }));
    const asks = Array.from({ length: 12 }, () => ({ port: edge.httpPort }));
    const text = await answersOf(asks);
    expect([count(text, 'a'), count(text, 'b'), count(text, 'c')]).toEqual([3, 9, 0]);
    await edge.apply(serviceConfig([[ports[0], 0], ports[1], ports[2]], {}, 2), []);
    const drained = await answersOf(asks);
    expect([count(drained, 'a'), count(drained, 'b'), count(drained, 'c')]).toEqual([0, 6, 6]);
  });

  test('a drained endpoint ends what it has', async () => {
    await using stack = new AsyncDisposableStack();
    const held = Promise.withResolvers<ServerResponse>();
    const slow = stack.use(
      await startUpstream((_request, response) => {
        held.resolve(response);
      }),
    );
    const [other] = await startNamed(stack, ['b']);
    const edge = stack.use(await startEdge({ config: serviceConfig([slow.port]) }));
    const first = ask({ port: edge.httpPort });
    const response = await held.promise;
    await edge.apply(serviceConfig([[slow.port, 0], other?.port ?? 0], {}, 2), []);
    expect((await ask({ port: edge.httpPort })).body.toString()).toBe('b');
    response.end('a');
    expect((await first).body.toString()).toBe('a');
  });

  test('least-request by weight fills endpoints in the shares of their weights', async () => {
    await using stack = new AsyncDisposableStack();
    const waiting: [ServerResponse[], ServerResponse[]] = [[], []];
    const full = Promise.withResolvers<undefined>();
    const take = (list: ServerResponse[]) => async () =>
      await startUpstream((_request, response) => {
        list.push(response);
        if (waiting[0].length + waiting[1].length === 12) full.resolve(undefined);
      });
    const one = stack.use(await take(waiting[0])());
    const other = stack.use(await take(waiting[1])());
    const edge = stack.use(
      await startEdge({
        config: serviceConfig([
          [one.port, 1],
          [other.port, 2],
        ]),
      }),
    );
    const answers = Array.from({ length: 12 }, async () => await ask({ port: edge.httpPort }));
    await full.promise;
    expect([waiting[0].length, waiting[1].length]).toEqual([4, 8]);
    for (const response of waiting.flat()) response.end();
    await Promise.all(answers);
  });

  test('hash(cookie:…) keeps a client at its endpoint, in every worker, and others where they are when one goes', async () => {
    await using stack = new AsyncDisposableStack();
    const upstreams = await startNamed(stack, ['a', 'b', 'c', 'd']);
    const ports = upstreams.map(({ port }) => port);
    const wishes = { balance: 'hash(cookie:sid)' };
    const edge = stack.use(await startEdge({ config: serviceConfig(ports, wishes), workers: 2 }));
    const asks = Array.from({ length: 24 }, (_, user) => ({
      port: edge.httpPort,
      headers: { cookie: `theme=dark; sid=user-${String(user)}` },
    }));
    const first = await answersOf(asks);
    expect(new Set(first).size).toBe(4);
    expect([await answersOf(asks), await answersOf(asks)]).toEqual([first, first]);
    await edge.apply(serviceConfig(ports.slice(0, 3), wishes, 2), []);
    const then = await answersOf(asks);
    expect(then).not.toContain('d');
    expect(then.split('').filter((name, index) => first[index] !== 'd' && name !== first[index])).toEqual([]);
  });

  test('hash(header:…) without that field is least-request', async () => {
    await using stack = new AsyncDisposableStack();
    const [a, b] = await startNamed(stack, ['a', 'b']);
    const config = serviceConfig([a?.port ?? 0, b?.port ?? 0], { balance: 'hash(header:x-user)' });
    const edge = stack.use(await startEdge({ config }));
    const text = await answersOf(Array.from({ length: 6 }, () => ({ port: edge.httpPort })));
    expect([count(text, 'a'), count(text, 'b')]).toEqual([3, 3]);
    const named = await answersOf(Array.from({ length: 6 }, () => ({ port: edge.httpPort, headers: { 'X-User': 'ann' } })));
    expect(new Set(named).size).toBe(1);
  });

  test('hash(ip) takes the address that a trusted proxy tells', async () => {
    await using stack = new AsyncDisposableStack();
    const [a, b, c] = await startNamed(stack, ['a', 'b', 'c']);
    const config = serviceConfig([a?.port ?? 0, b?.port ?? 0, c?.port ?? 0], { balance: 'hash(ip)' });
    const trust = { trustedProxies: ['127.0.0.1'], proxyProtocol: false };
    const edge = stack.use(await startEdge({ config, trust }));
    const from = (address: string): Ask => ({ port: edge.httpPort, headers: { 'x-forwarded-for': address } });
    const asks = Array.from({ length: 16 }, (_, index) => from(`192.0.2.${String(index)}`));
    const first = await answersOf(asks);
    expect(new Set(first).size).toBe(3);
    expect(await answersOf(asks)).toBe(first);
  });

  test('a request whose endpoint is gone goes to another, which its key then has', async () => {
    await using stack = new AsyncDisposableStack();
    const [a, b, gone] = await startNamed(stack, ['a', 'b', 'c']);
    await gone?.[Symbol.asyncDispose]();
    const config = serviceConfig([a?.port ?? 0, b?.port ?? 0, gone?.port ?? 0], { balance: 'hash(header:x-user)' });
    const edge = stack.use(await startEdge({ config }));
    const asks = Array.from({ length: 12 }, (_, user) => ({ port: edge.httpPort, headers: { 'x-user': String(user) } }));
    const first = await answersOf(asks);
    expect(first).toMatch(/^[ab]{12}$/);
    expect(await answersOf(asks)).toBe(first);
  });
});
