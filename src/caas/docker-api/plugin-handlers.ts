/** Plugins and swarm mode, which tenants do not have: answered as an engine without any would. */
import { dockerError } from './docker-error.ts';
import { sendJson } from './request.ts';
import type { DockerRoute } from './router.ts';

async function refuse(status: number, message: string): Promise<never> {
  await Promise.resolve();
  throw dockerError(status, message);
}

function absent(method: DockerRoute['method'], verb: string): DockerRoute {
  return {
    method,
    pattern: `/plugins/{*}${verb}`,
    answer: async (_request, name = '') => await refuse(404, `plugin "${name.slice(0, 200)}" not found`),
  };
}

const NO_PLUGINS = 'ecluse: plugins run on the host, outside of every sandbox; tenants cannot have any';
const NO_SWARM = 'ecluse: there is no swarm mode; all hosts together look like one engine';

export function pluginRoutes(): readonly DockerRoute[] {
  return [
    {
      method: 'GET',
      pattern: '/plugins',
      answer: async ({ response }) => {
        sendJson(response, 200, []);
        await Promise.resolve();
      },
    },
    { method: 'GET', pattern: '/plugins/privileges', answer: async () => await refuse(403, NO_PLUGINS) },
    { method: 'POST', pattern: '/plugins/pull', answer: async () => await refuse(403, NO_PLUGINS) },
    { method: 'POST', pattern: '/plugins/create', answer: async () => await refuse(403, NO_PLUGINS) },
    absent('GET', '/json'),
    absent('POST', '/enable'),
    absent('POST', '/disable'),
    absent('POST', '/set'),
    absent('POST', '/push'),
    absent('POST', '/upgrade'),
    absent('DELETE', ''),
    { method: 'POST', pattern: '/swarm/init', answer: async () => await refuse(403, NO_SWARM) },
    { method: 'POST', pattern: '/swarm/join', answer: async () => await refuse(403, NO_SWARM) },
    { method: 'POST', pattern: '/swarm/leave', answer: async () => await refuse(503, 'This node is not part of a swarm') },
  ];
}
