/**
 * Moves that nobody ordered: watches what containers use, plans every few minutes, and advises or acts, as `rebalance.mode` says.
 *
 * The windows fill in every mode, so that `ecluse rebalance` has an hour behind it when it is asked for.
 */
import { startLoop } from '#lifecycle';
import type { Log } from '#log';
import { changeWrite } from '#state/change-log.ts';
import type { Meter } from '#caas/meter.ts';
import { readFleet } from './fleet-reader.ts';
import type { DrainDeps } from './drain.ts';
import type { HostVerdict, Stay } from './move-plan.ts';
import { carryOut, plannedOf } from './plan-execution.ts';
import type { MoveOutcome, Say } from './plan-execution.ts';
import { planRebalance } from './plan-rebalance.ts';
import { DEFAULT_POLICY } from './policy.ts';
import type { RebalanceGoal } from './policy.ts';

export interface RebalancerDeps extends DrainDeps {
  readonly log: Log;
  readonly meter: Meter;
}

export interface RebalanceSettings {
  /** `off`: only when it is asked for. `advise`: plans are written into the change log. `auto`: they are carried out. */
  readonly mode: 'off' | 'advise' | 'auto';
  readonly goals: readonly RebalanceGoal[];
}

export interface RebalanceReport {
  readonly moves: readonly MoveOutcome[];
  readonly stays: readonly Stay[];
  readonly hosts: readonly HostVerdict[];
  /** How many hosts are lacking. */
  readonly hostsWanted: number;
}

/** The meter's own period is a second; a window's smallest step is that, too. */
const OBSERVE_MS = 5_000;
/** Much longer than a move, much shorter than a slope of the day. */
const PLAN_MS = 300_000;

export class Rebalancer implements AsyncDisposable {
  readonly #deps: RebalancerDeps;
  #settings: RebalanceSettings;
  #loop: AsyncDisposable | undefined;
  #plannedMs: number;
  #advised = '';

  constructor(deps: RebalancerDeps, settings: RebalanceSettings) {
    this.#deps = deps;
    this.#settings = settings;
    this.#plannedMs = deps.clock.monotonicMs();
  }

  /** Goes on by other settings, from its next plan on. */
  follow(settings: RebalanceSettings): void {
    this.#settings = settings;
  }

  start(): this {
    this.#loop = startLoop(this.#deps, {
      name: 'rebalance',
      periodMs: OBSERVE_MS,
      round: async (signal) => {
        await this.#round(signal);
      },
    });
    return this;
  }

  async #round(signal: AbortSignal): Promise<void> {
    const { clock, meter, windows } = this.#deps;
    windows.observe(meter.readings(), clock.nowMs());
    if (this.#settings.mode === 'off' || clock.monotonicMs() - this.#plannedMs < PLAN_MS) return;
    this.#plannedMs = clock.monotonicMs();
    await this.rebalance({ dryRun: this.#settings.mode === 'advise', signal, say: () => undefined });
  }

  /** Plans on the facts of now, and carries the plan out unless `dryRun`. Every plan with moves is in the change log. */
  async rebalance(order: {
    readonly dryRun: boolean;
    readonly say: Say;
    readonly signal?: AbortSignal;
  }): Promise<RebalanceReport> {
    const { dryRun, say, signal } = order;
    const plan = planRebalance(await readFleet(this.#deps), { ...DEFAULT_POLICY, goals: this.#settings.goals });
    const planned = plan.moves.map(plannedOf);
    await this.#writeDown(planned, dryRun);
    const goOn = async (): Promise<boolean> => await Promise.resolve(signal?.aborted !== true);
    const moves = dryRun
      ? planned
      : await carryOut(this.#deps, plan.moves, { cause: 'rebalance', endSessions: false, goOn, say });
    return { moves, stays: plan.stays, hosts: plan.hosts, hostsWanted: plan.hostsWanted };
  }

  /** The same advice is not written down twice in a row. */
  async #writeDown(moves: readonly MoveOutcome[], dryRun: boolean): Promise<void> {
    const text = JSON.stringify(moves);
    if (moves.length === 0 || (dryRun && text === this.#advised)) return;
    if (dryRun) this.#advised = text;
    const nowMs = this.#deps.clock.nowMs();
    const kind = dryRun ? 'rebalance.advised' : 'rebalance.begun';
    await this.#deps.sql.write(
      moves.map(({ container, from, to, why }) => changeWrite(nowMs, kind, container, { from, to, why })),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#loop?.[Symbol.asyncDispose]();
  }
}
