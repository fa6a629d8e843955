/** Containers that were just started: their programs do not listen yet. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { describe, expect, test } from 'vitest';
import { freePort } from '../../support/node.ts';
import { configOf, eventually, startEdge } from '../../support/edge.ts';
import type { Edge } from '../../support/edge.ts';
import { ask } from '../../support/http-client.ts';
import { bodyOf, startUpstream } from '../../support/upstream.ts';

function endpointAt(port: number, startedMs: number | undefined) {
  const at = { id: 'young', address: '127.0.0.1', port, hostName: 'here', generation: 1 };
  return startedMs === undefined ? at : { ...at, startedMs };
}

async function take(request: IncomingMessage, response: ServerResponse, seen: string[]): Promise<void> {
  seen.push((await bodyOf(request)).toString());
  response.end('ok');
}

async function heldRequests(edge: Edge, count: number): Promise<void> {
  await eventually(async () =>
    (await edge.pool.metrics()).includes(`\necluse_held_requests ${String(count)}\n`) ? true : undefined,
  );
}

describe('an endpoint that was just started and refuses connections', () => {
  test('gets its requests when it listens: each once, and whole', async () => {
    const port = await freePort();
    await using edge = await startEdge({ config: configOf([endpointAt(port, Date.now())]), workers: 2 });
    const bodies = Array.from({ length: 40 }, (_, index) => `body ${String(index)}`);
    const answers = bodies.map(async (body) => await ask({ port: edge.httpPort, method: 'POST', body }));
    await heldRequests(edge, bodies.length);
    const seen: string[] = [];
    await using upstream = await startUpstream((request, response) => {
      void take(request, response, seen);
    }, port);
    expect((await Promise.all(answers)).map(({ status }) => status)).toEqual(bodies.map(() => 200));
    expect(seen.toSorted()).toEqual(bodies.toSorted());
    expect(upstream.port).toBe(port);
    const lines = await edge.accessLog(bodies.length);
    expect(lines.every(({ holdMs }) => holdMs > 0)).toBe(true);
  });

  test('is given up ten seconds after its start, and one that is older, or whose start is in the future, at once', async () => {
    const port = await freePort();
    await using edge = await startEdge({ config: configOf([]) });
    await edge.apply(configOf([endpointAt(port, Date.now() - 9_000)], 2), []);
    const answerAfter = async (): Promise<{ readonly answer: string; readonly tookMs: number }> => {
      const fromMs = performance.now();
      const { status, body } = await ask({ port: edge.httpPort });
      return { answer: `${String(status)} ${body.toString().trim()}`, tookMs: performance.now() - fromMs };
    };
    const held = await answerAfter();
    expect(held.answer).toBe('502 the endpoint refused the connection');
    expect(held.tookMs).toBeLessThan(2_000);
    const others = [Date.now() - 60_000, Date.now() + 3_600_000, undefined];
    for (const [index, startedMs] of others.entries()) {
      await edge.apply(configOf([endpointAt(port, startedMs)], index + 3), []);
      await answerAfter();
      expect(await edge.pool.metrics()).toContain('\necluse_held_requests 0\n');
    }
    const lines = await edge.accessLog(1 + others.length);
    expect(lines.map(({ holdMs }) => holdMs > 0)).toEqual([true, false, false, false]);
  });

  test('has its requests taken by another one meanwhile', async () => {
    const port = await freePort();
    await using other = await startUpstream((_request, response) => response.end('other'));
    await using edge = await startEdge({ config: configOf([endpointAt(port, Date.now()), other.endpoint({ id: 'other' })]) });
    for (let index = 0; index < 4; index += 1) expect((await ask({ port: edge.httpPort })).body.toString()).toBe('other');
  });
});
