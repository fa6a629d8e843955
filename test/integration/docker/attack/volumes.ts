/** Attacks on other tenants' volumes. */
import { expect } from 'vitest';
import * as z from 'zod';
import { create, filtersQuery, get, indistinct, post, remove, succeed } from './cases.ts';
import type { AttackCase } from './cases.ts';

const volumesSchema = z.object({ Volumes: z.array(z.object({ Name: z.string() })).nullable() });

export const volumeCases: readonly AttackCase[] = [
  ...indistinct('names and prefixes', 'volume', {
    'inspect a volume': (name) => get(`/volumes/${name}`),
    'remove a volume': (name) => remove(`/volumes/${name}`),
    'remove a volume by force': (name) => remove(`/volumes/${name}?force=1`),
    'list volumes by name': (name) => get(`/volumes?${filtersQuery({ name: [name] })}`),
    'update a volume': (name) => ({ method: 'PUT', path: `/volumes/${name}?version=1`, body: { Spec: {} } }),
    'containers with a volume': (name) => get(`/containers/json?all=1&${filtersQuery({ volume: [name] })}`),
  }),
  {
    row: 'names and prefixes',
    name: 'a volume of another tenant’s name is empty and one’s own',
    run: async (world) => {
      const body = { Cmd: ['sh', '-c', 'ls /ore; echo mine >/ore/file'], HostConfig: { Binds: ['oredata:/ore'] } };
      await succeed(world, create(body, '?name=digger'));
      await succeed(world, post('/containers/digger/start'));
      await succeed(world, post('/containers/digger/wait'));
      expect(await succeed(world, get('/containers/digger/logs?stdout=1&stderr=1'))).toBe('');
      await succeed(world, remove('/containers/digger'));
      await succeed(world, remove('/volumes/oredata'));
    },
  },
  {
    row: 'volume drivers',
    name: 'the place of a volume is no path of the host',
    run: async (world) => {
      const seen = await succeed(world, get('/volumes/owndata'));
      expect(seen).not.toContain(world.node.dataDir);
      expect(seen).not.toContain('globex');
    },
  },
  {
    row: 'names and prefixes',
    name: 'volumes on the list are one’s own',
    run: async (world) => {
      const listed = volumesSchema.parse(JSON.parse(await succeed(world, get('/volumes')))).Volumes ?? [];
      expect(listed.map(({ Name }) => Name)).toEqual(['owndata']);
    },
  },
];
