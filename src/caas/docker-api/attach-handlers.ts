/** `/containers/{id}/attach`: the container's own standard streams, over a raw connection, a plain answer or a WebSocket. */
import type { Duplex } from 'node:stream';
import type { ContainerRow } from '#state/containers.ts';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import type { Containers } from '#caas/containers.ts';
import { dockerError } from './docker-error.ts';
import { hijackOn, join, joinWithoutUpgrade, pump, streamType } from './raw-stream.ts';
import { booleanOf, numberOf, readJson } from './request.ts';
import type { DockerRequest, HijackRequest } from './request.ts';
import type { DockerRoute } from './router.ts';
import { joinWebSocket } from './websocket-attach.ts';

export interface AttachHandlerDeps {
  readonly containers: Containers;
}

/** `ctrl-p,ctrl-q` and the like. */
const DETACH_KEYS_CHARS_MAX = 200;
/** Older clients get text frames on a WebSocket (moby issue 28176). */
const BINARY_FRAMES_FROM = '1.28';

type AttachQuery = Readonly<Record<string, boolean | string | undefined>>;

function attachQuery(query: URLSearchParams): AttachQuery {
  return {
    stream: booleanOf(query, 'stream'),
    stdin: booleanOf(query, 'stdin'),
    stdout: booleanOf(query, 'stdout'),
    stderr: booleanOf(query, 'stderr'),
    logs: booleanOf(query, 'logs'),
    detachKeys: detachKeysOf(query),
  };
}

function detachKeysOf(query: URLSearchParams): string | undefined {
  const keys = query.get('detachKeys') ?? '';
  if (keys.length > DETACH_KEYS_CHARS_MAX) throw dockerError(400, `Invalid detach keys (${keys.slice(0, 40)}) provided`);
  return keys === '' ? undefined : keys;
}

/** Opens the engine's end. Moby's own words where the container cannot be attached to. */
async function open(
  deps: AttachHandlerDeps,
  request: Pick<DockerRequest, 'tenant' | 'incoming'>,
  reference: string,
  query: AttachQuery,
): Promise<{ readonly row: ContainerRow; readonly engine: Duplex; readonly isTty: boolean }> {
  const row = await deps.containers.resolve(request.tenant.name, reference);
  if (row.state === 'paused') {
    throw dockerError(409, `container ${reference} is paused, unpause the container before attach`);
  }
  if (row.state === 'restarting') {
    throw dockerError(409, `container ${reference} is restarting, wait until the container is running`);
  }
  const engine = await hijackOn(deps, row, { path: ['containers', row.engineId, 'attach'], query });
  deps.containers.events.publish(row, 'attach');
  return { row, engine, isTty: parseStoredSpec(row.spec).config.Tty };
}

async function attach(deps: AttachHandlerDeps, request: HijackRequest, reference: string): Promise<void> {
  await readJson(request.incoming);
  const { engine, isTty } = await open(deps, request, reference, attachQuery(request.query));
  join(request, engine, streamType(request.apiVersion, isTty));
}

/** Attach without an upgrade. */
async function attachPlainly(deps: AttachHandlerDeps, request: DockerRequest, reference: string): Promise<void> {
  await readJson(request.incoming);
  const query = attachQuery(request.query);
  const { engine } = await open(deps, request, reference, query);
  if (query['stdin'] === true) joinWithoutUpgrade(request, engine);
  else await pump(engine, request);
}

async function attachWebSocket(deps: AttachHandlerDeps, request: HijackRequest, reference: string): Promise<void> {
  const { query, apiVersion } = request;
  const all = { stdin: true, stdout: true, stderr: true };
  const asked = { logs: booleanOf(query, 'logs'), stream: booleanOf(query, 'stream'), detachKeys: detachKeysOf(query) };
  await joinWebSocket(request, {
    frames: numberOf(apiVersion) >= numberOf(BINARY_FRAMES_FROM) ? 'binary' : 'text',
    open: async () => await open(deps, request, reference, { ...asked, ...all }),
  });
}

export function attachRoutes(deps: AttachHandlerDeps): readonly DockerRoute[] {
  return [
    {
      method: 'POST',
      pattern: '/containers/{}/attach',
      answer: async (request, id = '') => {
        await attachPlainly(deps, request, id);
      },
      join: async (request, id = '') => {
        await attach(deps, request, id);
      },
    },
    {
      method: 'GET',
      pattern: '/containers/{}/attach/ws',
      answer: async () => {
        await Promise.reject(dockerError(400, 'not websocket protocol'));
      },
      join: async (request, id = '') => {
        await attachWebSocket(deps, request, id);
      },
    },
  ];
}
