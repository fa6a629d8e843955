/**
 * Runs a trace through a fleet in simulated time, a minute a step.
 *
 * Moves take the time and the pause that was measured of real ones, with a spread that the planner does not know, and one in a hundred fails.
 * While one goes on, its memory is on both hosts, and each gives a processor to the copy. Hosts that nothing is on are switched off; one that is
 * switched on takes its time.
 */
import type { Move } from '#caas/rebalance/move-plan.ts';
import { DEFAULT_POLICY } from '#caas/rebalance/policy.ts';
import type { Contender, Decision } from './contender.ts';
import { MINUTE_MS, openFleet, put, start, step, takeOff } from './fleet.ts';
import type { SimContainer, SimFleet, SimHost } from './fleet.ts';
import { noiseAt } from './random.ts';
import { count, openTally } from './tally.ts';
import type { Tally } from './tally.ts';
import type { TraceContainer } from './trace.ts';

export interface SimulationOptions {
  readonly hosts: number;
  readonly days: number;
  readonly seed: number;
  /** The usage windows' length. */
  readonly windowMinutes: number;
}

const PLAN_PERIOD_MINUTES = 10;
/** Nothing is counted while windows fill. */
const WARM_UP_MINUTES = 120;
const BOOT_MINUTES = 3;
const OFF_AFTER_MINUTES = 10;
/** `docker restart` of a container that starts at once, measured with `npm run bench -- migration`. */
const RESTART_BLACKOUT_MS = 1195;
const FAILURE_SHARE = 0.01;
const HOUR_MINUTES = 60;
const WINDOW_SLICES = 6;

interface Flight {
  readonly container: SimContainer;
  readonly to: SimHost;
  readonly endMinute: number;
  readonly hasFailed: boolean;
}

interface Simulation {
  readonly fleet: SimFleet;
  readonly contender: Contender;
  readonly tally: Tally;
  readonly seed: number;
  readonly byName: ReadonlyMap<string, SimHost>;
  readonly byId: Map<string, SimContainer>;
  flights: Flight[];
  waiting: TraceContainer[];
  drawn: number;
}

function boot(simulation: Simulation, wanted: number, minute: number): void {
  const booting = simulation.fleet.hosts.filter(({ power }) => power === 'booting').length;
  const off = simulation.fleet.hosts.filter(({ power }) => power === 'off');
  for (const host of off.slice(0, Math.max(0, wanted - booting))) {
    host.power = 'booting';
    host.onAtMinute = minute + BOOT_MINUTES;
    simulation.tally.bootedHosts += 1;
  }
}

function land(simulation: Simulation, minute: number): void {
  const { fleet } = simulation;
  for (const { container, to, hasFailed } of simulation.flights.filter(({ endMinute }) => endMinute <= minute)) {
    container.migratingTo = undefined;
    if (hasFailed || !fleet.running.has(container)) continue;
    takeOff(fleet, container);
    container.movedMinute = minute;
    put(fleet, container, to, minute);
  }
  simulation.flights = simulation.flights.filter(({ endMinute }) => endMinute > minute);
}

/** One move as it turns out: up to half as long again as was thought, seldom shorter. */
function launch(simulation: Simulation, move: Move, minute: number, offsetMs: number): number {
  const { fleet, tally, byId, byName } = simulation;
  const container = byId.get(move.container);
  const to = byName.get(move.to);
  if (container === undefined || to === undefined) throw new Error(`the plan moves what is not there: ${move.container}`);
  simulation.drawn += 1;
  const spread = 0.9 + 0.6 * noiseAt(simulation.seed, simulation.drawn);
  const { fixedBlackoutMs, fixedDurationMs, bytesPerSecond } = DEFAULT_POLICY.move;
  const blackoutMs = (fixedBlackoutMs + (container.memoryBytes * 1000) / bytesPerSecond) * spread;
  const durationMs = blackoutMs + fixedDurationMs * spread;
  const hasFailed = noiseAt(simulation.seed + 1, simulation.drawn) < FAILURE_SHARE;
  tally.moves += 1;
  tally.failedMoves += hasFailed ? 1 : 0;
  tally.blackoutMs += blackoutMs;
  tally.blackoutWorstMs = Math.max(tally.blackoutWorstMs, blackoutMs);
  container.migratingTo = to;
  const busyMilli = Math.round((Math.min(durationMs, MINUTE_MS) / MINUTE_MS) * 1000);
  container.host.extraCpuMilli += busyMilli;
  to.extraCpuMilli += busyMilli;
  to.extraMemoryBytes += container.memoryBytes;
  fleet.recentMoves.push({ tenant: move.tenant, atMs: minute * MINUTE_MS });
  simulation.flights.push({
    container,
    to,
    hasFailed,
    endMinute: minute + Math.max(1, Math.ceil((offsetMs + durationMs) / MINUTE_MS)),
  });
  return durationMs;
}

