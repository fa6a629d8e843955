/** `GET /containers/{id}/stats`: one line a second from the engine, rebuilt; goes on after a migration, and ends with the container. */
import { tryJson } from '#json';
import { createInterface } from 'node:readline';
import type { ContainerRow } from '#state/containers.ts';
import { withVirtualNames } from '#caas/container-errors.ts';
import type { Containers } from '#caas/containers.ts';
import { openEngineBody } from '#caas/engine/engine-body.ts';
import { dockerError } from './docker-error.ts';
import { movedTo } from './moved.ts';
import { write } from './raw-stream.ts';
import { booleanOf, numberOf } from './request.ts';
import type { DockerRequest } from './request.ts';
import { statsSchema, statsView } from './stats-view.ts';
import type { StatsSubject } from './stats-view.ts';

export interface StatsHandlerDeps {
  readonly containers: Containers;
}

const ONE_SHOT_FROM = '1.41';

interface Wish {
  readonly stream: boolean;
  readonly oneShot: boolean;
}

function wishOf({ query, apiVersion }: DockerRequest): Wish {
  const stream = booleanOf(query, 'stream', true);
  const oneShot = numberOf(apiVersion) >= numberOf(ONE_SHOT_FROM) && booleanOf(query, 'one-shot');
  if (stream && oneShot) throw dockerError(400, 'cannot have stream=true and one-shot=true');
  return { stream, oneShot };
}

function subjectOf(row: ContainerRow, cpuMilliMax: number): StatsSubject {
  const { id, name, createdMs, memoryBytes } = row;
  return { id, name, createdMs, memoryBytes, cpus: cpuMilliMax === 0 ? undefined : Math.ceil(cpuMilliMax / 1000) };
}

/** Copies one engine's lines until they end. */
async function copyFrom(deps: StatsHandlerDeps, row: ContainerRow, request: DockerRequest, wish: Wish): Promise<void> {
  const { response, signal, tenant } = request;
  const query = { stream: wish.stream, 'one-shot': wish.oneShot ? true : undefined };
  const { client } = deps.containers.hostOf(row);
  const source = await openEngineBody(client, { path: ['containers', row.engineId, 'stats'], query, signal }).catch(
    (error: unknown) => {
      throw withVirtualNames(error, row);
    },
  );
  if (!response.headersSent) {
    response.writeHead(200, { 'content-type': 'application/json' });
    response.flushHeaders();
  }
  const subject = subjectOf(row, tenant.quota.cpuMilliMax);
  try {
    for await (const line of createInterface({ input: source })) {
      if (line.trim() === '') continue;
      const parsed = statsSchema.safeParse(tryJson(line));
      if (!parsed.success) continue; // An engine that ends in the middle of a line.
      const view = statsView(parsed.data, subject);
      await write(response, Buffer.from(`${JSON.stringify(view)}\n`), signal);
    }
  } finally {
    source.destroy();
  }
}

export async function stats(deps: StatsHandlerDeps, request: DockerRequest, reference: string): Promise<void> {
  const wish = wishOf(request);
  let row: ContainerRow | undefined = await deps.containers.resolve(request.tenant.name, reference);
  while (row !== undefined) {
    try {
      await copyFrom(deps, row, request, wish);
    } catch (error) {
      if (request.signal.aborted) return;
      throw error;
    }
    row = wish.stream && !request.signal.aborted ? await movedTo(deps, row, request.signal) : undefined;
  }
  request.response.end();
}
