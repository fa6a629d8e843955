/**
 * One timer for every time-out of a worker: a wheel of slots, one tick apart, that its entries are linked into.
 *
 * Why: an arm is two integer writes where a timer of Node's is an object and a heap operation. Precision is what is given for it.
 *
 * INVARIANT: an entry fires no earlier than its delay after it was armed, and at most two ticks later (three where the delay is no whole number
 * of ticks), but for what the event loop itself is late. The clock is read once a tick: when an entry was armed is known only as "before the tick
 * that came next", so delays count from that one on, whenever it came (`#slips`).
 * INVARIANT: an armed entry lies in the slot of a tick that is not after the one it is due at. Its slot is looked at then, and what is due later
 * moves on. So pushing a deadline on (what progress does, and every phase of an exchange) leaves the links alone, and any delay fits: one that is
 * longer than a turn is looked at once a turn.
 * After a stall, what fell due meanwhile waits for one more tick: bytes that had arrived get to be read, and their connections to be armed
 * anew, before anybody is timed out for a silence that was ours.
 */

/** What a time-out is told to. It may arm and disarm whatever it likes, itself as well. */
export interface TimeoutOwner {
  onTimeout(): void;
}

/** A place in a wheel, made once with its owner and armed again and again. Its fields are the wheel's alone. */
export interface WheelEntry {
  readonly owner: TimeoutOwner;
  /** The entry itself: not linked. */
  next: WheelEntry;
  previous: WheelEntry;
  /** The tick whose slot it lies in; `FIRING` while it waits for its call. */
  slotTick: number;
  dueTick: number;
  /** The tick after which it was armed, whose slip is still to be added to `dueTick`; -1 where that was done. */
  armedTick: number;
}

export interface TimingWheelOptions {
  /** Precision, in milliseconds. */
  readonly tickMs?: number;
  /** Takes what an `onTimeout` threw: the wheel goes on. Without it, it is a warning of the process. */
  readonly onError?: (thrown: unknown) => void;
}

const TICK_MS = 100;
/** A power of two. A turn of 102 s is longer than most delays: few entries are looked at in vain. */
const SLOTS = 1024;
const SLOT_MASK = SLOTS - 1;
/** More ticks at once were a stall: a busy event loop is some milliseconds late, not hundreds. */
const STALL_TICKS = 5;
const FIRING = Number.MAX_SAFE_INTEGER;

/** An entry that is not armed yet. Allocates: make it with its owner, not for each arm. */
export function createWheelEntry(owner: TimeoutOwner): WheelEntry {
  return new Link(owner);
}

class Link implements WheelEntry {
  readonly owner: TimeoutOwner;
  next: WheelEntry = this;
  previous: WheelEntry = this;
  slotTick = 0;
  dueTick = 0;
  armedTick = -1;

  constructor(owner: TimeoutOwner) {
    this.owner = owner;
  }
}

/** Owns its timer, which runs while entries are armed and keeps no process alive. Disposing forgets all entries and calls none. */
export class TimingWheel implements Disposable {
  readonly #clock: { monotonicMs(): number };
  readonly #tickMs: number;
  readonly #onError: (thrown: unknown) => void;
  /** Heads of rings. An entry of tick `t` is in slot `t & SLOT_MASK`. */
  readonly #slots: readonly WheelEntry[];
  readonly #firing = new Link({ onTimeout: () => undefined });
  /** By `tick & SLOT_MASK`: how many ticks later than the next one the wheel came back after that tick. */
  readonly #slips = new Int32Array(SLOTS);
  #timer: NodeJS.Timeout | undefined;
  /** Where tick 0 lies on the clock. */
  #originMs: number;
  /** The tick that everything was looked at up to. */
  #tick = 0;
  #isStalled = false;
  #size = 0;

  constructor(clock: { monotonicMs(): number }, options: TimingWheelOptions = {}) {
    this.#clock = clock;
    this.#tickMs = options.tickMs ?? TICK_MS;
    this.#onError = options.onError ?? warn;
    this.#slots = Array.from({ length: SLOTS }, () => new Link(this.#firing.owner));
    this.#originMs = clock.monotonicMs();
  }

  /** How many entries are armed. */
  get size(): number {
    return this.#size;
  }

