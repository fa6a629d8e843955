/** Method and path to handler. Routes are data, so that a test can walk them. What Docker has and we refuse is refused in Docker's words. */
import { dockerError } from './docker-error.ts';
import type { DockerRequest, HijackRequest } from './request.ts';

/** What the parts of a path in braces held, in order. */
export type PathParams = readonly string[];

export interface DockerRoute {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE';
  /** `/containers/{}/json`; `{*}` is one part or several, as names of images have slashes. */
  readonly pattern: string;
  readonly answer?: (request: DockerRequest, ...params: string[]) => Promise<void>;
  /** For requests that ask for the raw connection (`Upgrade: tcp` or `websocket`). */
  readonly join?: (request: HijackRequest, ...params: string[]) => Promise<void>;
}

export interface Found {
  readonly route: DockerRoute;
  readonly params: PathParams;
}

interface CompiledRoute {
  readonly route: DockerRoute;
  readonly parts: readonly string[];
}

const SWARM_ROOMS = new Set(['swarm', 'nodes', 'services', 'tasks', 'secrets', 'configs']);

/** The parameters of a path, or undefined where the pattern does not fit. At most one `{*}` stands in a pattern. */
function paramsOf(pattern: readonly string[], parts: readonly string[]): PathParams | undefined {
  const wild = pattern.indexOf('{*}');
  if (wild === -1 ? pattern.length !== parts.length : parts.length < pattern.length) return undefined;
  const behind = wild === -1 ? 0 : pattern.length - wild - 1;
  const params: string[] = [];
  for (const [index, expected] of pattern.entries()) {
    const at = wild !== -1 && index > wild ? parts.length - (pattern.length - index) : index;
    if (expected === '{*}') params.push(parts.slice(index, parts.length - behind).join('/'));
    else if (expected === '{}') params.push(parts[at] ?? '');
    else if (expected !== parts[at]) return undefined;
  }
  return params.includes('') ? undefined : params;
}

export class Router {
  readonly #routes: readonly CompiledRoute[];

  constructor(routes: readonly DockerRoute[]) {
    this.#routes = routes.map((route) => ({ route, parts: route.pattern.slice(1).split('/') }));
  }

  /** The route of a request that wants an answer, or to be joined; refusals are thrown in Docker's words. */
  find(want: 'answer' | 'join', method: string, parts: readonly string[]): Found {
    for (const { route, parts: pattern } of this.#routes) {
      if (route.method !== method || route[want] === undefined) continue;
      const params = paramsOf(pattern, parts);
      if (params !== undefined) return { route, params };
    }
    throw refusalOf(parts);
  }

  async answer(request: DockerRequest): Promise<void> {
    const { route, params } = this.find('answer', request.method, request.parts);
    await route.answer?.(request, ...params);
  }

  /** Joins a raw connection. */
  async join(request: HijackRequest): Promise<void> {
    const { route, params } = this.find('join', request.method, request.parts);
    await route.join?.(request, ...params);
  }
}

function refusalOf(parts: readonly string[]): Error {
  if (SWARM_ROOMS.has(parts[0] ?? '')) {
    return dockerError(
      503,
      'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.',
    );
  }
  return dockerError(404, 'page not found');
}
