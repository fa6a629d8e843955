/**
 * The way out of a source: frames with a bound on what is under way, a bandwidth limit, and what is learnt of the wire's speed.
 *
 * INVARIANT: at most WINDOW_BYTES and one frame are sent and not yet taken in by the sink, wherever they are meanwhile.
 */
import type { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { connectionLost, stalled } from './page-errors.ts';
import { fullBucket, takeBytes } from './token-bucket.ts';
import type { TokenBucket } from './token-bucket.ts';

/** Enough for 5 Gbit/s at a round trip of 12 ms, and bounded memory. */
const WINDOW_BYTES = 8 * 1024 * 1024;
const STALL_MS = 15_000;
const CHECK_MS = 500;
/** Two moments with a full window further apart than this say nothing about the wire between them. */
const RATE_SPAN_MAX_MS = 1_000;
const RATE_NEWEST = 0.3;

export class FrameSender {
  readonly #channel: Duplex;
  readonly #bytesPerSecond: number | undefined;
  readonly #watch: NodeJS.Timeout;
  #bucket: TokenBucket;
  #wake = Promise.withResolvers<undefined>();
  #failure: Error | undefined;
  #waitingFor: string | undefined;
  #movedMs = performance.now();
  #sentBytes = 0;
  #countedBytes = 0;
  #ackedBytes = 0;
  #full: { readonly atMs: number; readonly ackedBytes: number } | undefined;
  #measuredBytesPerMs = Number.POSITIVE_INFINITY;

  constructor(channel: Duplex, bytesPerSecond: number | undefined) {
    this.#channel = channel;
    this.#bytesPerSecond = bytesPerSecond;
    this.#bucket = fullBucket(bytesPerSecond ?? 0, performance.now());
    this.#watch = setInterval(() => {
      if (this.#waitingFor !== undefined && performance.now() - this.#movedMs > STALL_MS)
        this.fail(stalled(this.#waitingFor, STALL_MS));
    }, CHECK_MS);
    channel.on('error', (error: unknown) => {
      this.fail(connectionLost(error));
    });
    for (const end of ['end', 'close']) {
      channel.on(end, () => {
        this.fail(connectionLost('it was closed'));
      });
    }
  }

  get sentBytes(): number {
    return this.#sentBytes;
  }

  /** What the wire carries, in bytes a millisecond; infinite while nothing had to wait for it. */
  get wireBytesPerMs(): number {
    return Math.min(this.#measuredBytesPerMs, (this.#bytesPerSecond ?? Number.POSITIVE_INFINITY) / 1000);
  }

  /** Ends all waiting with an error. The first one counts. */
  fail(error: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    clearInterval(this.#watch);
    this.wake();
  }

  /** Throws where all is over. */
  check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Something came from the sink, or changed here: whoever waits looks again. */
  wake(): void {
    this.#movedMs = performance.now();
    const { resolve } = this.#wake;
    this.#wake = Promise.withResolvers<undefined>();
    resolve(undefined);
  }

  acked(bytes: number): void {
    this.#ackedBytes += bytes;
    this.wake();
  }

  /** Waits until `look` finds something. `what` is missed, should it never come. */
  async until<T>(look: () => T | undefined, what: string): Promise<T> {
    this.#movedMs = performance.now();
    for (;;) {
      // In this order: what came before the end came.
      const found = look();
      if (found !== undefined) return found;
      this.check();
      this.#waitingFor = what;
      await this.#wake.promise;
      this.#waitingFor = undefined;
    }
  }

  /** Sends a frame that the sink acknowledges; `onSent` is called when its bytes may change. */
  async send(parts: readonly Buffer[], onSent?: () => void): Promise<void> {
    const bytes = parts.reduce((sum, { length }) => sum + length, 0);
    await this.#limit(bytes);
    await this.#room();
    this.#countedBytes += bytes;
    this.#write(parts, onSent);
  }

  /** Sends a frame that the sink does not acknowledge. */
  sendUncounted(part: Buffer): void {
    this.check();
    this.#write([part]);
  }

  #write(parts: readonly Buffer[], onSent?: () => void): void {
    this.#channel.cork();
    for (const [at, part] of parts.entries()) {
      this.#sentBytes += part.length;
      this.#channel.write(part, at === parts.length - 1 ? onSent : undefined);
    }
    this.#channel.uncork();
  }

  async #limit(bytes: number): Promise<void> {
    if (this.#bytesPerSecond === undefined) return;
    const taken = takeBytes(this.#bucket, { bytes, bytesPerSecond: this.#bytesPerSecond, nowMs: performance.now() });
    this.#bucket = taken.bucket;
    if (taken.waitMs > 0) await delay(taken.waitMs);
  }

  async #room(): Promise<void> {
    const isFull = (): boolean => this.#countedBytes - this.#ackedBytes > WINDOW_BYTES;
    const mustWait = isFull();
    await this.until(() => (isFull() ? undefined : true), 'the other node takes nothing in');
    this.check();
    if (!mustWait) return;
    const now = { atMs: performance.now(), ackedBytes: this.#ackedBytes };
    const before = this.#full;
    this.#full = now;
    if (before === undefined || now.atMs - before.atMs > RATE_SPAN_MAX_MS || now.atMs <= before.atMs) return;
    // The wire had work all the time between the two.
    const rate = (now.ackedBytes - before.ackedBytes) / (now.atMs - before.atMs);
    const known = this.#measuredBytesPerMs;
    this.#measuredBytesPerMs = Number.isFinite(known) ? known + RATE_NEWEST * (rate - known) : rate;
  }
}
