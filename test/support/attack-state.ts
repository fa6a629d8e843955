/** Snapshots for the attack suite: everything that the victim can ask about its objects, and what the engine has. Comparable by value. */
import { createHash } from 'node:crypto';
import { request as httpRequest } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { json } from 'node:stream/consumers';
import * as z from 'zod';
import type { AttackWorld } from './attack.ts';
import type { TestNode } from './node.ts';

/** What is another each time that it is asked. */
const RESTLESS = new Set(['Status', 'SystemTime', 'NGoroutines', 'NFd', 'NEventsListener', 'Warnings']);

const STATES = new Set<unknown>(['created', 'running', 'paused', 'exited']);

function settled(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(settled);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      // `Status` of a container in a list is a time; of an inspected one it is its state.
      .filter(([key, inner]) => !RESTLESS.has(key) || (key === 'Status' && STATES.has(inner)))
      .map(([key, inner]) => [key, settled(inner)]),
  );
}

function contentOf(text: string): unknown {
  try {
    return settled(JSON.parse(text));
  } catch {
    return createHash('sha256').update(text).digest('hex');
  }
}

const processesSchema = z.object({ Titles: z.array(z.string()), Processes: z.array(z.array(z.string())) });

/** The commands that run, without their ids and times. */
function commandsOf(text: string): readonly string[] {
  const { Titles, Processes } = processesSchema.parse(JSON.parse(text));
  const column = Titles.findIndex((title) => ['CMD', 'COMMAND'].includes(title));
  return Processes.map((process) => process[column] ?? '').toSorted();
}

export async function theirState(ask: AttackWorld['ask'], references: AttackWorld['references']): Promise<unknown> {
  const [container = '', image = '', network = '', exec = ''] = [
    references.container[0],
    references.image[0],
    references.network[0],
    references.exec[0],
  ];
  const paths = [
    '/info',
    '/containers/json?all=1',
    ...[container, 'marble', 'slate'].map((name) => `/containers/${name}/json`),
    `/containers/${container}/logs?stdout=1&stderr=1&timestamps=1`,
    '/containers/marble/logs?stdout=1&stderr=1&timestamps=1',
    `/containers/${container}/changes`,
    `/containers/${container}/archive?path=/ore`,
    `/exec/${exec}/json`,
    '/images/json?all=1',
    `/images/${image}/json`,
    `/images/${image}/history`,
    '/networks',
    `/networks/${network}`,
    '/volumes',
    '/volumes/oredata',
    '/system/df',
  ];
  const state: Record<string, unknown> = {};
  for (const path of paths) {
    const answer = await ask({ path });
    state[path] = { status: answer.status, content: contentOf(answer.text) };
  }
  state['top'] = commandsOf((await ask({ path: `/containers/${container}/top` })).text);
  return state;
}

const containersSchema = z.array(
  z.object({ Id: z.string(), Names: z.array(z.string()), State: z.string(), Labels: z.unknown() }),
);
const imagesSchema = z.array(z.object({ Id: z.string(), RepoTags: z.array(z.string()).nullable() }));
const networksSchema = z.array(z.object({ Id: z.string(), Name: z.string() }));
const volumesSchema = z.object({ Volumes: z.array(z.object({ Name: z.string() })).nullable() });

/** What the engine itself has, asked behind the node's back. */
export async function engineState(node: TestNode): Promise<unknown> {
  const get = async (path: string): Promise<unknown> => {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    httpRequest({ socketPath: join(node.dataDir, 'hosts', 'a', 'docker.sock'), path }, resolve)
      .once('error', reject)
      .end();
    return await json(await promise);
  };
  const byText = (list: readonly unknown[]): readonly string[] => list.map((item) => JSON.stringify(item)).toSorted();
  const images = imagesSchema.parse(await get('/images/json'));
  return {
    containers: byText(containersSchema.parse(await get('/containers/json?all=1'))),
    networks: byText(networksSchema.parse(await get('/networks'))),
    volumes: byText(volumesSchema.parse(await get('/volumes')).Volumes ?? []),
    images: byText(images.map(({ Id, RepoTags }) => ({ Id, RepoTags: (RepoTags ?? []).toSorted() }))),
  };
}
