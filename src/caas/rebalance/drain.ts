/**
 * Taking a host out of use and giving it back: `ecluse host drain` and `undrain`.
 *
 *   active ──drain──▶ draining ──nothing runs there──▶ drained ──undrain──▶ active
 *
 * From `draining` on placement leaves the host out. A drain that cannot finish leaves the host draining and says why; it may be asked for again at
 * any time, and an undrain ends one that is under way before its next move. Containers that do not run stay: there is no memory to carry.
 */
import type { Clock } from '#clock';
import { EcluseError } from '#errors';
import { listHosts, setHostState } from '#state/hosts.ts';
import type { HostRow, HostState } from '#state/hosts.ts';
import type { Sql } from '#state/sql.ts';
import { isAlive, readFleet } from './fleet-reader.ts';
import type { FleetReaderDeps } from './fleet-reader.ts';
import type { Stay } from './move-plan.ts';
import { carryOut, plannedOf } from './plan-execution.ts';
import type { ExecutionDeps, MoveOutcome, Say } from './plan-execution.ts';
import { planDrain } from './plan-drain.ts';
import { DEFAULT_POLICY } from './policy.ts';

export type DrainDeps = FleetReaderDeps & ExecutionDeps & { readonly clock: Clock; readonly sql: Sql };

/** A container that is still on the host. */
export interface Left {
  readonly container: string;
  readonly why: string;
  readonly mend: string;
  /** Whether it keeps the host from being drained. */
  readonly runs: boolean;
}

export interface DrainReport {
  readonly host: string;
  readonly state: HostState;
  readonly moves: readonly MoveOutcome[];
  readonly left: readonly Left[];
}

/** A create that had chosen the host before it was closed may come after the first plan; more rounds than these are no such thing. */
const ROUNDS_MAX = 5;

const MENDS: Readonly<Partial<Record<Stay['rule'], string>>> = {
  label: 'ask its tenant, or stop it',
  migrating: 'wait for that move, and drain the host again',
  'no-room': 'make room on another host, or add one',
  replicas: 'make room on another host, or add one',
};

/** Errors: ECLUSE_HOST_UNKNOWN. */
export async function findHost(sql: Sql, name: string): Promise<HostRow> {
  const rows = await listHosts(sql);
  const row = rows.find((host) => host.name === name);
  if (row !== undefined) return row;
  throw new EcluseError({
    code: 'ECLUSE_HOST_UNKNOWN',
    source: 'usage',
    status: 404,
    message: `there is no host ${name}`,
    mend: `choose one of: ${rows.map((host) => host.name).join(', ')}`,
  });
}

export interface DrainOrder {
  readonly dryRun: boolean;
  /** Whether exec sessions are ended for it; otherwise they keep their containers there. */
  readonly endSessions: boolean;
  readonly say: Say;
  /** Throws where the host is not as it has to be for the order. Asked of what the change is then made from, or of nothing. */
  readonly confirm?: Confirm;
}

export type Confirm = (host: HostRow) => void;

/** Closes the host and moves what runs there away. `dryRun`: nothing is changed, and the report has the plan. */
export async function drainHost(
  deps: DrainDeps,
  name: string,
  { dryRun, endSessions, say, confirm }: DrainOrder,
): Promise<DrainReport> {
  const before = await findHost(deps.sql, name);
  confirm?.(before);
  const question = { ofHost: name, endSessions };
  if (dryRun) {
    const plan = planDrain(name, await readFleet(deps, question), DEFAULT_POLICY);
    return { host: name, state: before.state, moves: plan.moves.map(plannedOf), left: await leftOn(deps, name, plan) };
  }
  if (before.state !== 'draining') await change(deps, before, 'draining', confirm);
  const moves: MoveOutcome[] = [];
  const tried = new Set<string>();
  let stays: readonly Stay[] = [];
  for (let round = 0; round < ROUNDS_MAX; round += 1) {
    const plan = planDrain(name, await readFleet(deps, question), DEFAULT_POLICY);
    ({ stays } = plan);
    const fresh = plan.moves.filter((move) => !tried.has(move.container));
    if (fresh.length === 0) break;
    for (const { container } of fresh) tried.add(container);
    const goOn = async (): Promise<boolean> => (await findHost(deps.sql, name)).state === 'draining';
    moves.push(...(await carryOut(deps, fresh, { cause: 'drain', endSessions, goOn, say })));
  }
  const left = await leftOn(deps, name, { moves: [], stays }, moves);
  if (left.every(({ runs }) => !runs))
    await setHostState(deps.sql, name, { from: 'draining', to: 'drained' }, deps.clock.nowMs());
  return { host: name, state: (await findHost(deps.sql, name)).state, moves, left };
}

/** Lets the host be given containers again. What was moved away stays where it is. */
export async function undrainHost(
  deps: DrainDeps,
  name: string,
  confirm?: Confirm,
): Promise<{ readonly host: string; readonly state: HostState }> {
  const before = await findHost(deps.sql, name);
  confirm?.(before);
  if (before.state !== 'active') await change(deps, before, 'active', confirm);
  return { host: name, state: 'active' };
}

/** From what was read, and from nothing else. */
async function change({ sql, clock }: DrainDeps, { name, state }: HostRow, to: HostState, confirm?: Confirm): Promise<void> {
  if ((await setHostState(sql, name, { from: state, to }, clock.nowMs())).kind !== 'conflict') return;
  confirm?.(await findHost(sql, name)); // Who has a condition is told of that.
  throw new EcluseError({
    code: 'ECLUSE_HOST_CHANGED',
    source: 'usage',
    status: 409,
    message: `host ${name} was drained or undrained by somebody else at this moment`,
    mend: 'see: ecluse host ls',
  });
}

/** What is on the host beyond what a plan still moves, and why. */
async function leftOn(
  { containers }: DrainDeps,
  name: string,
  plan: { readonly moves: readonly { readonly container: string }[]; readonly stays: readonly Stay[] },
  outcomes: readonly MoveOutcome[] = [],
): Promise<readonly Left[]> {
  const goes = new Set(plan.moves.map(({ container }) => container));
  const stays = new Map(plan.stays.map((stay) => [stay.container, stay]));
  const failed = new Map(outcomes.map((outcome) => [outcome.container, outcome.reason]));
  const rows = (await containers.list()).filter((row) => row.host === name && !goes.has(row.id));
  return rows.map((row) => {
    const container = `${row.tenant}/${row.name}`;
    if (!isAlive(row) && row.state !== 'creating') {
      return {
        container,
        runs: false,
        why: `it is ${row.state}: what does not run is not moved`,
        mend: 'remove it, or start it and drain the host again; it can start here also while the host is drained',
      };
    }
    const stay = stays.get(row.id);
    const why = failed.get(container) ?? stay?.text ?? 'it was not moved any more, or came meanwhile';
    return { container, runs: true, why, mend: MENDS[stay?.rule ?? 'blackout'] ?? 'mend that, and drain the host again' };
  });
}
