/**
 * An endpoint that dies at every octet of its response, in random order: no request hangs, no part of a body is passed off as the whole, no request is
 * sent twice that may not be.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ATTEMPTS_MAX } from '#proxy/limits.ts';
import { configOf, startEdge } from '../../support/edge.ts';
import type { Edge } from '../../support/edge.ts';
import { RawClient } from '../../support/raw-client.ts';
import { caseOf, startRawEndpoint } from '../../support/raw-endpoint.ts';
import type { EndpointConnection, RawEndpoint } from '../../support/raw-endpoint.ts';
import { valuesOf } from '../../support/raw-message.ts';
import { PAYLOAD, REQUEST_BODY, dyingPlans, hasBody, headLength, responseOf } from '../../support/raw-plans.ts';
import type { DyingPlan } from '../../support/raw-plans.ts';

const REQUESTS = 1_000;
const CONCURRENT = 16;
/** For one request, from its first octet to the end of its answer. */
const LIMIT_MS = 5_000;
const SEED = 20_260_101;

const plans = dyingPlans(REQUESTS, SEED);
const byId = new Map(plans.map((plan) => [plan.id, plan]));
/** How often the head of each request reached the endpoint. */
const heads = new Map<string, number>();

let endpoint: RawEndpoint;
let edge: Edge;

function die(plan: DyingPlan, { socket }: EndpointConnection): void {
  const ended = (): void => {
    if (plan.end === 'reset') socket.resetAndDestroy();
    else if (plan.end === 'fin') socket.end();
  };
  const part = responseOf(plan).slice(0, plan.octets);
  if (part === '') ended();
  else socket.write(part, 'latin1', ended);
}

beforeAll(async () => {
  endpoint = await startRawEndpoint({
    onHead: (head, connection) => {
      // What crosses the end of its connection reaches nobody.
      if (!connection.socket.writable) return;
      const id = caseOf(head);
      heads.set(id, (heads.get(id) ?? 0) + 1);
      const plan = byId.get(id);
      if (plan?.at === 'head') die(plan, connection);
    },
    onRequest: ({ message, connection }) => {
      const plan = byId.get(caseOf(message));
      if (plan?.at === 'whole' && connection.socket.writable) die(plan, connection);
    },
  });
  edge = await startEdge({ config: configOf([endpoint.endpoint()]) });
});

afterAll(async () => {
  await edge[Symbol.asyncDispose]();
  await endpoint[Symbol.asyncDispose]();
});

/** A body is not kept: where the end of an idle connection crosses it, it cannot be sent again. */
function mayBeLost(plan: DyingPlan): boolean {
  return hasBody(plan.method) && !heads.has(plan.id);
}

/** What is wrong with the answer; undefined where nothing is. */
function faultOf(plan: DyingPlan, client: RawClient, earlier: number): string | undefined {
  const { reader } = client;
  const [answer, ...more] = client.finals.slice(earlier);
  if (reader.fault !== undefined) return `malformed: ${client.state}`;
  if (more.length > 0) return `answers too many: ${client.state}`;
  const whole = responseOf(plan).length;
  if (answer === undefined) {
    if (client.ended === 'no') return `hangs: ${client.state}`;
    return plan.octets >= headLength(plan.framing) ? undefined : `cut, though nothing was sent on yet: ${client.state}`;
  }
  if (answer.status !== 200) {
    const own = answer.status === 502 && valuesOf(answer, 'proxy-status').length === 1;
    if ((plan.end === 'stay' && !mayBeLost(plan)) || !own) return `unexpected: ${client.state}`;
    return undefined;
  }
  if (plan.octets < headLength(plan.framing)) return `200 from a part of a head: ${client.state}`;
  const wanted = plan.method === 'HEAD' ? '' : PAYLOAD;
  if (answer.body === wanted && (plan.octets >= whole || plan.framing === 'untilClose')) return undefined;
  // Without framing an end is the end: only a reset tells that something is missing.
  const legitimate = plan.framing === 'untilClose' && plan.end === 'fin' && answer.body === wanted.slice(0, answer.body.length);
  return legitimate ? undefined : `a part passed off as the whole: ${JSON.stringify(plan)}: ${client.state}`;
}

/** Sends a request on `client` and judges what comes. */
async function run(plan: DyingPlan, client: RawClient): Promise<string | undefined> {
  const earlier = client.finals.length;
  const body = hasBody(plan.method) ? REQUEST_BODY : '';
  const length = body === '' ? '' : `Content-Length: ${String(body.length)}\r\n`;
  client.expect(plan.method);
  client.send(`${plan.method} /${plan.id} HTTP/1.1\r\nHost: app.test\r\nX-Case: ${plan.id}\r\n${length}\r\n${body}`);
  await client.answers(earlier + 1, LIMIT_MS);
  return faultOf(plan, client, earlier);
}

async function worker(queue: DyingPlan[], faults: string[]): Promise<void> {
  let client: RawClient | undefined;
  for (let plan = queue.pop(); plan !== undefined; plan = queue.pop()) {
    client ??= await RawClient.open({ port: edge.httpPort });
    const fault = await run(plan, client);
    if (fault !== undefined) faults.push(`${JSON.stringify(plan)}: ${fault}`);
    const last = client.finals.at(-1);
    const closes = last === undefined || valuesOf(last, 'connection').some((value) => value.toLowerCase() === 'close');
    if (closes || client.ended !== 'no' || fault !== undefined) {
      client[Symbol.dispose]();
      client = undefined;
    }
  }
  client?.[Symbol.dispose]();
}

test(`${String(REQUESTS)} requests to an endpoint that dies at every octet (seed ${String(SEED)})`, async () => {
  const queue = [...plans];
  const faults: string[] = [];
  await Promise.all(Array.from({ length: CONCURRENT }, async () => await worker(queue, faults)));
  expect(faults, `${String(faults.length)} faults:\n${faults.slice(0, 5).join('\n')}`).toEqual([]);
}, 60_000);

test('each of them reached the endpoint, and again only where that is safe', () => {
  const lost = plans.filter(mayBeLost);
  const faults = plans.flatMap((plan) => {
    const count = heads.get(plan.id) ?? 0;
    // Sent again: without a body, idempotent, and before an octet of the answer.
    const mayRepeat = plan.octets === 0 && !hasBody(plan.method);
    const most = mayRepeat ? ATTEMPTS_MAX : 1;
    return (count >= 1 || lost.includes(plan)) && count <= most ? [] : [`${JSON.stringify(plan)} came ${String(count)} times`];
  });
  expect(faults, faults.slice(0, 5).join('\n')).toEqual([]);
  expect(lost.length).toBeLessThan(REQUESTS / 20);
});

/** Otherwise nothing would have died on a connection that was used before, and nothing been sent again. */
test('many of them came over connections that were used before', () => {
  const reused = endpoint.each.reduce((sum, { reader }) => sum + Math.max(0, reader.messages.length - 1), 0);
  expect(reused).toBeGreaterThan(REQUESTS / 10);
  expect([...heads.values()].filter((count) => count > 1).length).toBeGreaterThan(0);
});
