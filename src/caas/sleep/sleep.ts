/** The port through which containers are woken or given up by who changes them. Implemented by `Sleepers`, the last one by `Snapshots`. */
import type { ContainerRow } from '#state/containers.ts';

export interface Sleep {
  /** Lets the engine answer for a sleeping container, which it may be starting. */
  settle(id: string): Promise<void>;
  /** Wakes it; for who holds its lock. */
  wakeLocked(row: ContainerRow): Promise<void>;
  /** Gives its memory up; for who holds its lock. */
  forget(row: ContainerRow): Promise<void>;
  /** A container was removed: its snapshots go with it. For who holds its lock. */
  forgetKept(id: string): Promise<void>;
}
