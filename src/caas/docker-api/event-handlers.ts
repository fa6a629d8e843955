/** `GET /events`: a tenant's own news, past and to come. */
import { once } from 'node:events';
import type { Clock } from '#clock';
import type { Events, TenantEvent } from '#caas/events.ts';
import { parseReference, wholeReference } from '#caas/images/image-reference.ts';
import { dockerError } from './docker-error.ts';
import { matchesLabels, timeMsOf } from './label-filters.ts';
import { filtersOf } from './request.ts';
import type { DockerRequest } from './request.ts';
import type { DockerRoute } from './router.ts';

export interface EventHandlerDeps {
  readonly clock: Clock;
  readonly events: Events;
}

type Filters = ReadonlyMap<string, readonly string[]>;

const NANOSECONDS = 1_000_000n;
/** A longer time makes Node's timers fire at once. Nobody listens for 24 days. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** Docker's shape, with the fields of its oldest API beside the newer ones (moby `events.Message`). Pure. */
export function eventView(event: TenantEvent): Readonly<Record<string, unknown>> {
  const { type, action, actor, atMs, seq } = event;
  const old =
    type === 'container'
      ? { status: action, id: actor.id, from: actor.attributes['image'] ?? '' }
      : type === 'image'
        ? { status: action, id: actor.id }
        : {};
  return {
    ...old,
    Type: type,
    Action: action,
    Actor: { ID: actor.id, Attributes: actor.attributes },
    scope: 'local',
    time: Math.floor(atMs / 1000),
    timeNano: Number(BigInt(atMs) * NANOSECONDS + BigInt(seq % 1_000_000)),
  };
}

function isNamed(event: TenantEvent, type: TenantEvent['type'], wanted: string): boolean {
  if (event.type !== type) return false;
  const { id, attributes } = event.actor;
  return id === wanted || id.startsWith(wanted) || attributes['name'] === wanted;
}

/** `--filter image=busybox`: the reference, with or without its tag (moby `daemon/events/filter.go`, `matchImage`). */
function isAboutImage({ actor, type }: TenantEvent, wanted: string): boolean {
  const name = type === 'image' ? (actor.attributes['name'] ?? '') : (actor.attributes['image'] ?? '');
  if (actor.id === wanted || name === wanted) return true;
  const own = parseReference(name);
  const asked = parseReference(wanted);
  if (own === undefined || asked === undefined) return false;
  return wholeReference(own) === wholeReference(asked) || (!wanted.includes(':') && own.repository === asked.repository);
}

/** `exec_create: sh` is matched by `exec_create`, `health_status: healthy` by `health_status`. */
function isAction({ action }: TenantEvent, wanted: string): boolean {
  return action === wanted || action.startsWith(`${wanted}:`);
}

const MATCHERS: Readonly<Record<string, (event: TenantEvent, wanted: string) => boolean>> = {
  type: (event, wanted) => event.type === wanted,
  event: isAction,
  container: (event, wanted) => isNamed(event, 'container', wanted),
  image: isAboutImage,
  network: (event, wanted) => isNamed(event, 'network', wanted),
  volume: (event, wanted) => isNamed(event, 'volume', wanted),
  daemon: (event, wanted) => isNamed(event, 'daemon', wanted),
  scope: (_event, wanted) => wanted === 'local',
  plugin: () => false,
  service: () => false,
  node: () => false,
  secret: () => false,
  config: () => false,
};

/** Every key must match with one of its values; labels with all. Unknown keys match nothing, as in Docker. Pure. */
export function isWanted(event: TenantEvent, filters: Filters): boolean {
  for (const [key, wanted] of filters) {
    if (key === 'label') {
      if (!matchesLabels(event.actor.attributes, wanted)) return false;
      continue;
    }
    const matcher = Object.hasOwn(MATCHERS, key) ? MATCHERS[key] : undefined;
    if (matcher !== undefined && !wanted.some((value) => matcher(event, value))) return false;
  }
  return true;
}

function timeOf(request: DockerRequest, name: string, nowMs: number): number | undefined {
  const text = request.query.get(name);
  if (text === null || text === '') return undefined;
  const ms = timeMsOf(text, nowMs);
  if (ms === undefined) throw dockerError(400, `failed to parse value as time or duration: "${text.slice(0, 60)}"`);
  return ms;
}

function secondsOf(ms: number): string {
  return String(Math.floor(ms / 1000));
}

async function stream(deps: EventHandlerDeps, request: DockerRequest): Promise<void> {
  const { response, signal, tenant } = request;
  const filters = filtersOf(request.query);
  const nowMs = deps.clock.nowMs();
  const sinceMs = timeOf(request, 'since', nowMs);
  const untilMs = timeOf(request, 'until', nowMs);
  if (sinceMs !== undefined && untilMs !== undefined && sinceMs > untilMs) {
    throw dockerError(400, `\`since\` time (${secondsOf(sinceMs)}) cannot be after \`until\` time (${secondsOf(untilMs)})`);
  }
  const over = new AbortController();
  const end = (): void => {
    over.abort();
  };
  signal.addEventListener('abort', end, { once: true });
  using events = deps.events.open(tenant.name, over.signal);
  if (events === undefined)
    throw dockerError(429, `ecluse: tenant ${tenant.name} has too many event streams open; end some first`);
  const timer = untilMs === undefined ? undefined : setTimeout(end, Math.min(TIMER_MS_MAX, Math.max(0, untilMs - nowMs)));
  try {
    response.writeHead(200, { 'content-type': 'application/json' });
    response.flushHeaders(); // Clients wait for the head before they do what they want to hear of.
    const send = async (event: TenantEvent): Promise<void> => {
      if (!isWanted(event, filters)) return;
      if (!response.write(`${JSON.stringify(eventView(event))}\n`)) await once(response, 'drain', { signal });
    };
    const past = sinceMs === undefined ? [] : events.history;
    for (const event of past) {
      if (event.atMs >= (sinceMs ?? 0) && (untilMs === undefined || event.atMs <= untilMs)) await send(event);
    }
    if (untilMs === undefined || untilMs > nowMs) for await (const event of events) await send(event);
    response.end();
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', end);
  }
}

export function eventRoutes(deps: EventHandlerDeps): readonly DockerRoute[] {
  return [{ method: 'GET', pattern: '/events', answer: async (request) => await stream(deps, request) }];
}
