/** What one tenant may hold of a worker, and that another one does not notice. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { EDGE_LIMITS } from '#proxy/edge-limits.ts';
import type { BudgetLimits } from '#proxy/budget.ts';
import type { RouteConfig } from '#routing/route-table.ts';
import { eventually, startEdge } from '../../support/edge.ts';
import type { Edge } from '../../support/edge.ts';
import { RawClient } from '../../support/raw-client.ts';
import { startRawEndpoint } from '../../support/raw-endpoint.ts';
import type { EndpointConnection, RawEndpoint } from '../../support/raw-endpoint.ts';
import { valuesOf } from '../../support/raw-message.ts';
import type { RawMessage } from '../../support/raw-message.ts';
import { pour, write } from '../../support/raw-scripted.ts';

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const GIB = 1024 ** 3;
const SWITCH = 'Connection: Upgrade\r\nUpgrade: echo\r\n';

const get = (target: string, tenant = 'acme', fields = ''): string =>
  `GET ${target} HTTP/1.1\r\nHost: ${tenant}.test\r\n${fields}\r\n`;

/** One edge and endpoint for two tenants. `/wait` is answered when `release` is called, `/pour` without end, `/switch` with 101. */
class Scene implements AsyncDisposable {
  readonly edge: Edge;
  readonly endpoint: RawEndpoint;
  readonly waiting: EndpointConnection[];
  readonly #parts: AsyncDisposableStack;

  private constructor(edge: Edge, endpoint: RawEndpoint, waiting: EndpointConnection[], parts: AsyncDisposableStack) {
    this.edge = edge;
    this.endpoint = endpoint;
    this.waiting = waiting;
    this.#parts = parts;
  }

