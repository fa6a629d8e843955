/** Streams of containers: logs, attach, stats, wait. All with backpressure; wait goes on after a migration, on whatever host the container is by then. */
import { tryJson } from '#json';
import type { IncomingMessage } from 'node:http';
import * as z from 'zod';
import { waitFor } from '#clock';
import type { Clock } from '#clock';
import { reasonOf } from '#errors';
import type { Log } from '#log';
import type { ContainerRow } from '#state/containers.ts';
import { readWhole } from '#caas/byte-stream.ts';
import { withVirtualNames } from '#caas/container-errors.ts';
import type { Containers } from '#caas/containers.ts';
import { EngineError } from '#caas/engine/engine-client.ts';
import type { EngineCall } from '#caas/engine/engine-client.ts';
import { attachRoutes } from './attach-handlers.ts';
import { dockerError } from './docker-error.ts';
import { logs } from './log-handlers.ts';
import { movedTo } from './moved.ts';
import type { DockerRequest } from './request.ts';
import { stats } from './stats-handlers.ts';
import type { DockerRoute } from './router.ts';

export interface StreamHandlerDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly containers: Containers;
}

const WAIT_CONDITIONS = new Set(['', 'not-running', 'next-exit', 'removed']);

/** `{"StatusCode":0,"Error":null}`, and room for an error's text. */
const WAIT_ANSWER_BYTES_MAX = 64 * 1024;

const FORGET_LIMIT_MS = 5_000;

const waitSchema = z.object({
  Error: z.object({ Message: z.string() }).nullable().default(null),
  StatusCode: z.int(),
});

/** A stream of the engine that a container lives on; errors name what the tenant knows. */
async function streamOf(deps: StreamHandlerDeps, row: ContainerRow, call: EngineCall): Promise<IncomingMessage> {
  try {
    return await deps.containers.hostOf(row).client.stream(call);
  } catch (error) {
    throw withVirtualNames(error, row);
  }
}

async function waitOnce(
  deps: StreamHandlerDeps,
  row: ContainerRow,
  condition: string,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  return await streamOf(deps, row, {
    method: 'POST',
    path: ['containers', row.engineId, 'wait'],
    query: { condition: condition === '' ? undefined : condition },
    signal,
  });
}

async function wait(deps: StreamHandlerDeps, request: DockerRequest, reference: string): Promise<void> {
  const condition = request.query.get('condition') ?? '';
  if (!WAIT_CONDITIONS.has(condition)) throw dockerError(400, `invalid condition: "${condition.slice(0, 40)}"`);
  let row = await deps.containers.resolve(request.tenant.name, reference);
  let answer = await waitOnce(deps, row, condition, request.signal);
  // The head goes out at once: clients start the container when they see it.
  request.response.writeHead(200, { 'content-type': 'application/json' });
  request.response.flushHeaders();
  for (;;) {
    const outcome = await outcomeOf(answer);
    const next = await movedTo(deps, row, request.signal);
    if (next === undefined) {
      // The store follows before the client hears of it, so that its next `ps` agrees.
      if (condition === 'removed' && outcome.Error === null) await untilForgotten(deps, row.id);
      else await deps.containers.sync(row.id);
      request.response.end(`${JSON.stringify(outcome)}\n`);
      return;
    }
    row = next;
    answer = await waitOnce(deps, row, condition, request.signal);
  }
}

/** An engine says "removed" while it may still answer for the container; one that does not let go must not hold its client. */
async function untilForgotten(deps: StreamHandlerDeps, id: string): Promise<void> {
  const isForgotten = async (): Promise<true | undefined> => {
    await deps.containers.sync(id);
    return (await deps.containers.find(id)) === undefined ? true : undefined;
  };
  await waitFor(deps.clock, isForgotten, { limitMs: FORGET_LIMIT_MS, stepMs: 50 });
}

export function streamRoutes(deps: StreamHandlerDeps): readonly DockerRoute[] {
  return [
    { method: 'GET', pattern: '/containers/{}/logs', answer: async (request, id) => await logs(deps, request, id) },
    { method: 'POST', pattern: '/containers/{}/wait', answer: async (request, id) => await wait(deps, request, id) },
    { method: 'GET', pattern: '/containers/{}/stats', answer: async (request, id) => await stats(deps, request, id) },
    ...attachRoutes(deps),
  ];
}

/** What an engine said about the end, rebuilt. */
async function outcomeOf(answer: IncomingMessage): Promise<Readonly<z.infer<typeof waitSchema>>> {
  let text: Buffer | undefined;
  try {
    text = await readWhole(answer, WAIT_ANSWER_BYTES_MAX);
  } catch (error) {
    throw new EngineError(502, `the engine ended the wait: ${reasonOf(error)}`);
  }
  const parsed = waitSchema.safeParse(tryJson(text?.toString('utf8') ?? ''));
  if (!parsed.success) throw new EngineError(502, 'the engine answered a wait with something else');
  return { Error: parsed.data.Error, StatusCode: parsed.data.StatusCode };
}
