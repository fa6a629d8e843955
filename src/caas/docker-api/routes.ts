/** Every route of the tenants' Docker endpoint, in the order of Docker's API reference. */
import type { Clock } from '#clock';
import type { Log } from '#log';
import type { Sql } from '#state/sql.ts';
import type { Containers } from '#caas/containers.ts';
import type { Events } from '#caas/events.ts';
import type { Host } from '#caas/host.ts';
import type { Images } from '#caas/images.ts';
import { containerRoutes } from './container-handlers.ts';
import { execRoutes } from './exec-handlers.ts';
import { Execs } from './execs.ts';
import { imageRoutes } from './image-handlers.ts';
import type { DockerRoute } from './router.ts';
import { streamRoutes } from './stream-handlers.ts';
import { systemRoutes } from './system-handlers.ts';
import type { PlatformFacts } from './system-views.ts';

/** What the handlers work with: parts of the node, each owned elsewhere. */
export interface DockerApiDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly containers: Containers;
  readonly hosts: ReadonlyMap<string, Host>;
  readonly images: Images;
  readonly events: Events;
  readonly facts: PlatformFacts;
}

export function dockerRoutes(parts: DockerApiDeps): readonly DockerRoute[] {
  const deps = { ...parts, execs: new Execs(parts.containers) };
  return [...containerRoutes(deps), ...streamRoutes(deps), ...execRoutes(deps), ...imageRoutes(deps), ...systemRoutes(deps)];
}
