/** Which handler answers which method and path. What Docker has and we do not yet is refused as such, not as unknown. */
import { dockerError } from './docker-error.ts';
import type { containerHandlers } from './container-handlers.ts';
import type { imageHandlers } from './image-handlers.ts';
import type { DockerRequest } from './request.ts';
import type { streamHandlers } from './stream-handlers.ts';

export interface Handlers {
  readonly containers: ReturnType<typeof containerHandlers>;
  readonly images: ReturnType<typeof imageHandlers>;
  readonly streams: ReturnType<typeof streamHandlers>;
  readonly system: {
    readonly version: (request: DockerRequest) => Promise<void>;
    readonly info: (request: DockerRequest) => Promise<void>;
  };
}

type Answer = (request: DockerRequest) => Promise<void>;

/** Rooms of Docker's API that exist there and not (yet) here. */
const ROOMS_TO_COME = new Set(['networks', 'volumes', 'build', 'commit', 'events', 'auth', 'distribution', 'system', 'containers', 'images', 'exec']);
const ROOMS_OF_SWARM = new Set(['swarm', 'nodes', 'services', 'tasks', 'secrets', 'configs']);

function containerRoute({ containers, streams }: Handlers, method: string, parts: readonly string[]): Answer | undefined {
  const [, id = '', verb] = parts;
  if (parts.length === 2) {
    if (method === 'GET' && id === 'json') return containers.list;
    if (method === 'POST' && id === 'create') return containers.create;
    return method === 'DELETE' ? async (request) => await containers.remove(request, id) : undefined;
  }
  if (parts.length !== 3 || verb === undefined) return undefined;
  const byRoute: Readonly<Record<string, (request: DockerRequest, reference: string) => Promise<void>>> = {
    'GET json': containers.inspect,
    'GET logs': streams.logs,
    'POST start': containers.start,
    'POST stop': containers.stop,
    'POST restart': containers.restart,
    'POST kill': containers.kill,
    'POST pause': containers.pause,
    'POST unpause': containers.unpause,
    'POST rename': containers.rename,
    'POST resize': containers.resize,
    'POST wait': streams.wait,
    'POST attach': streams.attachOutput,
    'POST exec': streams.execCreate,
  };
  const handler = Object.hasOwn(byRoute, `${method} ${verb}`) ? byRoute[`${method} ${verb}`] : undefined;
  return handler === undefined ? undefined : async (request) => await handler(request, id);
}

function imageRoute({ images }: Handlers, method: string, parts: readonly string[]): Answer | undefined {
  const [, first = ''] = parts;
  if (parts.length === 2 && method === 'GET' && first === 'json') return images.list;
  if (parts.length === 2 && method === 'POST' && first === 'load') return images.load;
  if (parts.length === 2 && method === 'POST' && first === 'create') return images.create;
  const verb = parts.at(-1);
  const name = parts.slice(1, -1);
  if (parts.length >= 3 && method === 'GET' && verb === 'json') return async (request) => await images.inspect(request, name);
  if (parts.length >= 3 && method === 'POST' && verb === 'tag') return async (request) => await images.tag(request, name);
  return method === 'DELETE' && parts.length >= 2 ? async (request) => await images.remove(request, parts.slice(1)) : undefined;
}

function execRoute({ streams }: Handlers, method: string, parts: readonly string[]): Answer | undefined {
  const [, id = '', verb] = parts;
  if (parts.length !== 3) return undefined;
  if (method === 'POST' && verb === 'start') return async (request) => await streams.execStart(request, id);
  if (method === 'POST' && verb === 'resize') return async (request) => await streams.execResize(request, id);
  return method === 'GET' && verb === 'json' ? async (request) => await streams.execInspect(request, id) : undefined;
}

function routeOf(handlers: Handlers, method: string, parts: readonly string[]): Answer | undefined {
  switch (parts[0]) {
    case 'containers':
      return containerRoute(handlers, method, parts);
    case 'images':
      return imageRoute(handlers, method, parts);
    case 'exec':
      return execRoute(handlers, method, parts);
    case 'version':
      return parts.length === 1 && method === 'GET' ? handlers.system.version : undefined;
    case 'info':
      return parts.length === 1 && method === 'GET' ? handlers.system.info : undefined;
    default:
      return undefined;
  }
}

/** The handler of a request; refusals are thrown in Docker's words. */
export function findRoute(handlers: Handlers, method: string, parts: readonly string[]): Answer {
  const answer = routeOf(handlers, method, parts);
  if (answer !== undefined) return answer;
  const room = parts[0] ?? '';
  if (ROOMS_OF_SWARM.has(room)) {
    throw dockerError(503, 'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.');
  }
  if (ROOMS_TO_COME.has(room)) throw dockerError(501, `ecluse: ${method} /${parts.join('/').slice(0, 200)} is not implemented yet`);
  throw dockerError(404, 'page not found');
}
