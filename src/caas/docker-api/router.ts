/** Which handler answers which method and path. What Docker has and we do not yet is refused as such, not as unknown. */
import { dockerError } from './docker-error.ts';
import type { ContainerHandlers } from './container-handlers.ts';
import type { ExecHandlers } from './exec-handlers.ts';
import type { ImageHandlers } from './image-handlers.ts';
import type { DockerRequest } from './request.ts';
import type { StreamHandlers } from './stream-handlers.ts';

export interface Handlers {
  readonly containers: ContainerHandlers;
  readonly execs: ExecHandlers;
  readonly images: ImageHandlers;
  readonly streams: StreamHandlers;
  readonly system: {
    readonly version: (request: DockerRequest) => Promise<void>;
    readonly info: (request: DockerRequest) => Promise<void>;
  };
}

type Answer = (request: DockerRequest) => Promise<void>;

/** Rooms of Docker's API that exist there and not (yet) here. */
const ROOMS_TO_COME = new Set([
  'networks',
  'volumes',
  'build',
  'commit',
  'events',
  'auth',
  'distribution',
  'system',
  'containers',
  'images',
  'exec',
]);
/** Networks that containers are shown to be in. */
const NETWORKS_BUILT_IN = new Set(['bridge', 'none']);
const ROOMS_OF_SWARM = new Set(['swarm', 'nodes', 'services', 'tasks', 'secrets', 'configs']);

function containerRoute(handlers: Handlers, method: string, parts: readonly string[]): Answer | undefined {
  const { containers, execs, streams } = handlers;
  const [, id = '', verb = ''] = parts;
  if (parts.length === 2 && method === 'GET' && id === 'json') return containers.list;
  if (parts.length === 2 && method === 'POST' && id === 'create') return containers.create;
  const streamRoutes = new Map([
    ['GET logs', streams.logs],
    ['POST wait', streams.wait],
    ['POST attach', streams.attachOutput],
    ['POST exec', execs.create],
  ]);
  const key = parts.length === 2 ? method : `${method} ${verb}`;
  const handler = parts.length > 3 ? undefined : (streamRoutes.get(key) ?? containers.byRoute.get(key));
  return handler === undefined ? undefined : async (request) => await handler(request, id);
}

function imageRoute({ images }: Handlers, method: string, parts: readonly string[]): Answer | undefined {
  const fixed = new Map([
    ['GET json', images.list],
    ['POST load', images.load],
    ['POST create', images.create],
  ]);
  const verb = parts.at(-1) ?? '';
  if (parts.length === 2 && fixed.has(`${method} ${verb}`)) return fixed.get(`${method} ${verb}`);
  if (method === 'DELETE' && parts.length >= 2) return async (request) => await images.remove(request, parts.slice(1));
  const named = new Map([
    ['GET json', images.inspect],
    ['POST tag', images.tag],
  ]);
  const handler = parts.length >= 3 ? named.get(`${method} ${verb}`) : undefined;
  return handler === undefined ? undefined : async (request) => await handler(request, parts.slice(1, -1));
}

function execRoute({ execs }: Handlers, method: string, parts: readonly string[]): Answer | undefined {
  const [, id = '', verb = ''] = parts;
  const routes = new Map([
    ['POST start', execs.start],
    ['POST resize', execs.resize],
    ['GET json', execs.inspect],
  ]);
  const handler = parts.length === 3 ? routes.get(`${method} ${verb}`) : undefined;
  return handler === undefined ? undefined : async (request) => await handler(request, id);
}

function routeOf(handlers: Handlers, method: string, parts: readonly string[]): Answer | undefined {
  switch (parts[0] ?? '') {
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

/**
 * `docker inspect NAME` asks for a container, an image, a network and a volume in turn, and goes on only where it hears 404. Tenants have
 * no networks or volumes of their own yet, so none has that name.
 */
function absentText(room: string, name: string): string | undefined {
  if (room === 'networks' && !NETWORKS_BUILT_IN.has(name)) return `network ${name.slice(0, 200)} not found`;
  return room === 'volumes' ? `get ${name.slice(0, 200)}: no such volume` : undefined;
}

/** The handler of a request; refusals are thrown in Docker's words. */
export function findRoute(handlers: Handlers, method: string, parts: readonly string[]): Answer {
  const answer = routeOf(handlers, method, parts);
  if (answer !== undefined) return answer;
  const room = parts[0] ?? '';
  if (ROOMS_OF_SWARM.has(room)) {
    throw dockerError(
      503,
      'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.',
    );
  }
  const absent = method === 'GET' && parts.length === 2 ? absentText(room, parts[1] ?? '') : undefined;
  if (absent !== undefined) throw dockerError(404, absent);
  if (ROOMS_TO_COME.has(room))
    throw dockerError(501, `ecluse: ${method} /${parts.join('/').slice(0, 200)} is not implemented yet`);
  throw dockerError(404, 'page not found');
}
