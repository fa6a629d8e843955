/** Docker's own clients say the same at Écluse as at a plain dockerd: hundreds of commands, side by side. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { findProgram } from '#isolation/program-path.ts';
import { busyboxTar } from '../support/docker-api.ts';
import { imageArchive } from '../support/image-archive.ts';
import { addTenant, freePort, run, startNode } from '../support/node.ts';
import { startPlainDocker } from '../support/plain-docker.ts';
import { startRegistry } from '../support/registry.ts';
import { commandsOf, compareTranscripts, mismatchText } from '../support/transcript.ts';
import type { Scenario, TranscriptOptions } from '../support/transcript.ts';
import { buildScenarios } from './scenarios/build.ts';
import { containerScenarios } from './scenarios/containers.ts';
import { createFlagScenarios } from './scenarios/create-flags.ts';
import { fileScenarios } from './scenarios/files.ts';
import { imageScenarios } from './scenarios/images.ts';
import { networkScenarios } from './scenarios/networks.ts';
import { registryScenarios } from './scenarios/registry.ts';
import { streamScenarios } from './scenarios/streams.ts';
import { systemScenarios } from './scenarios/system.ts';
import { volumeScenarios } from './scenarios/volumes.ts';

const SCENARIOS: readonly Scenario[] = [
  ...containerScenarios,
  ...createFlagScenarios,
  ...streamScenarios,
  ...fileScenarios,
  ...imageScenarios,
  ...networkScenarios,
  ...volumeScenarios,
  ...systemScenarios,
  ...buildScenarios,
  ...registryScenarios,
];
const COMMANDS_MIN = 150;

const CORE = SCENARIOS.filter((scenario) => scenario.core === true);

/** Debian's client, and the one that the machine finds first: a newer one, or the same. */
const DEBIAN_CLIENT = '/usr/bin/docker';
const FIRST_CLIENT = findProgram('docker') ?? DEBIAN_CLIENT;

/** The oldest version that Écluse serves; the newest is what the newer client negotiates. */
const VERSION_MIN = '1.24';

/** Who speaks, and how. Each has a tenant and a dockerd of its own, so that all can speak at the same time: most of it is waiting for containers. */
const SPEAKERS = [
  { tenant: 'first', client: FIRST_CLIENT, version: undefined, scenarios: SCENARIOS },
  { tenant: 'oldest', client: FIRST_CLIENT, version: VERSION_MIN, scenarios: CORE },
  { tenant: 'debian', client: DEBIAN_CLIENT, version: undefined, scenarios: CORE },
] as const;

interface Lane {
  readonly name: string;
  readonly scenarios: readonly Scenario[];
  readonly options: TranscriptOptions;
}

let resources: AsyncDisposableStack | undefined;
let lanes: readonly Lane[];

beforeAll(async () => {
  await using started = new AsyncDisposableStack();
  const port = await freePort();
  const registry = `127.0.0.1:${String(port)}`;
  const config = { registries: [`http://${registry}`, 'http://127.0.0.1:1'] };
  const [node, ...plains] = await Promise.all([
    startNode({ hosts: ['a'], config }),
    ...SPEAKERS.map(async () => await startPlainDocker()),
  ]);
  for (const resource of [node, ...plains]) started.use(resource);
  started.use(await startRegistry(port));
  for (const beside of await Promise.all(plains.map(async ({ spawnBeside }) => await startRegistry(port, spawnBeside))))
    started.use(beside);
  const archive = await imageArchive({ repoTags: ['bb:latest'], rootFs: await busyboxTar(node.dataDir) });
  lanes = await Promise.all(
    SPEAKERS.map(async ({ tenant, client, version, scenarios }, index) => {
      await addTenant(node, tenant);
      const plain = plains[index];
      if (plain === undefined) throw new Error('every speaker has a dockerd');
      const variables = version === undefined ? {} : { DOCKER_API_VERSION: version };
      const sides = {
        docker: { env: { ...plain.env, ...variables } },
        ecluse: { env: { ...node.dockerEnv(tenant), ...variables } },
      };
      const imageIds = await loadEverywhere(archive, [sides.docker.env, sides.ecluse.env]);
      const name = `${client} with ${version === undefined ? 'the version that it negotiates' : `API version ${version}`}`;
      return { name, scenarios, options: { client, ...sides, imageIds, values: { registry } } };
    }),
  );
  resources = started.move();
});

afterAll(async () => {
  await resources?.disposeAsync();
});

/** Loads the image that all scenarios begin with. Returns its id. */
async function loadEverywhere(archive: Buffer, sides: readonly NodeJS.ProcessEnv[]): Promise<readonly string[]> {
  const loaded = await Promise.all(
    sides.map(async (env) => {
      expect(await run('docker', ['load'], { env, input: archive })).toMatchObject({ exitCode: 0 });
      return (await run('docker', ['inspect', '--format', '{{.Id}}', 'bb'], { env })).stdout.trim().replace('sha256:', '');
    }),
  );
  expect(new Set(loaded).size).toBe(1);
  return loaded.slice(0, 1);
}

test('there are enough commands to speak of the client', () => {
  expect(new Set(commandsOf(SCENARIOS)).size).toBeGreaterThanOrEqual(COMMANDS_MIN);
  expect(new Set(commandsOf(CORE)).size).toBeGreaterThanOrEqual(COMMANDS_MIN);
});

test.each(SCENARIOS)('$name', async (scenario) => {
  const speaking = lanes.filter(({ scenarios }) => scenarios.includes(scenario));
  const found = await Promise.all(
    speaking.map(async ({ name, options }) => {
      const text = mismatchText(await compareTranscripts(scenario, options));
      return text === '' ? '' : `${name}:\n${text}`;
    }),
  );
  expect(found.join('')).toBe('');
});
