/** A plan: moves in order, each with its reasons, and what stays and why. Plain data, as it is printed and as it is carried out. */

export type MoveRule = 'drain' | 'relieve' | 'consolidate';

export interface MoveReason {
  readonly rule: MoveRule;
  /** A sentence for people. */
  readonly text: string;
  /** What is used most of on the source, in thousandths of it, before and after the moves of the plan up to this one. */
  readonly fromBeforeMilli: number;
  readonly fromAfterMilli: number;
  readonly toBeforeMilli: number;
  readonly toAfterMilli: number;
  /** Other replicas of its service that the target has. */
  readonly replicasOnTarget: number;
}

export interface Move {
  readonly container: string;
  readonly name: string;
  readonly tenant: string;
  readonly from: string;
  readonly to: string;
  /** Moves of one wave may run at once; a wave begins when the one before has ended. */
  readonly wave: number;
  readonly durationMs: number;
  readonly blackoutMs: number;
  /** Weighted milliseconds; see `RebalancePolicy`. What an operator ordered has no gain to compare. */
  readonly costMs: number;
  readonly gainMs: number;
  readonly why: MoveReason;
}

export type StayRule =
  | 'label'
  | 'stuck'
  | 'migrating'
  | 'unmeasured'
  | 'residence'
  | 'blackout'
  | 'no-room'
  | 'replicas'
  | 'budget'
  | 'not-worth';

/** A container that the plan would have moved, or must leave on a host that is to be emptied. */
export interface Stay {
  readonly container: string;
  readonly name: string;
  readonly tenant: string;
  readonly host: string;
  readonly rule: StayRule;
  readonly text: string;
}

/**
 * `relieved`: no longer hot when the plan is done. `hot`: still hot. `emptying`: to be emptied, by this plan or the next. `closing`: to be emptied
 * when its youngest containers are measured or gone. `kept`: worth emptying, but not possible. `empty`: nothing is on it.
 */
export type HostVerdictKind = 'relieved' | 'hot' | 'emptying' | 'closing' | 'kept' | 'empty';

export interface HostVerdict {
  readonly host: string;
  readonly verdict: HostVerdictKind;
  readonly text: string;
}

export interface MovePlan {
  readonly moves: readonly Move[];
  readonly stays: readonly Stay[];
  /** The hosts that the plan is about: others are neither hot nor worth emptying. Placement should leave those out that are `emptying` or `closing`. */
  readonly hosts: readonly HostVerdict[];
  /** How many more hosts the fleet needs, because hot ones find no room. */
  readonly hostsWanted: number;
}
