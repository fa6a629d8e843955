/** `/version`, `/info`. */
import type { Clock } from '#clock';
import type { Containers } from '#caas/containers.ts';
import type { Images } from '#caas/images/images.ts';
import { sendJson } from './request.ts';
import type { DockerRoute } from './router.ts';
import { infoView, versionView } from './system-views.ts';
import type { PlatformFacts } from './system-views.ts';

export interface SystemHandlerDeps {
  readonly clock: Clock;
  readonly containers: Containers;
  readonly images: Images;
  readonly facts: PlatformFacts;
}

export function systemRoutes(deps: SystemHandlerDeps): readonly DockerRoute[] {
  return [
    {
      method: 'GET',
      pattern: '/version',
      answer: async ({ response }) => {
        sendJson(response, 200, versionView(deps.facts));
        await Promise.resolve();
      },
    },
    {
      method: 'GET',
      pattern: '/info',
      answer: async ({ response, tenant }) => {
        const rows = await deps.containers.listOf(tenant.name);
        const images = (await deps.images.list(tenant.name)).length;
        sendJson(response, 200, infoView(deps.facts, { tenant, rows, images, nowMs: deps.clock.nowMs() }));
      },
    },
  ];
}
