/**
 * One tenant attacks what another has, by every row of the danger table of the Docker API. After each attack the victim heard nothing and the
 * attacker has what it had; after each group everything of the victim's, and of the engine's, is as it was.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { OpenApi } from '../../../support/openapi.ts';
import { publishedApi } from '../../../support/openapi-sources.ts';
import { openAttackWorld } from '../../../support/attack.ts';
import type { AttackWorld } from '../../../support/attack.ts';
import { badInputCases } from './bad-input.ts';
import { buildCases } from './build.ts';
import type { AttackCase } from './cases.ts';
import { createFieldCases } from './create-fields.ts';
import { wholeCases } from './events-filters-prune.ts';
import { execAndStreamCases } from './exec-and-streams.ts';
import { imageCases } from './images.ts';
import { networkCases } from './networks.ts';
import { pathCases } from './paths-and-versions.ts';
import { referenceCases } from './references.ts';
import { CASES_A_ROW_MIN, ROWS } from './rows.ts';
import { timingCases } from './timing.ts';
import { volumeCases } from './volumes.ts';

const AREAS: Readonly<Record<string, readonly AttackCase[]>> = {
  'create fields': createFieldCases,
  references: referenceCases,
  'paths and versions': pathCases,
  networks: networkCases,
  volumes: volumeCases,
  images: imageCases,
  build: buildCases,
  'exec and streams': execAndStreamCases,
  'events, filters, prune': wholeCases,
  'bad input': badInputCases,
  timing: timingCases,
};

let world: AttackWorld;
let belongings: unknown;
let state: unknown;

beforeAll(async () => {
  world = await openAttackWorld();
  belongings = await world.belongings();
  state = await world.state();
});

afterAll(async () => {
  await world[Symbol.asyncDispose]();
});

describe('the suite itself', () => {
  const cases = Object.values(AREAS).flat();

  test('has at least three cases for every row', () => {
    const counts = Map.groupBy(cases, ({ row }) => row);
    const poor = Object.keys(ROWS).filter(
      (row) => ([...counts].find(([known]) => known === row)?.[1].length ?? 0) < CASES_A_ROW_MIN,
    );
    expect(poor).toEqual([]);
  });

  test('has no case twice', () => {
    const names = cases.map(({ row, name }) => `${row}: ${name}`);
    expect(names.filter((name, index) => names.indexOf(name) !== index)).toEqual([]);
  });

  test('speaks of things that the victim has', async () => {
    const found = async (path: string): Promise<number> => (await world.askAsVictim({ path })).status;
    const { container, image, network, volume, exec } = world.references;
    // Ids in upper case, parts of names and parts of session ids mean nothing in Docker either.
    for (const name of container.filter(
      (reference) => !/^[0-9A-F]{64}$/.test(reference) || reference === reference.toLowerCase(),
    )) {
      expect(await found(`/containers/${encodeURIComponent(name)}/json`), name).toBe(200);
    }
    for (const name of image.filter((reference) => !reference.includes('@')))
      expect(await found(`/images/${name}/json`), name).toBe(200);
    for (const name of network.slice(0, 4)) expect(await found(`/networks/${name}`), name).toBe(200);
    expect(await found(`/volumes/${volume[0] ?? ''}`)).toBe(200);
    expect(await found(`/exec/${exec[0] ?? ''}/json`)).toBe(200);
  });
});

describe.each(Object.entries(AREAS))('%s', (_area, cases) => {
  const rows = [...Map.groupBy(cases, ({ row }) => row)];

  describe.each(rows)('%s', (_row, ofRow) => {
    test.each(ofRow.map((one) => [one.name, one] as const))('%s', async (_name, attack) => {
      await attack.run(world);
      expect(world.heard(), 'the victim’s events').toEqual([]);
      expect(world.cut(), 'the victim’s streams').toEqual([]);
      // What one case leaves behind is that case’s fault, not the next one’s too.
      const before = belongings;
      belongings = await world.belongings();
      expect(belongings).toEqual(before);
    });

    test('the victim and the engine have what they had', async () => {
      const before = state;
      state = await world.state();
      expect(state).toEqual(before);
    });
  });
});

describe('in the end', () => {
  /** The operations that name an object in their path, as Docker documents them. */
  async function namingOperations(): Promise<OpenApi> {
    const { documents } = await publishedApi();
    return new OpenApi('1.41', documents.get('1.41') ?? {});
  }

  test('whatever was refused was refused in Docker’s form', () => {
    expect(world.misshapen).toEqual([]);
  });

  test('everything that Docker can do to an object was tried on one of the victim’s', async () => {
    const api = await namingOperations();
    const references = Object.values(world.references).flatMap((list) =>
      list.flatMap((one) => [one, encodeURIComponent(one), one.replaceAll('@', '%40')]),
    );
    const tried = new Set(
      world.asked.flatMap(({ method = 'GET', path }) => {
        const [place = ''] = path.replace(/^\/v1\.\d\d\//, '/').split('?');
        return references.some((reference) => place.includes(reference)) ? [api.operationOf(method, place)] : [];
      }),
    );
    const objects = /^[A-Z]+ \/(?:containers|exec|images|networks|volumes|distribution)\/.*\{/;
    expect(api.operations.filter((name) => objects.test(name) && !tried.has(name))).toEqual([]);
  });
});