  static async open(tenant: Partial<BudgetLimits>): Promise<Scene> {
    await using stack = new AsyncDisposableStack();
    const waiting: EndpointConnection[] = [];
    const endpoint = stack.use(
      await startRawEndpoint({
        onRequest: ({ message, connection }) => {
          if (message.target === '/wait') waiting.push(connection);
          else if (message.target === '/switch')
            write(connection, 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n');
          else if (message.target === '/pour') {
            write(connection, `HTTP/1.1 200 OK\r\nContent-Length: ${String(GIB)}\r\n\r\n`);
            void pour(connection.socket, GIB).done;
          } else write(connection, OK);
        },
      }),
    );
    const config: RouteConfig = {
      version: 1,
      services: ['acme', 'other'].map((name) => ({
        id: name,
        tenant: name,
        endpoints: [endpoint.endpoint({ id: `of-${name}` })],
      })),
      routes: ['acme', 'other'].map((name) => ({ host: `${name}.test`, path: '/', serviceId: name })),
    };
    const edge = stack.use(await startEdge({ config, limits: { tenant: { ...EDGE_LIMITS.tenant, ...tenant } } }));
    return new Scene(edge, endpoint, waiting, stack.move());
  }

  async client(): Promise<RawClient> {
    return await RawClient.open({ port: this.edge.httpPort });
  }

  /** One request on a connection of its own. */
  async ask(target: string, tenant = 'acme', fields = ''): Promise<RawMessage> {
    using client = await this.client();
    return await client.ask(get(target, tenant, fields));
  }

  /** A client whose request is at the endpoint and waits there. */
  async waits(tenant = 'acme'): Promise<RawClient> {
    const count = this.waiting.length;
    const client = await this.client();
    client.expect('GET');
    client.send(get('/wait', tenant));
    await eventually(() => (this.waiting.length > count ? true : undefined));
    return client;
  }

  release(): void {
    for (const connection of this.waiting.splice(0)) write(connection, OK);
  }

  async refusals(kind: string, tenant = 'acme'): Promise<number> {
    const line = `ecluse_budget_refusals_total{tenant="${tenant}",kind="${kind}"} `;
    const text = await this.edge.pool.metrics();
    return Number(
      text
        .split('\n')
        .find((each) => each.startsWith(line))
        ?.slice(line.length) ?? 0,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#parts[Symbol.asyncDispose]();
  }
}

function expectBusy(answer: RawMessage): void {
  expect([answer.status, valuesOf(answer, 'proxy-status'), valuesOf(answer, 'retry-after')]).toEqual([
    503,
    ['ecluse; error=connection_limit_reached'],
    ['1'],
  ]);
}

describe('exchanges', () => {
  let scene: Scene;

  beforeAll(async () => {
    scene = await Scene.open({ exchanges: 2 });
  });

  afterAll(async () => {
    await scene[Symbol.asyncDispose]();
  });

  beforeEach(() => {
    scene.release();
  });

  test('above the limit are refused with 503, those of others are not', async () => {
    using one = await scene.waits();
    using two = await scene.waits();
    expectBusy(await scene.ask('/'));
    expect((await scene.ask('/', 'other')).status).toBe(200);
    expect(await scene.refusals('exchanges')).toBe(1);
    expect(await scene.refusals('exchanges', 'other')).toBe(0);
    const line = await eventually(async () =>
      (await scene.edge.accessLog(0)).find(({ errorCode }) => errorCode === 'tenant-busy'),
    );
    expect(line).toMatchObject({ status: 503, tenant: 'acme', endpoint: null });
    scene.release();
    expect([(await one.answers(1))[0]?.status, (await two.answers(1))[0]?.status]).toEqual([200, 200]);
    expect((await scene.ask('/')).status).toBe(200);
  });

  test('that a client gives up make room', async () => {
    for (let round = 0; round < 5; round += 1) {
      using one = await scene.waits();
      using two = await scene.waits();
      expect([one.finals, two.finals]).toEqual([[], []]);
      one.socket.resetAndDestroy();
      two.socket.resetAndDestroy();
      await eventually(() => (scene.waiting.every(({ closed }) => closed) ? true : undefined));
      scene.waiting.splice(0);
    }
    expect((await scene.ask('/')).status).toBe(200);
  });

  test('refused on a connection leave it open, with a place for the next request', async () => {
    using one = await scene.waits();
    using two = await scene.waits();
    using third = await scene.client();
    expectBusy(await third.ask(get('/')));
    scene.release();
    await Promise.all([one.answers(1), two.answers(1)]);
    expect((await third.ask(get('/'))).status).toBe(200);
  });
});

describe('connections', () => {
  let scene: Scene;

  beforeAll(async () => {
    scene = await Scene.open({ connections: 2 });
  });

  afterAll(async () => {
    await scene[Symbol.asyncDispose]();
  });

  test('above the limit are refused with 503, those of others are not; a closed one makes room', async () => {
    using one = await scene.client();
    using two = await scene.client();
    expect([(await one.ask(get('/'))).status, (await two.ask(get('/'))).status]).toEqual([200, 200]);
    expectBusy(await scene.ask('/'));
    expect((await scene.ask('/', 'other')).status).toBe(200);
    expect((await one.ask(get('/'))).status).toBe(200);
    expect(await scene.refusals('connections')).toBe(1);
    one.socket.destroy();
    await eventually(async () => ((await scene.ask('/')).status === 200 ? true : undefined));
  });

  test('count for the tenant of their last request', async () => {
    using one = await scene.client();
    using two = await scene.client();
    await eventually(async () => ((await one.ask(get('/'))).status === 200 ? true : undefined));
    await eventually(async () => ((await two.ask(get('/'))).status === 200 ? true : undefined));
    expectBusy(await scene.ask('/'));
    expect((await one.ask(get('/', 'other'))).status).toBe(200);
    expect((await scene.ask('/')).status).toBe(200);
  });
});

test('held requests above the limit are refused with 503; those of others wait', async () => {
  await using scene = await Scene.open({ heldRequests: 1 });
  const frozen = ['of-acme', 'of-other'];
  await scene.edge.pool.freeze(frozen, { deadlineMs: 10_000, drainMs: 100 });
  using first = await scene.client();
  using second = await scene.client();
  using other = await scene.client();
  for (const client of [first, second, other]) client.expect('GET');
  first.send(get('/'));
  await sleep(50);
  second.send(get('/'));
  const [refused] = await second.answers(1);
  expect([refused?.status, valuesOf(refused ?? { fields: [] }, 'proxy-status')]).toEqual([
    503,
    ['ecluse; error=destination_unavailable'],
  ]);
  other.send(get('/', 'other'));
  await sleep(50);
  expect([first.finals, other.finals]).toEqual([[], []]);
  expect([await scene.refusals('heldRequests'), await scene.refusals('heldRequests', 'other')]).toEqual([1, 0]);
  await scene.edge.pool.thaw(frozen);
  expect([(await first.answers(1))[0]?.status, (await other.answers(1))[0]?.status]).toEqual([200, 200]);
  const lines = await scene.edge.accessLog(3);
  expect(lines.filter(({ errorCode }) => errorCode !== null)).toMatchObject([
    { errorCode: 'hold-full', status: 503, tenant: 'acme' },
  ]);
  await scene.edge.pool.freeze(frozen, { deadlineMs: 10_000, drainMs: 100 });
  using again = await scene.client();
  again.expect('GET');
  again.send(get('/'));
  await sleep(50);
  again.socket.resetAndDestroy();
  await sleep(50);
  using last = await scene.client();
  last.expect('GET');
  last.send(get('/'));
  await sleep(50);
  await scene.edge.pool.thaw(frozen);
  expect((await last.answers(1))[0]?.status, last.state).toBe(200);
});

test('held requests above the limit of bytes are refused with 503, and bytes are given back', async () => {
  await using scene = await Scene.open({ heldBytes: 8_000 });
  const frozen = ['of-acme'];
  for (let round = 0; round < 2; round += 1) {
    await scene.edge.pool.freeze(frozen, { deadlineMs: 60_000, drainMs: 100 });
    using first = await scene.client();
    using second = await scene.client();
    for (const client of [first, second]) client.expect('POST');
    first.send(`POST / HTTP/1.1\r\nHost: acme.test\r\nContent-Length: 6000\r\n\r\n${'x'.repeat(6_000)}`);
    await eventually(async () => ((await scene.edge.pool.metrics()).includes('\necluse_held_requests 1\n') ? true : undefined));
    second.send(`POST / HTTP/1.1\r\nHost: acme.test\r\nContent-Length: 3000\r\n\r\n${'x'.repeat(3_000)}`);
    expect((await second.answers(1))[0]?.status).toBe(503);
    expect(await scene.refusals('heldBytes')).toBe(round + 1);
    await scene.edge.pool.thaw(frozen);
    expect((await first.answers(1))[0]?.status).toBe(200);
  }
});

test('upgraded streams above the limit are refused with 503; those of others are not', async () => {
  await using scene = await Scene.open({ upgradedStreams: 1 });
  const upgraded = async (tenant: string): Promise<RawClient> => {
    const client = await scene.client();
    client.expect('GET');
    client.send(get('/switch', tenant, SWITCH));
    await client.answers(1);
    return client;
  };
  using one = await upgraded('acme');
  expect(one.finals[0]?.status).toBe(101);
  using other = await upgraded('other');
  expect(other.finals[0]?.status).toBe(101);
  using two = await upgraded('acme');
  expect(two.finals[0]?.status).toBe(503);
  expect(await scene.refusals('upgradedStreams')).toBe(1);
  one.socket.destroy();
  await eventually(async () => {
    using next = await upgraded('acme');
    return next.finals[0]?.status === 101 ? true : undefined;
  });
});

test('bytes that a client does not take are limited: it is cut, and nobody else', async () => {
  await using scene = await Scene.open({ bufferedBytes: 1_000 });
  using slow = await scene.client();
  slow.socket.pause();
  slow.send(get('/pour'));
  const line = await eventually(async () => (await scene.edge.accessLog(0)).find(({ path }) => path === '/pour'));
  expect(line).toMatchObject({ status: 200, errorCode: 'tenant-busy', tenant: 'acme' });
  expect(await scene.refusals('bufferedBytes')).toBeGreaterThan(0);
  expect([(await scene.ask('/')).status, (await scene.ask('/', 'other')).status]).toEqual([200, 200]);
});

test('bytes that a client takes in the end are given back', async () => {
  await using scene = await Scene.open({ bufferedBytes: 1024 * 1024 });
  // More slow readers, one after the other, than the budget would bear at once.
  for (let round = 0; round < 30; round += 1) {
    using slow = await scene.client();
    slow.socket.pause();
    slow.send(get('/pour'));
    await sleep(60);
    slow.socket.resume();
    await slow.until(() => slow.text.length > 0);
    slow.socket.resetAndDestroy();
  }
  expect(await scene.refusals('bufferedBytes')).toBe(0);
});
