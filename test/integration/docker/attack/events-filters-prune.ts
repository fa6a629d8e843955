/** Attacks through answers about everything: events, filters, prunes, sums. */
import { expect } from 'vitest';
import * as z from 'zod';
import { expectIndistinct, filtersQuery, get, indistinct, messageOf, post, succeed } from './cases.ts';
import type { AttackCase } from './cases.ts';

/** Filters that mean the victim's things. An answer is the same as for things of nobody. */
const filterCases: readonly AttackCase[] = [
  ...indistinct('filters', 'container', {
    'containers by id': (name) => get(`/containers/json?all=1&${filtersQuery({ id: [name] })}`),
    'containers by name': (name) => get(`/containers/json?all=1&${filtersQuery({ name: [name] })}`),
    'containers by the older map': (name) => get(`/containers/json?all=1&${filtersQuery({ name: { [name]: true } })}`),
    'containers before one': (name) => get(`/containers/json?all=1&${filtersQuery({ before: [name] })}`),
    'containers since one': (name) => get(`/containers/json?all=1&${filtersQuery({ since: [name] })}`),
    'events of a container': (name) => get(`/events?since=0&until=1&${filtersQuery({ container: [name] })}`),
  }),
  ...indistinct('filters', 'image', {
    'containers by their image': (name) => get(`/containers/json?all=1&${filtersQuery({ ancestor: [name] })}`),
    'events of an image': (name) => get(`/events?since=0&until=1&${filtersQuery({ image: [name] })}`),
  }),
  ...indistinct('filters', 'network', {
    'containers by their network': (name) => get(`/containers/json?all=1&${filtersQuery({ network: [name] })}`),
  }),
  ...indistinct('filters', 'volume', {
    'containers by their volume': (name) => get(`/containers/json?all=1&${filtersQuery({ volume: [name] })}`),
  }),
  {
    row: 'filters',
    name: 'labels of others find nothing, in any form',
    run: async (world) => {
      const forms = [{ label: ['vein=gold'] }, { label: ['vein'] }, { label: { 'vein=gold': true } }];
      for (const form of forms) {
        for (const path of ['/containers/json?all=1&', '/networks?', '/images/json?']) {
          expect(await succeed(world, get(`${path}${filtersQuery(form)}`)), path).toBe('[]\n');
        }
        expect(JSON.parse(await succeed(world, get(`/volumes?${filtersQuery(form)}`)))).toMatchObject({ Volumes: [] });
      }
    },
  },
  {
    row: 'filters',
    name: 'filters that are none are refused or mean nothing',
    run: async ({ ask }) => {
      for (const filters of [
        '{',
        '[]',
        '7',
        '"x"',
        '{"name":7}',
        '{"name":[{}]}',
        '{"__proto__":["x"]}',
        '{"constructor":["x"]}',
        '{"label!":["vein=gold"]}',
        '{"name":["("]}',
        `{"name":["${'(a+)+'.repeat(20)}$"]}`,
      ]) {
        const answer = await ask(get(`/containers/json?all=1&filters=${encodeURIComponent(filters)}`));
        expect([200, 400, 500], filters).toContain(answer.status);
        if (answer.status === 200) expect(answer.text).not.toMatch(/granite|marble|slate/);
        else messageOf(answer);
      }
    },
  },
  {
    row: 'filters',
    name: 'filters given twice are read once',
    run: async (world) => {
      const query = `${filtersQuery({ name: ['ownbox'] })}&${filtersQuery({ name: ['granite'] })}`;
      expect(await succeed(world, get(`/containers/json?all=1&${query}`))).toContain('/ownbox');
    },
  },
];

const SINCE = Math.floor(Date.now() / 1000) - 3600;

const wholeSchema = z.object({ Containers: z.int(), ContainersRunning: z.int(), Images: z.int(), Name: z.string() });
const diskSchema = z.object({
  Images: z.array(z.object({ RepoTags: z.array(z.string()).nullable() })).nullable(),
  Containers: z.array(z.object({ Names: z.array(z.string()) })).nullable(),
  Volumes: z.array(z.object({ Name: z.string() })).nullable(),
});

function pruneOfLabels(path: string): AttackCase {
  return {
    row: 'whole-engine answers',
    name: `POST ${path} with labels of others removes nothing`,
    run: async (world) => {
      for (const filters of [{ label: ['vein=gold'] }, { label: ['owner=globex'] }]) {
        const answer = await world.ask(post(`${path}?${filtersQuery(filters)}`));
        expect([200, 400], answer.text).toContain(answer.status);
        expect(answer.text).not.toMatch(/granite|marble|slate|basaltnet|oredata|quartz/);
      }
    },
  };
}

const whole: readonly AttackCase[] = [
  {
    row: 'whole-engine answers',
    name: 'info counts one’s own',
    run: async (world) => {
      expect(wholeSchema.parse(JSON.parse(await succeed(world, get('/info'))))).toMatchObject({
        Containers: 1,
        ContainersRunning: 1,
        Images: 1,
      });
    },
  },
  {
    row: 'whole-engine answers',
    name: 'df sums one’s own',
    run: async (world) => {
      const disk = diskSchema.parse(JSON.parse(await succeed(world, get('/system/df'))));
      expect(disk).toEqual({
        Images: [{ RepoTags: ['own:1'] }],
        Containers: [{ Names: ['/ownbox'] }],
        Volumes: [{ Name: 'owndata' }],
      });
    },
  },
  {
    row: 'whole-engine answers',
    name: 'events of the past are one’s own',
    run: async (world) => {
      const text = await succeed(world, get(`/events?since=${String(SINCE)}&until=${String(Math.ceil(Date.now() / 1000))}`));
      expect(text).toContain('ownbox');
      const { container, network, exec } = world.references;
      for (const [id = ''] of [container, network, exec]) expect(text).not.toContain(id);
    },
  },
  ...['/containers/prune', '/networks/prune', '/volumes/prune', '/images/prune', '/build/prune'].map(pruneOfLabels),
  {
    row: 'whole-engine answers',
    name: 'prunes of everything remove only one’s own',
    run: async (world) => {
      await succeed(world, post('/containers/create?name=useless', { Image: 'own:1' }));
      await succeed(world, post('/networks/create', { Name: 'useless' }));
      await succeed(world, post('/volumes/create', { Name: 'useless' }));
      const containers = await succeed(world, post('/containers/prune'));
      expect(z.object({ ContainersDeleted: z.array(z.string()) }).parse(JSON.parse(containers)).ContainersDeleted).toHaveLength(
        1,
      );
      const networks = await succeed(world, post('/networks/prune'));
      expect(JSON.parse(networks)).toMatchObject({ NetworksDeleted: ['useless'] });
      const volumes = z
        .object({ VolumesDeleted: z.array(z.string()) })
        .parse(JSON.parse(await succeed(world, post('/v1.41/volumes/prune'))));
      expect(volumes.VolumesDeleted.toSorted()).toEqual(['owndata', 'useless']);
      await succeed(world, post('/images/prune?filters=%7B%22dangling%22%3A%5B%22false%22%5D%7D'));
      await succeed(world, post('/volumes/create', { Name: 'owndata' }));
    },
  },
  {
    row: 'whole-engine answers',
    name: 'stats and sizes of others are those of nobody',
    run: async (world) => {
      await expectIndistinct(world, world.references.container, (name) =>
        get(`/containers/${name}/stats?stream=false&one-shot=1`),
      );
      await expectIndistinct(world, world.references.container, (name) => get(`/containers/${name}/json?size=true`));
    },
  },
];

export const wholeCases: readonly AttackCase[] = [...filterCases, ...whole];
