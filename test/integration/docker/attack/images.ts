/** Attacks on other tenants' images, and on the node through registries. */
import { buffer } from 'node:stream/consumers';
import { pack } from 'tar-stream';
import { expect } from 'vitest';
import * as z from 'zod';
import { engineReference } from '#caas/images/image-engines.ts';
import { dockerfileOf, RARE, strangerOf, tarWith } from '../../../support/attack.ts';
import type { AttackWorld } from '../../../support/attack.ts';
import { imageArchive } from '../../../support/image-archive.ts';
import { create, filtersQuery, get, indistinct, messageOf, post, remove, succeed } from './cases.ts';
import type { AttackCase } from './cases.ts';

const TAR = { 'content-type': 'application/x-tar' };
const path = (name: string): string => name.replaceAll('@', '%40');

const onImages: readonly AttackCase[] = [
  ...indistinct('images', 'image', {
    inspect: (name) => get(`/images/${path(name)}/json`),
    history: (name) => get(`/images/${path(name)}/history`),
    tag: (name) => post(`/images/${path(name)}/tag?repo=loot&tag=1`),
    remove: (name) => remove(`/images/${path(name)}`),
    'remove by force': (name) => remove(`/images/${path(name)}?force=1&noprune=0`),
    save: (name) => get(`/images/${path(name)}/get`),
    'save several': (name) => get(`/images/get?names=${encodeURIComponent(name)}`),
    run: (name) => create({ Image: name }),
    'run by a key in lower case': (name) => create(`{"image":${JSON.stringify(name)}}`),
    push: (name) => post(`/images/${path(name)}/push`),
    'ask the registry about it': (name) => get(`/distribution/${path(name)}/json`),
    'list by reference': (name) => get(`/images/json?${filtersQuery({ reference: [name] })}`),
    'list what came before': (name) => get(`/images/json?${filtersQuery({ before: [name] })}`),
    'list what came after': (name) => get(`/images/json?${filtersQuery({ since: [name] })}`),
  }),
  {
    row: 'images',
    name: 'a name that another tenant has is free, and means one’s own',
    run: async (world) => {
      await succeed(world, post('/images/own:1/tag?repo=quartz&tag=7'));
      const mine = await succeed(world, get('/images/quartz:7/json'));
      expect(mine).not.toContain(world.references.image[0]);
      await succeed(world, remove('/images/quartz:7'));
    },
  },
  {
    row: 'images',
    name: 'layers that are shared show nobody else’s names',
    run: async (world) => {
      // The very image of the victim, made by the attacker: the content is one, the names are not.
      const config = { Env: ['WHO=globex'], Cmd: ['sleep', '3600'], Labels: { owner: 'globex' } };
      const body = await imageArchive({ repoTags: ['same:1'], rootFs: world.rootFs, config });
      await succeed(world, { ...post('/images/load', body), headers: TAR });
      const seen = z
        .object({ Id: z.string(), RepoTags: z.array(z.string()) })
        .parse(JSON.parse(await succeed(world, get('/images/same:1/json'))));
      expect(seen).toEqual({ Id: world.references.image[0], RepoTags: ['same:1'] });
      await succeed(world, remove(`/images/${seen.Id}?force=1`));
    },
  },
];

/** What the engine calls the victim's image: whoever could choose names of the engine would own it. */
function engineName(world: AttackWorld): string {
  const { repository, tag } = engineReference(world.references.image[0] ?? '');
  return `${repository}:${tag}`;
}

/** Loads an archive that names what is not the attacker's, and takes back what it made. */
async function loadAs(world: AttackWorld, names: readonly string[]): Promise<void> {
  const body = await imageArchive({ repoTags: names, rootFs: world.rootFs, config: { Env: ['WHO=forger'] } });
  const answer = await world.ask({ ...post('/images/load', body), headers: TAR });
  expect([200, 400]).toContain(answer.status);
  for (const name of names) await world.ask(remove(`/images/${name}?force=1`));
}

async function refuseArchive(world: AttackWorld, body: Buffer): Promise<void> {
  const answer = await world.ask({ ...post('/images/load', body), headers: TAR });
  expect(answer.status, answer.text).toBe(400);
  messageOf(answer);
}

async function tar(...entries: readonly (readonly [name: string, text: string])[]): Promise<Buffer> {
  const packing = pack();
  for (const [name, text] of entries) packing.entry({ name }, text);
  packing.finalize();
  return await buffer(packing);
}

const manifest = (tag: string): string => JSON.stringify([{ Config: 'c.json', RepoTags: [tag], Layers: [] }]);

const loads: readonly AttackCase[] = [
  {
    row: 'image load',
    name: 'another tenant’s name is the loader’s own',
    run: async (world) => await loadAs(world, ['quartz:7', 'mica/feldspar:9']),
  },
  {
    row: 'image load',
    name: 'the engine’s name of another tenant’s image is the loader’s own',
    run: async (world) => await loadAs(world, [engineName(world)]),
  },
  {
    row: 'image load',
    name: 'a second manifest behind the first is refused',
    run: async (world) =>
      await refuseArchive(world, await tar(['manifest.json', '[]'], ['x/../manifest.json', manifest(engineName(world))])),
  },
  {
    row: 'image load',
    name: 'the old list of repositories is no way in',
    run: async (world) =>
      await refuseArchive(
        world,
        await tar(['repositories', JSON.stringify({ [engineName(world).split(':')[0] ?? '']: { '7': 'abc' } })]),
      ),
  },
  {
    row: 'image load',
    name: 'entries that climb are refused',
    run: async (world) => await refuseArchive(world, await tar(['../../etc/cron.d/x', 'x'], ['manifest.json', '[]'])),
  },
];

