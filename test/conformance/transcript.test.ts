/** Docker's own clients say the same at Écluse as at a plain dockerd: hundreds of commands, side by side. */
import { existsSync, realpathSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { findProgram } from '#isolation/program-path.ts';
import { busyboxTar } from '../support/docker-api.ts';
import { imageArchive } from '../support/image-archive.ts';
import { addTenant, run, startNode } from '../support/node.ts';
import type { TestNode } from '../support/node.ts';
import { startPlainDocker } from '../support/plain-docker.ts';
import type { PlainDocker } from '../support/plain-docker.ts';
import { commandsOf, compareTranscripts } from '../support/transcript.ts';
import type { Mismatch, Scenario } from '../support/transcript.ts';
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

/** Debian's client and the one that the machine finds first; the same where there is one. */
const DEBIAN_CLIENT = '/usr/bin/docker';
const FIRST_CLIENT = findProgram('docker') ?? DEBIAN_CLIENT;
const CLIENTS = [...new Set([FIRST_CLIENT, DEBIAN_CLIENT].filter((path) => existsSync(path)).map((path) => realpathSync(path)))];

/** The oldest version that both serve, and the newest one. */
const VERSIONS = ['1.24', '1.41'];

let plain: PlainDocker;
let node: TestNode;
let imageIds: readonly string[];

beforeAll(async () => {
  [plain, node] = await Promise.all([startPlainDocker(), startNode({ hosts: ['a'] })]);
  await addTenant(node, TENANT);
  const archive = await imageArchive({ repoTags: ['bb:latest'], rootFs: await busyboxTar(node.dataDir) });
  for (const env of [plain.env, node.dockerEnv(TENANT)]) {
    expect(await run('docker', ['load'], { env, input: archive })).toMatchObject({ exitCode: 0 });
  }
  const { stdout } = await run('docker', ['inspect', '--format', '{{.Id}}', 'bb'], { env: plain.env });
  imageIds = [stdout.trim().replace('sha256:', '')];
});

afterAll(async () => {
  await Promise.all([plain[Symbol.asyncDispose](), node[Symbol.asyncDispose]()]);
});

async function mismatchesOf(scenario: Scenario, client: string, variables: NodeJS.ProcessEnv = {}): Promise<readonly Mismatch[]> {
  const docker = { env: { ...plain.env, ...variables } };
  const ecluse = { env: { ...node.dockerEnv(TENANT), ...variables } };
  return await compareTranscripts(scenario, { client, docker, ecluse, imageIds });
}

test('there are enough commands to speak of the client', () => {
  expect(new Set(commandsOf(SCENARIOS)).size).toBeGreaterThanOrEqual(COMMANDS_MIN);
});

describe.each(CLIENTS)('%s', (client) => {
  test.each(SCENARIOS)('$name', async (scenario) => {
    expect(await mismatchesOf(scenario, client)).toEqual([]);
  });
});

describe.each(VERSIONS)('API version %s', (version) => {
  test.each(SCENARIOS.filter((scenario) => scenario.everyVersion === true))('$name', async (scenario) => {
    expect(await mismatchesOf(scenario, FIRST_CLIENT, { DOCKER_API_VERSION: version })).toEqual([]);
  });
});