function launchAll(simulation: Simulation, moves: readonly Move[], minute: number): void {
  let offsetMs = 0;
  const waves = Math.max(0, ...moves.map(({ wave }) => wave + 1));
  for (let wave = 0; wave < waves; wave += 1) {
    const durations = moves.filter((move) => move.wave === wave).map((move) => launch(simulation, move, minute, offsetMs));
    offsetMs += Math.max(0, ...durations);
  }
}

function restartAll(simulation: Simulation, { restarts }: Decision, minute: number): void {
  const { fleet, tally } = simulation;
  for (const { container, to } of restarts) {
    tally.restarts += 1;
    tally.blackoutMs += RESTART_BLACKOUT_MS;
    tally.blackoutWorstMs = Math.max(tally.blackoutWorstMs, RESTART_BLACKOUT_MS);
    // What it had done is lost, though its end stays where the trace has it.
    if (container.trace.shape === 'batch') tally.lostTaskMinutes += minute - container.sinceMinute;
    takeOff(fleet, container);
    put(fleet, container, to, minute);
  }
}

function decide(simulation: Simulation, minute: number): void {
  const { fleet, contender, tally } = simulation;
  const decision = contender(fleet, minute, tally);
  launchAll(simulation, decision.moves, minute);
  restartAll(simulation, decision, minute);
  for (const host of fleet.hosts) host.isEmptying = decision.emptying.has(host.name);
  boot(simulation, decision.hostsWanted, minute);
  const recent = fleet.recentMoves.filter(({ atMs }) => atMs > (minute - HOUR_MINUTES) * MINUTE_MS);
  fleet.recentMoves.splice(0, fleet.recentMoves.length, ...recent);
}

function comeAndGo(simulation: Simulation, arriving: readonly TraceContainer[], minute: number): void {
  const { fleet, byId } = simulation;
  for (const container of fleet.running) {
    if (container.trace.departMinute > minute) continue;
    takeOff(fleet, container);
    byId.delete(container.trace.id);
  }
  const wanting = [...simulation.waiting.filter(({ departMinute }) => departMinute > minute), ...arriving];
  simulation.waiting = wanting.filter((trace) => !start(fleet, trace, minute));
  if (wanting.length > simulation.waiting.length) {
    for (const container of fleet.running) if (container.sinceMinute === minute) byId.set(container.trace.id, container);
  }
  if (simulation.waiting.length > 0) boot(simulation, 1, minute);
}

function switchHosts(simulation: Simulation, minute: number): void {
  const incoming = new Set(simulation.flights.map(({ to }) => to));
  for (const host of simulation.fleet.hosts) {
    if (host.power === 'booting' && host.onAtMinute <= minute) {
      host.power = 'on';
      host.emptySinceMinute = minute;
    }
    if (host.power !== 'on') continue;
    if (host.containers.size > 0 || incoming.has(host)) host.emptySinceMinute = undefined;
    else host.emptySinceMinute ??= minute;
    if (host.emptySinceMinute !== undefined && minute - host.emptySinceMinute >= OFF_AFTER_MINUTES) host.power = 'off';
  }
}

/** Every host is on at the start, with what `place` gives it: the fleet as it is when somebody first switches a rebalancer on. */
export function simulate(trace: readonly TraceContainer[], contender: Contender, options: SimulationOptions): Tally {
  const sliceMs = (options.windowMinutes * MINUTE_MS) / WINDOW_SLICES;
  const fleet = openFleet(options.hosts, { sliceMs, slices: WINDOW_SLICES });
  const simulation: Simulation = {
    fleet,
    contender,
    tally: openTally(),
    seed: options.seed,
    byName: new Map(fleet.hosts.map((host) => [host.name, host])),
    byId: new Map(),
    flights: [],
    waiting: [],
    drawn: 0,
  };
  let next = 0;
  for (let minute = 0; minute < options.days * 1440; minute += 1) {
    const arriving: TraceContainer[] = [];
    for (let head = trace[next]; head !== undefined && head.arriveMinute <= minute; head = trace[next]) {
      arriving.push(head);
      next += 1;
    }
    land(simulation, minute);
    comeAndGo(simulation, arriving, minute);
    step(fleet, minute);
    if (minute >= WARM_UP_MINUTES) count(simulation.tally, fleet, simulation.waiting.length);
    if (minute >= WARM_UP_MINUTES && minute % PLAN_PERIOD_MINUTES === 0) decide(simulation, minute);
    switchHosts(simulation, minute);
  }
  return simulation.tally;
}