/** Loads an archive with one layer, and blanks what another layer would have for it. */
async function loadLayer(world: AttackWorld, layer: Buffer): Promise<string> {
  const body = await imageArchive({ repoTags: ['found:1'], rootFs: layer, config: { Env: ['WHO=acme'] } });
  const text = await succeed(world, { ...post('/images/load', body), headers: TAR });
  const removed = await succeed(world, remove('/images/found:1'));
  return `${text}${removed}`.replaceAll(/[0-9a-f]{12,64}/g, 'DIGEST');
}

const shared: readonly AttackCase[] = [
  {
    row: 'image load',
    name: 'a layer that another tenant has is loaded and removed like one that nobody has',
    run: async (world) => {
      const theirs = await loadLayer(world, await tarWith('rare', RARE));
      const nobodys = await loadLayer(world, await tarWith('rare', RARE.replaceAll('ingot', 'stone')));
      expect(theirs).toBe(nobodys);
      expect(theirs).toContain('Loading layer');
    },
  },
  {
    row: 'classic build',
    name: 'a step that another tenant built on the same image is no cache',
    run: async (world) => {
      const config = { Env: ['WHO=globex'], Cmd: ['sleep', '3600'], Labels: { owner: 'globex' } };
      const body = await imageArchive({ repoTags: ['same:1'], rootFs: world.rootFs, config });
      await succeed(world, { ...post('/images/load', body), headers: TAR });
      const context = await tarWith('Dockerfile', dockerfileOf('same:1'));
      const build = async (): Promise<string> => await succeed(world, { ...post('/build?t=copied:1', context), headers: TAR });
      expect(await build()).not.toContain('Using cache');
      expect(await build()).toContain('Using cache');
      await succeed(world, remove('/images/copied:1'));
      await succeed(world, remove('/images/same:1'));
    },
  },
];

const registryPlaces = ['169.254.169.254', '127.0.0.1:1', 'localhost:2375', '10.0.0.1:5000', '[::1]:80'];

/** Asks for the same through addresses inside of the node's network; none may tell what listens there. */
function insideCase(name: string, callOf: (place: string) => ReturnType<typeof get>): AttackCase {
  return {
    row: 'registries',
    name: `${name}: addresses inside of the node’s network are not asked`,
    run: async (world) => {
      // The node's own metrics port listens, port 1 does not: whoever can tell them apart scans the network.
      const open = `127.0.0.1:${String(world.node.ports.metrics)}`;
      for (const place of [...registryPlaces, open]) {
        const answer = await world.ask(callOf(place));
        const failed = answer.status >= 400 || /"error"/.test(answer.text);
        expect(failed, `${place}: ${String(answer.status)} ${answer.text}`).toBe(true);
        expect(answer.text).not.toMatch(/refused|no route|timeout|HELP|process_cpu/i);
      }
      const [heard, silent] = [await world.ask(callOf(open)), await world.ask(callOf('127.0.0.1:1'))];
      const shape = (text: string): string => text.replaceAll(/127\.0\.0\.1:\d+/g, 'PLACE');
      expect([heard.status, shape(heard.text)]).toEqual([silent.status, shape(silent.text)]);
    },
  };
}

const registries: readonly AttackCase[] = [
  insideCase('pull', (place) => post(`/images/create?fromImage=${encodeURIComponent(place)}/x&tag=1`)),
  insideCase('import from a URL', (place) => post(`/images/create?fromSrc=${encodeURIComponent(`http://${place}/x`)}`)),
  insideCase('login', (place) => post('/auth', { username: 'x', password: 'y', serveraddress: `http://${place}/v2/` })),
  insideCase('distribution', (place) => get(`/distribution/${place}/x:1/json`)),
  insideCase('search', (place) => get(`/images/search?term=${encodeURIComponent(`${place}/x`)}`)),
  {
    row: 'registries',
    name: 'push of another tenant’s image is answered like push of none',
    run: async (world) => {
      for (const name of ['quartz', 'mica/feldspar']) {
        const stranger = strangerOf(name);
        const [theirs, nobodys] = [
          await world.ask(post(`/images/${name}/push?tag=7`)),
          await world.ask(post(`/images/${stranger}/push?tag=7`)),
        ];
        expect([theirs.status, theirs.text.replaceAll(name, 'NAME')]).toEqual([
          nobodys.status,
          nobodys.text.replaceAll(stranger, 'NAME'),
        ]);
      }
    },
  },
  {
    row: 'images',
    name: 'the engine’s own names of one’s own images mean nothing',
    run: async ({ ask }) => {
      const { Id } = z.object({ Id: z.string() }).parse(JSON.parse(await succeed({ ask }, get('/images/own:1/json'))));
      const { repository, tag } = engineReference(Id);
      const name = `${repository}:${tag}`;
      expect((await ask(get(`/images/${name}/json`))).status).toBe(404);
      expect((await ask(remove(`/images/${name}`))).status).toBe(404);
    },
  },
];

export const imageCases: readonly AttackCase[] = [...onImages, ...loads, ...shared, ...registries];
