/** How long an answer takes must not tell whether another tenant has what was asked for. */
import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'vitest';
import { strangerOf } from '../../../support/attack.ts';
import type { AttackWorld } from '../../../support/attack.ts';
import type { ApiCall } from '../../../support/docker-api.ts';
import { create, get, post, remove } from './cases.ts';
import type { AttackCase } from './cases.ts';
import type { Row } from './rows.ts';

const PAIRS = 200;
/** A tenant may begin 200 requests a second. */
const PACE_MS = 5;
/**
 * How decided: of all pairs of one answer about the victim's object and one about a random name, in what share was the victim's slower
 * (Mann-Whitney's U over its maximum)? 0.5 is what an attacker cannot use. For 200 against 200 interleaved answers chance keeps it within
 * 0.5 ± 0.15 in all but one of five million runs whatever the noise of the machine is, since both get the same; a lookup that happens only
 * for existing objects pushes it towards 1. Beyond the margin it is measured again: what is systematic comes again, on the same side.
 */
const MARGIN = 0.15;

async function timeOf(world: AttackWorld, call: ApiCall): Promise<number> {
  const startMs = performance.now();
  const { status } = await world.ask(call);
  const tookMs = performance.now() - startMs;
  expect(status).toBeGreaterThanOrEqual(400);
  expect(status, 'the rate limit').not.toBe(429);
  await delay(Math.max(0, PACE_MS - tookMs));
  return tookMs;
}

/** The share of pairs in which the first is larger; ties count half. */
function shareLarger(ones: readonly number[], others: readonly number[]): number {
  const larger = ones.reduce(
    (sum, one) => sum + others.reduce((count, other) => count + (one > other ? 1 : one === other ? 0.5 : 0), 0),
    0,
  );
  return larger / (ones.length * others.length);
}

async function slowerShare(world: AttackWorld, reference: string, callOf: (reference: string) => ApiCall): Promise<number> {
  const stranger = strangerOf(reference);
  const [theirs, nobodys]: [number[], number[]] = [[], []];
  for (let round = 0; round < PAIRS; round++) {
    // The order changes by chance, so that neither is always the one after a pause.
    const isFirst = Math.random() < 0.5;
    for (const isTheirs of [isFirst, !isFirst])
      (isTheirs ? theirs : nobodys).push(await timeOf(world, callOf(isTheirs ? reference : stranger)));
  }
  return shareLarger(theirs, nobodys);
}

function timing(
  row: Row,
  name: string,
  kind: keyof AttackWorld['references'],
  callOf: (reference: string) => ApiCall,
): AttackCase {
  return {
    row,
    name: `timing of ${name}`,
    run: async (world) => {
      const reference = world.references[kind][0] ?? '';
      for (let warming = 0; warming < 20; warming++) await timeOf(world, callOf(strangerOf(reference)));
      const first = (await slowerShare(world, reference, callOf)) - 0.5;
      if (Math.abs(first) <= MARGIN) return;
      const second = (await slowerShare(world, reference, callOf)) - 0.5;
      const isUsable = Math.abs(second) > MARGIN && Math.sign(first) === Math.sign(second);
      expect(
        isUsable,
        `the victim’s is slower in ${(first + 0.5).toFixed(3)} and ${(second + 0.5).toFixed(3)} of the pairs`,
      ).toBe(false);
    },
  };
}

export const timingCases: readonly AttackCase[] = [
  timing('names and prefixes', 'inspecting a container', 'container', (name) => get(`/containers/${name}/json`)),
  timing('names and prefixes', 'removing a container', 'container', (name) => remove(`/containers/${name}`)),
  timing('names and prefixes', 'inspecting a network', 'network', (name) => get(`/networks/${name}`)),
  timing('names and prefixes', 'inspecting a volume', 'volume', (name) => get(`/volumes/${name}`)),
  timing('images', 'inspecting an image', 'image', (name) => get(`/images/${name}/json`)),
  timing('images', 'running an image', 'image', (name) => create({ Image: name })),
  timing('exec', 'inspecting a session', 'exec', (name) => get(`/exec/${name}/json`)),
  timing('exec', 'making a session', 'container', (name) => post(`/containers/${name}/exec`, { Cmd: ['true'] })),
];
