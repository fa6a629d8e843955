/** From sleep to the first byte: one request, and a thousand at once. Beside it, in the same run: what a stopped container takes (`docker start`). */
import { setTimeout as sleep } from 'node:timers/promises';
import type { FirstRequests } from '../crowd.ts';
import { firstRequests } from '../crowd.ts';
import { engineStartsSince } from '../engine-starts.ts';
import { absenceOf, mustEcluse } from '../lifecycle.ts';
import type { Scene } from '../scene.ts';
import { hostOf, untilAnswers } from '../scene.ts';
import { addedUp, spreadOf, sumOf } from '../summary.ts';

const APP = { name: 'sleeper', liveMib: 30 };
const CROWD = 1000;
/** Engines tell of a start after the first answer may have gone. */
const NEWS_MS = 500;

export interface WakeCourse {
  readonly scene: Scene;
  readonly rounds: number;
  readonly crowdRounds: number;
  readonly say: (line: string) => void;
}

interface Wake extends FirstRequests {
  readonly engineStarts: number;
}

export async function wakes(course: WakeCourse): Promise<object> {
  const { scene, say } = course;
  await scene.runApp(APP);
  try {
    const started = await startsAnew(course);
    const absent = await absenceOf(scene, 'suspend');
    if (absent !== undefined) return { available: false, reason: absent, dockerStart: started };
    const single: Wake[] = [];
    const crowds: Wake[] = [];
    for (let round = 0; round < course.rounds; round += 1) single.push(await wakeBy(scene, 1));
    say(`wake: ${JSON.stringify(rowOf(single))}`);
    for (let round = 0; round < course.crowdRounds; round += 1) crowds.push(await wakeBy(scene, CROWD));
    say(`wake of a crowd: ${JSON.stringify(rowOf(crowds))}`);
    return { available: true, one: rowOf(single), crowd: rowOf(crowds), dockerStart: started };
  } finally {
    await scene.removeApp(APP.name);
  }
}

async function wakeBy(scene: Scene, count: number): Promise<Wake> {
  await mustEcluse(scene, 'suspend', APP.name);
  const sinceMs = Date.now();
  const seen = await firstRequests({ port: scene.node.ports.http, host: hostOf(APP.name) }, count);
  await sleep(NEWS_MS);
  return { ...seen, engineStarts: await engineStartsSince(scene, sinceMs) };
}

function rowOf(wakesSeen: readonly Wake[]): object {
  return {
    rounds: wakesSeen.length,
    requests: sumOf(wakesSeen.map(({ requests }) => requests)),
    answered: sumOf(wakesSeen.map(({ answered }) => answered)),
    others: addedUp(wakesSeen.map(({ others }) => others)),
    /** Of each wake's first answer's median: one request has no other. */
    firstByteMs: spreadOf(wakesSeen.flatMap(({ firstByteMs }) => (firstByteMs === undefined ? [] : [firstByteMs.p50]))),
    slowestMs: spreadOf(wakesSeen.flatMap(({ firstByteMs }) => (firstByteMs === undefined ? [] : [firstByteMs.worst]))),
    engineStartsOfAWake: spreadOf(wakesSeen.map(({ engineStarts }) => engineStarts)),
  };
}

/** `docker stop`, then from `docker start` to the first answer. */
async function startsAnew({ scene, rounds }: WakeCourse): Promise<object> {
  const times: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    await scene.docker('stop', APP.name);
    const startMs = performance.now();
    await scene.docker('start', APP.name);
    await untilAnswers({ port: scene.node.ports.http, host: hostOf(APP.name) });
    times.push(performance.now() - startMs);
  }
  return { rounds, firstByteMs: spreadOf(times) };
}
