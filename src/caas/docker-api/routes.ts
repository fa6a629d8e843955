/** Every route of the tenants' Docker endpoint, in the order of Docker's API reference. */
import type { Clock } from '#clock';
import type { Log } from '#log';
import type { Sql } from '#state/sql.ts';
import type { ContainerCreation } from '#caas/container-creation.ts';
import type { Containers } from '#caas/containers.ts';
import type { Events } from '#caas/events.ts';
import type { Host } from '#caas/host.ts';
import type { Images } from '#caas/images/images.ts';
import type { Networks } from '#caas/networks/networks.ts';
import type { Volumes } from '#caas/volumes/volumes.ts';
import type { PublishedPorts } from '#caas/ports/published-ports.ts';
import type { Meter } from '#caas/meter.ts';
import { buildRoutes } from './build-handlers.ts';
import { containerRoutes } from './container-handlers.ts';
import { EngineSummaries } from './engine-summaries.ts';
import { eventRoutes } from './event-handlers.ts';
import { execRoutes } from './exec-handlers.ts';
import { Execs } from './execs.ts';
import { imageRoutes } from './image-handlers.ts';
import { registryRoutes } from './registry-handlers.ts';
import { networkRoutes } from './network-handlers.ts';
import type { DockerRoute } from './router.ts';
import { pluginRoutes } from './plugin-handlers.ts';
import { streamRoutes } from './stream-handlers.ts';
import { systemRoutes } from './system-handlers.ts';
import { usageRoutes } from './usage-handlers.ts';
import type { PlatformFacts } from './system-views.ts';
import { volumeRoutes } from './volume-handlers.ts';

/** What the handlers work with: parts of the node, each owned elsewhere. */
export interface DockerApiDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly containers: Containers;
  readonly creation: ContainerCreation;
  readonly networks: Networks;
  readonly volumes: Volumes;
  readonly ports: PublishedPorts;
  readonly hosts: ReadonlyMap<string, Host>;
  readonly images: Images;
  readonly events: Events;
  readonly meter: Meter;
  readonly facts: PlatformFacts;
}

export function dockerRoutes(parts: DockerApiDeps): readonly DockerRoute[] {
  const deps = { ...parts, execs: new Execs(parts), summaries: new EngineSummaries(parts) };
  return [
    ...containerRoutes(deps),
    ...streamRoutes(deps),
    ...execRoutes(deps),
    ...registryRoutes(deps),
    ...imageRoutes(deps),
    ...networkRoutes(deps),
    ...volumeRoutes(deps),
    ...eventRoutes(deps),
    ...buildRoutes(deps),
    ...usageRoutes(deps),
    ...systemRoutes(deps),
    ...pluginRoutes(),
  ];
}
