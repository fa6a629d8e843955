/** What a move costs: its work, and the pause that its users feel. Pure. */
import type { FleetContainer } from './fleet-facts.ts';
import type { MoveModel, RebalancePolicy } from './policy.ts';

export interface MoveCost {
  readonly durationMs: number;
  readonly blackoutMs: number;
  /** Both as one number: milliseconds of work, with the pause at its weight. */
  readonly costMs: number;
}

/** Where a container writes as fast as memory is sent, rounds do not get smaller and are given up. */
const PRE_COPY_ROUNDS_MAX = 5;

/** The memory that must be sent: its peak where it is known, because a move may meet it. */
export function movedBytesOf(container: FleetContainer): number {
  return container.usage?.peak.memoryBytes ?? container.limits.memoryBytes;
}

function milliseconds(bytes: number, bytesPerSecond: number): number {
  return Math.ceil((bytes * 1000) / bytesPerSecond);
}

/** The bytes that go ahead of the pause, and those that are left for it. */
function preCopied(
  bytes: number,
  dirtyBytesPerSecond: number,
  model: MoveModel,
): { readonly ahead: number; readonly left: number } {
  let ahead = 0;
  let left = bytes;
  for (let round = 0; round < PRE_COPY_ROUNDS_MAX; round += 1) {
    const next = Math.min(left, Math.ceil((left / model.bytesPerSecond) * dirtyBytesPerSecond));
    ahead += left;
    if (next >= left) break;
    left = next;
  }
  return { ahead, left };
}

/** A container whose rate of writing is not known is taken to write everything again: its pause is that of stop and copy. */
export function moveCostOf(container: FleetContainer, policy: RebalancePolicy): MoveCost {
  const { move } = policy;
  const bytes = movedBytesOf(container);
  const dirty = container.dirtyBytesPerSecond;
  const { ahead, left } =
    move.kind === 'stop-and-copy' || dirty === undefined ? { ahead: 0, left: bytes } : preCopied(bytes, dirty, move);
  const blackoutMs = move.fixedBlackoutMs + milliseconds(left, move.bytesPerSecond);
  const durationMs = move.fixedDurationMs + milliseconds(ahead, move.bytesPerSecond) + blackoutMs;
  return { durationMs, blackoutMs, costMs: durationMs + policy.blackoutWeight * blackoutMs };
}
