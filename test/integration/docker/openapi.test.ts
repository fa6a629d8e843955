/**
 * Every answer of the Docker endpoint against the OpenAPI document of its version, and the same requests at a plain dockerd: where the documents are
 * wrong, dockerd must be of our opinion.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { writeBusyboxImage } from '../../support/busybox-image.ts';
import { credentialsOf } from '../../support/docker-api.ts';
import { addTenant, startNode } from '../../support/node.ts';
import { OpenApi } from '../../support/openapi.ts';
import { DEVIATIONS } from '../../support/openapi-deviations.ts';
import { sceneOf } from '../../support/openapi-scenario.ts';
import type { Scene } from '../../support/openapi-scenario.ts';
import { publishedApi } from '../../support/openapi-sources.ts';
import { perform } from '../../support/openapi-run.ts';
import type { Findings } from '../../support/openapi-run.ts';
import { startPlainDocker } from '../../support/plain-docker.ts';
import { openSocketSpeaker, openSpeaker } from '../../support/speaker.ts';

/** What Debian 12's dockerd speaks: its document must be there, the others may be. */
const MANDATORY = '1.41';
const versionNumber = (version: string): number => Number(version.slice(2));

let folder: string;
let newScene: () => Promise<Scene>;
let documents: ReadonlyMap<string, OpenApi>;
let leftOut: readonly string[];
let ours: Findings;
let plains: Findings;

async function performOurs(): Promise<Findings> {
  await using node = await startNode({ hosts: ['a'] });
  await addTenant(node, 'acme');
  using speaker = openSpeaker(node, await credentialsOf(node, 'acme'));
  return await perform(speaker.ask, await newScene(), documents);
}

async function performPlain(): Promise<Findings> {
  await using plain = await startPlainDocker();
  using speaker = openSocketSpeaker((plain.env['DOCKER_HOST'] ?? '').replace('unix://', ''));
  const known = [...documents].filter(([version]) => versionNumber(version) <= versionNumber(MANDATORY));
  return await perform(speaker.ask, await newScene(), new Map(known));
}

beforeAll(async () => {
  folder = await mkdtemp('/tmp/ecl-scene-');
  const published = await publishedApi();
  leftOut = published.leftOut;
  documents = new Map([...published.documents].map(([version, document]) => [version, new OpenApi(version, document)]));
  for (const line of leftOut) process.stdout.write(`openapi: left out: ${line}\n`);
  const rootFs = join(folder, 'rootfs.tar');
  await writeBusyboxImage(rootFs);
  newScene = async () => await sceneOf(rootFs);
  [ours, plains] = await Promise.all([performOurs(), performPlain()]);
});

afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

test(`the document of API ${MANDATORY} is there`, () => {
  expect([...documents.keys()]).toContain(MANDATORY);
});

test('both engines answer every request of the scene with the status that it names', () => {
  expect(ours.wrongStatuses, 'Écluse').toEqual([]);
  expect(plains.wrongStatuses, 'plain dockerd').toEqual([]);
});

/** Swarm's and plugins', which a tenant has not. */
test('the scene asks for every operation of a tenant', () => {
  const all = [...documents.values()].flatMap((document) => document.operations);
  const operations = new Set(
    all.filter(
      (operation) => !/\/(?:plugins|nodes|services|tasks|secrets|configs|swarm|session)\b|^PUT \/volumes/.test(operation),
    ),
  );
  expect([...operations].filter((operation) => !ours.operations.has(operation)).toSorted()).toEqual([]);
});

const listed = DEVIATIONS.flatMap(({ at, found }) => at.map((place) => `${place} | ${found}`));

test('every answer fits the document of its version, or dockerd’s does not either', () => {
  const keys = new Set(listed);
  const unexplained = [...ours.violations].filter(([key]) => !keys.has(key));
  expect(Object.fromEntries(unexplained.map(([key, where]) => [key, [...where].join(', ')]))).toEqual({});
});

test('what is listed as a fault of the documents is one: dockerd answers so, and we need it', () => {
  // Most entries are about versions whose documents may not be here.
  const judged = leftOut.length > 0 ? [] : listed;
  expect(
    judged.filter((key) => !ours.violations.has(key)),
    'not needed any more',
  ).toEqual([]);
  expect(
    judged.filter((key) => !plains.violations.has(key)),
    'not what dockerd does',
  ).toEqual([]);
});
