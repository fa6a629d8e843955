/**
 * What do people notice of a container that moves, sleeps or is cloned?
 *
 * The app is in containers of a node with two hosts. Load comes from a process of its own: `--rate` requests a second (open loop: three of five GET, one
 * 64 KiB POST, one chunked upload) over kept HTTPS connections, server-sent events and WebSockets. Only commands drive the node.
 *
 *   memory   moves with `--sizes` MiB of live memory, there and back           growth   how the blackout grows with memory (`--growth`, MiB)
 *   dirty    how it grows with the rate of changed pages (`--dirty`, MiB/s)    wake     from sleep to the first byte; a thousand first requests
 *   clone    20 warm copies beside cold starts                                 peers    docker's own checkpoint, and stop and start, in plain dockerd
 *
 * `blackoutMs` is the longest time between two good answers, whichever requests they answer; it is what goals speak of. `latencyWorstMs` is the
 * largest time from the moment at which a request was due to the end of its answer.
 *
 * `--parts …` `--rounds N` (50) `--growth-rounds N` (20) `--peer-rounds N` (20) `--rate N` (200) `--quick`: three rounds of all.
 */
import { parseArgs } from 'node:util';
import { machine, versions } from './machine.ts';
import type { LoadSettings } from './migration/load.ts';
import { touchMsPerGib } from './migration/memory-touch.ts';
import { clones } from './migration/parts/clone.ts';
import { movesOf } from './migration/parts/moves.ts';
import { peers } from './migration/parts/peers.ts';
import { wakes } from './migration/parts/wake.ts';
import type { Scene } from './migration/scene.ts';
import { withScene } from './migration/scene.ts';

const { values } = parseArgs({
  options: {
    parts: { type: 'string', default: 'memory,growth,dirty,wake,clone,peers' },
    rounds: { type: 'string', default: '50' },
    'growth-rounds': { type: 'string', default: '20' },
    'peer-rounds': { type: 'string', default: '20' },
    sizes: { type: 'string', default: '100,512' },
    growth: { type: 'string', default: '50,100,256,512,1024,2048,4096' },
    dirty: { type: 'string', default: '0,5,20,50,100,200' },
    'dirty-size': { type: 'string', default: '512' },
    rate: { type: 'string', default: '200' },
    quick: { type: 'boolean', default: false },
  },
});
const parts = new Set(values.parts.split(','));
const count = (text: string): number => (values.quick ? Math.min(3, Number(text)) : Number(text));
const numbers = (text: string): readonly number[] => text.split(',').map(Number);
const rounds = count(values.rounds);
const growthRounds = count(values['growth-rounds']);
const peerRounds = count(values['peer-rounds']);
const load: LoadSettings = { ratePerSecond: Number(values.rate), connectionsMax: 128, events: 4, webSockets: 4 };
const CROWD_ROUNDS = 5;
const GOALS = {
  memory: { 100: { blackoutP50Ms: 300, blackoutP99Ms: 1000 }, 512: { blackoutP50Ms: 600 } },
  failed: 0,
  duplicated: 0,
  afterFreezeShare: 0.05,
  wakeFirstByteP50Ms: 400,
  clonesInColdStarts: 5,
};

const startedMs = performance.now();
function say(line: string): void {
  process.stderr.write(`${((performance.now() - startedMs) / 1000).toFixed(1).padStart(7)} s  ${line}\n`);
}

async function nodeParts(scene: Scene): Promise<Record<string, unknown>> {
  const results: Record<string, unknown> = {};
  if (parts.has('memory')) {
    const rows: object[] = [];
    for (const liveMib of numbers(values.sizes))
      rows.push(await movesOf({ scene, rounds, load, say }, { name: `m${String(liveMib)}`, liveMib }));
    results['memory'] = rows;
  }
  const some = { scene, rounds: growthRounds, load, say };
  if (parts.has('growth')) {
    const rows: object[] = [];
    for (const liveMib of numbers(values.growth)) rows.push(await movesOf(some, { name: `g${String(liveMib)}`, liveMib }));
    results['growth'] = rows;
  }
  if (parts.has('dirty')) {
    const rows: object[] = [];
    const liveMib = Number(values['dirty-size']);
    for (const dirtyMibPerSecond of numbers(values.dirty))
      rows.push(await movesOf(some, { name: `d${String(dirtyMibPerSecond)}`, liveMib, dirtyMibPerSecond }));
    results['dirty'] = rows;
  }
  if (parts.has('wake')) results['wake'] = await wakes({ ...some, crowdRounds: count(String(CROWD_ROUNDS)) });
  if (parts.has('clone')) results['clone'] = await clones(some);
  return results;
}

const before = await touchMsPerGib();
const results: Record<string, unknown> = {};
if (['memory', 'growth', 'dirty', 'wake', 'clone'].some((part) => parts.has(part)))
  Object.assign(results, await withScene(nodeParts));
if (parts.has('peers')) results['peers'] = await peers({ sizesMib: numbers(values.sizes), rounds: peerRounds, load, say });
const about = {
  bench: 'migration',
  machine: machine(),
  versions: versions(),
  touchMsPerGib: { before, after: await touchMsPerGib() },
  load,
  compared: 'blackoutMs: the longest time between two good answers, of whatever kind, in the window of a move',
  goals: GOALS,
};
process.stdout.write(`${JSON.stringify({ ...about, ...results }, undefined, 2)}\n`);
