/**
 * What do slow clients cost the others, and does the edge get rid of them?
 *
 * A canary asks at a constant rate, alone and beside a thousand connections that send their heads or bodies, or read their answers, a few bytes a
 * second, or never. One worker on core 0, all else on core 1. The same against nginx and HAProxy. Then with short limits, to see the slow ones cut;
 * and what the worker holds for clients that never read. `--help` tells the options. Ends with 1 where a request of the canary failed, a slow
 * client outlived its limit, or memory did not come back.
 */
import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { measureAttack } from './endurance/attack.ts';
import type { AttackDeps, AttackResult, AttackSettings } from './endurance/attack.ts';
import { attackTable, cutTable, memoryTable, verdictTable } from './endurance/attack-report.ts';
import { SHORT_LIMITS, measureCut } from './endurance/cut.ts';
import type { CutResult } from './endurance/cut.ts';
import { measureMemory } from './endurance/memory.ts';
import type { MemoryResult } from './endurance/memory.ts';
import { SlowOrigin, TENANT_HOSTS, startEdge, startPeers, targetOf } from './endurance/scene.ts';
import { ATTACKS } from './endurance/slow-crowd.ts';
import { machine } from './machine.ts';
import { BENCH_HOST } from './proxy/configs.ts';
import { note, programVersions } from './proxy/install.ts';
import { Stage } from './proxy/stage.ts';

const USAGE = `usage: npm run bench -- slow-clients [options]
  --attacks A,B      of: ${ATTACKS.map(({ name }) => name).join(', ')} (default: all)
  --parts A,B        of: attack, cut, memory (default: all)
  --peers A,B        beside Écluse, of: nginx, haproxy (default: both; '' for none)
  --rounds N         of the attacks; peers alternate (default 3)
  --seconds N        of each window: before, during, after (default 5)
  --connections N    slow clients (default 1000)
  --canary N         connections of the canary (default 32)
  --rate N           requests a second of the canary (default 500)
  --json FILE        writes the whole result there; without it, to stdout after the tables
`;
/** From there on a result is in doubt. */
const OTHERS_CORES = 0.1;
const PARTS = ['attack', 'cut', 'memory'];

const { values } = parseArgs({
  options: {
    attacks: { type: 'string', default: ATTACKS.map(({ name }) => name).join(',') },
    parts: { type: 'string', default: PARTS.join(',') },
    peers: { type: 'string', default: 'nginx,haproxy' },
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '5' },
    connections: { type: 'string', default: '1000' },
    canary: { type: 'string', default: '32' },
    rate: { type: 'string', default: '500' },
    json: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});
const settings: AttackSettings = {
  seconds: Number(values.seconds),
  connections: Number(values.connections),
  canary: { connections: Number(values.canary), rate: Number(values.rate) },
};
const attacks = ATTACKS.filter(({ name }) => values.attacks.split(',').includes(name));
const parts = new Set(values.parts.split(','));
const peers = (['nginx', 'haproxy'] as const).filter((name) => values.peers.split(',').includes(name));

async function attackAll(deps: AttackDeps): Promise<AttackResult[]> {
  const edge = await startEdge(deps.stage, deps.origin, 'edge', {});
  const targets = [targetOf(edge), ...(await startPeers(deps.stage, deps.origin, peers))];
  const results: AttackResult[] = [];
  for (let round = 0; round < Number(values.rounds); round += 1) {
    for (const attack of attacks) {
      for (const target of targets) {
        const result = await measureAttack(deps, target, attack, settings);
        note(
          `-- ${attack.name} on ${target.name}: p99 ${result.alone.p99Us.toFixed(0)} µs alone, ${result.beside.p99Us.toFixed(0)} µs beside`,
        );
        if (result.othersCores > OTHERS_CORES) note(`   in doubt: other work used ${result.othersCores.toFixed(2)} cores`);
        results.push(result);
      }
    }
  }
  await edge.stop();
  return results;
}

async function cutAll(deps: AttackDeps): Promise<CutResult[]> {
  const results: CutResult[] = [];
  const edge = await startEdge(deps.stage, deps.origin, 'short', SHORT_LIMITS);
  for (const attack of attacks) {
    note(`-- ${attack.name} with short limits`);
    results.push(await measureCut(deps, edge, attack, settings));
  }
  await edge.stop();
  return results;
}

async function fillMemory(deps: AttackDeps): Promise<MemoryResult[]> {
  const results: MemoryResult[] = [];
  for (const hosts of [[BENCH_HOST], TENANT_HOSTS]) {
    note(`-- memory, ${String(hosts.length)} tenants`);
    const edge = await startEdge(deps.stage, deps.origin, `memory-${String(hosts.length)}`, {});
    results.push(await measureMemory(deps, edge, hosts, settings));
    await edge.stop();
  }
  return results;
}

/** What must not be, whatever the machine. */
function faultsOf(attacked: readonly AttackResult[], cut: readonly CutResult[], memory: readonly MemoryResult[]): string[] {
  const ours = attacked.filter(({ target }) => target === 'ecluse');
  return [
    ...ours
      .filter(({ canaryFailures }) => canaryFailures > 0)
      .map((one) => `${one.attack}: ${String(one.canaryFailures)} requests of the canary failed`),
    ...cut
      .filter(({ canaryFailures }) => canaryFailures > 0)
      .map((one) => `${one.attack}, cut: ${String(one.canaryFailures)} requests of the canary failed`),
    ...cut.filter(({ left }) => left > 0).map((one) => `${one.attack}: ${String(one.left)} slow clients outlived their limit`),
    ...memory
      .filter(({ returned }) => !returned)
      .map((one) => `memory, ${one.name}: ${one.keptMb.toFixed(1)} MB did not come back`),
    ...memory.filter(({ paused }) => !paused).map((one) => `memory, ${one.name}: the origin was not made to wait`),
  ];
}

async function run(): Promise<void> {
  const on = machine();
  await using stage = await Stage.open();
  const deps = { stage, origin: await SlowOrigin.start(stage) };
  const attacked = parts.has('attack') ? await attackAll(deps) : [];
  if (attacked.length > 0) process.stdout.write(`${attackTable(attacked)}\n\n${verdictTable(attacked)}\n\n`);
  const cut = parts.has('cut') ? await cutAll(deps) : [];
  if (cut.length > 0) process.stdout.write(`${cutTable(cut)}\n\n`);
  const memory = parts.has('memory') ? await fillMemory(deps) : [];
  if (memory.length > 0) process.stdout.write(`${memoryTable(memory)}\n\n`);
  const faults = faultsOf(attacked, cut, memory);
  const result = {
    bench: 'slow-clients',
    argv: process.argv.slice(2),
    machine: on,
    versions: await programVersions(),
    attacked,
    cut,
    memory,
    faults,
  };
  if (values.json === undefined) process.stdout.write(`${JSON.stringify(result)}\n`);
  else await writeFile(values.json, `${JSON.stringify(result, undefined, 1)}\n`);
  for (const fault of faults) note(`!! ${fault}`);
  if (faults.length > 0) process.exitCode = 1;
}

for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(name, () => {
    // oxlint-disable-next-line unicorn/no-process-exit -- the stage ends what it started on `exit`
    process.exit(1);
  });
}
if (values.help) process.stdout.write(USAGE);
else await run();
