/** Docker's own clients say the same at Écluse as at a plain dockerd: hundreds of commands, side by side. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { findProgram } from '#isolation/program-path.ts';
import { busyboxTar } from '../support/docker-api.ts';
import { imageArchive } from '../support/image-archive.ts';
import { addTenant, freePort, run, startNode } from '../support/node.ts';
import type { TestNode } from '../support/node.ts';
import { startPlainDocker } from '../support/plain-docker.ts';
import type { PlainDocker } from '../support/plain-docker.ts';
import { startRegistry } from '../support/registry.ts';
import { commandsOf, compareTranscripts, mismatchText } from '../support/transcript.ts';
import type { Scenario } from '../support/transcript.ts';
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
const TENANT = 'acme';

const CORE = SCENARIOS.filter((scenario) => scenario.core === true);

/** Debian's client, and the one that the machine finds first: a newer one, or the same. */
const DEBIAN_CLIENT = '/usr/bin/docker';
const FIRST_CLIENT = findProgram('docker') ?? DEBIAN_CLIENT;

/** The oldest version that both serve, and the newest: where a newer client and Écluse agree on more, more differs by right. */
const VERSION_MIN = '1.24';
const VERSION_MAX = '1.41';

let plain: PlainDocker;
let node: TestNode;
let registries: AsyncDisposableStack;
let registry: string;
let imageIds: readonly string[];

beforeAll(async () => {
  const port = await freePort();
  registry = `127.0.0.1:${String(port)}`;
  const config = { registries: [`http://${registry}`, 'http://127.0.0.1:1'] };
  [plain, node] = await Promise.all([startPlainDocker(), startNode({ hosts: ['a'], config })]);
  registries = new AsyncDisposableStack();
  registries.use(await startRegistry(port));
  registries.use(await startRegistry(port, plain.spawnBeside));
  await addTenant(node, TENANT);
  const archive = await imageArchive({ repoTags: ['bb:latest'], rootFs: await busyboxTar(node.dataDir) });
  for (const env of [plain.env, node.dockerEnv(TENANT)]) {
    expect(await run('docker', ['load'], { env, input: archive })).toMatchObject({ exitCode: 0 });
  }
  const { stdout } = await run('docker', ['inspect', '--format', '{{.Id}}', 'bb'], { env: plain.env });
  imageIds = [stdout.trim().replace('sha256:', '')];
});

afterAll(async () => {
  await registries.disposeAsync();
  await Promise.all([plain[Symbol.asyncDispose](), node[Symbol.asyncDispose]()]);
});

async function mismatchesOf(scenario: Scenario, client: string, variables: NodeJS.ProcessEnv = {}): Promise<string> {
  const docker = { env: { ...plain.env, ...variables } };
  const ecluse = { env: { ...node.dockerEnv(TENANT), ...variables } };
  return mismatchText(await compareTranscripts(scenario, { client, docker, ecluse, imageIds, values: { registry } }));
}

test('there are enough commands to speak of the client', () => {
  expect(new Set(commandsOf(SCENARIOS)).size).toBeGreaterThanOrEqual(COMMANDS_MIN);
  expect(new Set(commandsOf(CORE)).size).toBeGreaterThanOrEqual(COMMANDS_MIN);
});

describe(`${FIRST_CLIENT} with API version ${VERSION_MAX}`, () => {
  test.each(SCENARIOS)('$name', async (scenario) => {
    expect(await mismatchesOf(scenario, FIRST_CLIENT, { DOCKER_API_VERSION: VERSION_MAX })).toBe('');
  });
});

describe(`${FIRST_CLIENT} with API version ${VERSION_MIN}`, () => {
  test.each(CORE)('$name', async (scenario) => {
    expect(await mismatchesOf(scenario, FIRST_CLIENT, { DOCKER_API_VERSION: VERSION_MIN })).toBe('');
  });
});

describe(`${FIRST_CLIENT} with the version that it negotiates`, () => {
  test.each(CORE)('$name', async (scenario) => {
    expect(await mismatchesOf(scenario, FIRST_CLIENT)).toBe('');
  });
});

describe(`${DEBIAN_CLIENT} with the version that it negotiates`, () => {
  test.each(CORE)('$name', async (scenario) => {
    expect(await mismatchesOf(scenario, DEBIAN_CLIENT)).toBe('');
  });
});