  /**
   * Calls `entry.owner.onTimeout()` once, `delayMs` from now; an entry that is armed already gets the new deadline instead. Zero and less are as
   * soon as possible (two ticks), not never. Allocates nothing.
   */
  arm(entry: WheelEntry, delayMs: number): void {
    if (this.#timer === undefined) this.#start();
    const ticks = delayMs > 0 ? Math.ceil(delayMs / this.#tickMs) : 0;
    // The next tick is the first that is known to be after this call; the one after it is a whole tick later.
    const dueTick = this.#tick + 2 + ticks;
    entry.dueTick = dueTick;
    entry.armedTick = this.#tick;
    if (entry.next !== entry) {
      if (entry.slotTick <= dueTick) return;
      unlink(entry);
    } else this.#size += 1;
    this.#link(entry);
  }

  /** Forgets the deadline of `entry`; does nothing where it has none. */
  disarm(entry: WheelEntry): void {
    if (entry.next === entry) return;
    unlink(entry);
    this.#size -= 1;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    for (const slot of this.#slots) while (slot.next !== slot) unlink(slot.next);
    while (this.#firing.next !== this.#firing) unlink(this.#firing.next);
    this.#size = 0;
  }

  /** Nothing is linked: ticks that nobody looked at were empty. */
  #start(): void {
    this.#tick = this.#tickNow();
    this.#isStalled = false;
    this.#timer = setInterval(() => {
      this.#turn();
    }, this.#tickMs);
    this.#timer.unref();
  }

  /** The tick that the clock is in. A clock that went back goes on from the last tick: late by what it lost at most once, never early. */
  #tickNow(): number {
    const nowMs = this.#clock.monotonicMs();
    const tick = Math.floor((nowMs - this.#originMs) / this.#tickMs);
    if (tick >= this.#tick) return tick;
    this.#originMs = nowMs - this.#tick * this.#tickMs;
    return this.#tick;
  }

  #turn(): void {
    if (this.#size === 0) {
      clearInterval(this.#timer);
      this.#timer = undefined;
      return;
    }
    const from = this.#tick;
    const tick = this.#tickNow();
    if (tick === from) return;
    if (tick - from > STALL_TICKS && !this.#isStalled) {
      this.#isStalled = true;
      return;
    }
    this.#isStalled = false;
    this.#slips[from & SLOT_MASK] = tick - from - 1;
    this.#tick = tick;
    for (let visited = Math.max(from, tick - SLOTS) + 1; visited <= tick; visited += 1) this.#visit(visited);
    this.#fire();
  }

  /** Looks at all entries of a slot: what is due waits for its call, what is not moves on. */
  #visit(tick: number): void {
    const slot = this.#slotOf(tick);
    // What moves on may come to lie in this slot again, behind the last that is there now.
    const last = slot.previous;
    if (last === slot) return;
    for (let entry = slot.next, isLast = false; !isLast;) {
      const { next } = entry;
      isLast = entry === last;
      unlink(entry);
      if (entry.armedTick >= 0) {
        entry.dueTick += this.#slips[entry.armedTick & SLOT_MASK] ?? 0;
        entry.armedTick = -1;
      }
      if (entry.dueTick > this.#tick) this.#link(entry);
      else {
        entry.slotTick = FIRING;
        linkBefore(this.#firing, entry);
      }
      entry = next;
    }
  }

  /** All of a tick are taken out of the wheel before the first is called: a call may arm and disarm any of them. */
  #fire(): void {
    for (let entry = this.#firing.next; entry !== this.#firing; entry = this.#firing.next) {
      unlink(entry);
      this.#size -= 1;
      try {
        entry.owner.onTimeout();
      } catch (error) {
        this.#onError(error);
      }
    }
  }

  /** Into the slot of the tick it is due at, or the last one of this turn. */
  #link(entry: WheelEntry): void {
    const slotTick = Math.min(entry.dueTick, this.#tick + SLOT_MASK);
    entry.slotTick = slotTick;
    linkBefore(this.#slotOf(slotTick), entry);
  }

  #slotOf(tick: number): WheelEntry {
    return this.#slots[tick & SLOT_MASK] ?? this.#firing;
  }
}

function linkBefore(head: WheelEntry, entry: WheelEntry): void {
  const { previous } = head;
  entry.next = head;
  entry.previous = previous;
  previous.next = entry;
  head.previous = entry;
}

function unlink(entry: WheelEntry): void {
  const { next, previous } = entry;
  previous.next = next;
  next.previous = previous;
  entry.next = entry;
  entry.previous = entry;
}

function warn(thrown: unknown): void {
  process.emitWarning(thrown instanceof Error ? thrown : String(thrown));
}
