/** Attacks that name another tenant's containers: by id, by prefix, by name, in every place that takes one. */
import { expect } from 'vitest';
import * as z from 'zod';
import { engineState } from '../../../support/attack-state.ts';
import { create, expectIndistinct, get, indistinct, post, remove, succeed, UPGRADE } from './cases.ts';
import type { AttackCase } from './cases.ts';

const onContainers: readonly AttackCase[] = [
  ...indistinct('names and prefixes', 'container', {
    inspect: (name) => get(`/containers/${name}/json`),
    'inspect with sizes': (name) => get(`/containers/${name}/json?size=1`),
    start: (name) => post(`/containers/${name}/start`),
    stop: (name) => post(`/containers/${name}/stop?t=0`),
    restart: (name) => post(`/containers/${name}/restart?t=0`),
    kill: (name) => post(`/containers/${name}/kill`),
    pause: (name) => post(`/containers/${name}/pause`),
    unpause: (name) => post(`/containers/${name}/unpause`),
    rename: (name) => post(`/containers/${name}/rename?name=mine`),
    update: (name) => post(`/containers/${name}/update`, { Memory: 128 * 1024 * 1024 }),
    resize: (name) => post(`/containers/${name}/resize?h=1&w=1`),
    wait: (name) => post(`/containers/${name}/wait`),
    'wait for its removal': (name) => post(`/containers/${name}/wait?condition=removed`),
    changes: (name) => get(`/containers/${name}/changes`),
    export: (name) => get(`/containers/${name}/export`),
    stats: (name) => get(`/containers/${name}/stats?stream=false`),
    remove: (name) => remove(`/containers/${name}`),
    'remove by force': (name) => remove(`/containers/${name}?force=1&v=1`),
    commit: (name) => post(`/commit?container=${encodeURIComponent(name)}&repo=loot`, {}),
  }),
  {
    row: 'names and prefixes',
    name: 'names that another tenant has are free',
    run: async (world) => {
      await succeed(world, create({}, '?name=granite'));
      const mine = z.object({ Id: z.string(), Config: z.object({ Labels: z.record(z.string(), z.string()) }) });
      const inspected = mine.parse(JSON.parse(await succeed(world, get('/containers/granite/json'))));
      expect(world.references.container).not.toContain(inspected.Id);
      expect(inspected.Config.Labels).not.toHaveProperty('vein');
      await succeed(world, remove('/containers/granite'));
    },
  },
  {
    row: 'names and prefixes',
    name: 'a rename to a name that another tenant has works, and hides nothing of theirs',
    run: async (world) => {
      await succeed(world, create({}, '?name=pebble'));
      await succeed(world, post('/containers/pebble/rename?name=granite'));
      await succeed(world, remove('/containers/granite'));
    },
  },
  {
    row: 'names and prefixes',
    name: 'prefixes of one digit reach nobody',
    run: async (world) => {
      for (const digit of '0123456789abcdef') {
        const answer = await world.ask(get(`/containers/${digit}/json`));
        if (answer.status === 200) expect(answer.text).toContain('/ownbox');
        else expect([400, 404]).toContain(answer.status);
      }
    },
  },
];

const streams: readonly AttackCase[] = indistinct('wire: streams', 'container', {
  logs: (name) => get(`/containers/${name}/logs?stdout=1&stderr=1`),
  'logs that are followed': (name) => get(`/containers/${name}/logs?stdout=1&follow=1&tail=1`),
  attach: (name) => post(`/containers/${name}/attach?stream=1&stdout=1&logs=1`),
  'attach upgraded': (name) => ({ ...post(`/containers/${name}/attach?stream=1&stdin=1&stdout=1`), headers: UPGRADE }),
  'attach of API 1.24': (name) => ({ ...post(`/v1.24/containers/${name}/attach?stream=1&stdout=1`), headers: UPGRADE }),
  'attach by websocket': (name) => ({
    path: `/containers/${name}/attach/ws?stream=1&stdout=1`,
    headers: {
      connection: 'Upgrade',
      upgrade: 'websocket',
      'sec-websocket-version': '13',
      'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
    },
  }),
  'attach by websocket without a key': (name) => ({
    path: `/containers/${name}/attach/ws?stream=1`,
    headers: { connection: 'Upgrade', upgrade: 'websocket' },
  }),
});

const labelsSchema = z.array(z.string());

/** Engine ids and engine names of the containers, which no tenant may use. */
async function engineNames(world: Parameters<AttackCase['run']>[0]): Promise<readonly string[]> {
  const { containers } = z.object({ containers: labelsSchema }).parse(await engineState(world.node));
  const rows = containers.map((text) => z.object({ Id: z.string(), Names: labelsSchema }).parse(JSON.parse(text)));
  return rows.flatMap(({ Id, Names }) => [Id, Id.slice(0, 12), ...Names.map((name) => name.replace(/^\//, ''))]);
}

const virtual: readonly AttackCase[] = [
  {
    row: 'virtual ids',
    name: 'ids and names of the engine mean nothing in a path',
    run: async (world) => {
      const names = await engineNames(world);
      expect(names.length).toBeGreaterThan(6);
      await expectIndistinct(world, names, (name) => get(`/containers/${name}/json`));
    },
  },
  {
    row: 'virtual ids',
    name: 'nor in filters, nor to act on',
    run: async (world) => {
      const names = await engineNames(world);
      await expectIndistinct(world, names, (name) =>
        get(`/containers/json?all=1&filters=${encodeURIComponent(JSON.stringify({ id: [name] }))}`),
      );
      await expectIndistinct(world, names, (name) => post(`/containers/${name}/stop?t=0`));
      await expectIndistinct(world, names, (name) => remove(`/containers/${name}?force=1`));
    },
  },
  {
    row: 'virtual ids',
    name: 'nor as images, networks or volumes',
    run: async (world) => {
      const state = z
        .object({ images: labelsSchema, networks: labelsSchema, volumes: labelsSchema })
        .parse(await engineState(world.node));
      const tags = state.images.flatMap((text) => z.object({ RepoTags: labelsSchema }).parse(JSON.parse(text)).RepoTags);
      const networks = state.networks.map((text) => z.object({ Id: z.string(), Name: z.string() }).parse(JSON.parse(text)));
      const volumes = state.volumes.map((text) => z.object({ Name: z.string() }).parse(JSON.parse(text)).Name);
      expect(tags.length).toBeGreaterThan(0);
      expect(volumes.length).toBeGreaterThan(0);
      const own = networks.filter(({ Name }) => !['bridge', 'host', 'none'].includes(Name));
      await expectIndistinct(world, tags, (name) => get(`/images/${name}/json`));
      await expectIndistinct(world, [...networks.map(({ Id }) => Id), ...own.map(({ Name }) => Name)], (name) =>
        get(`/networks/${name}`),
      );
      await expectIndistinct(world, volumes, (name) => get(`/volumes/${name}`));
      await expectIndistinct(world, tags, (name) => create({ Image: name }));
    },
  },
];

export const referenceCases: readonly AttackCase[] = [...onContainers, ...streams, ...virtual];
