/**
 * A connection that changed its protocol (WebSocket and the like): two wires that pass bytes to each other.
 *
 * Each direction has backpressure and ends on its own (half-close); a fault of one side closes both. Closed when both sides are.
 */
import { createWheelEntry } from '#proxy/timing-wheel.ts';
import type { TimeoutOwner, TimingWheel, WheelEntry } from '#proxy/timing-wheel.ts';
import type { Movement } from '#proxy/record.ts';
import type { Wire, WireOwner } from '#proxy/wire/wire.ts';

export interface TunnelOptions {
  readonly wheel: TimingWheel;
  readonly idleTimeoutMs: number;
  readonly record: Movement;
  /** Both sides are closed. */
  readonly onOver: (timedOut: boolean) => void;
}

/** A read of that many bytes says that more of them come. */
const LONG_READ_BYTES = 32 * 1024;

export class Tunnel implements TimeoutOwner {
  readonly #client: Wire;
  readonly #endpoint: Wire;
  readonly #options: TunnelOptions;
  readonly #timer: WheelEntry;
  #idleTimeoutMs: number;
  #closed = 0;
  #timedOut = false;

  /** Takes both wires over. `early`: what the client sent before the switch. */
  constructor(client: Wire, endpoint: Wire, early: Buffer | undefined, options: TunnelOptions) {
    this.#client = client;
    this.#endpoint = endpoint;
    this.#options = options;
    this.#timer = createWheelEntry(this);
    this.#idleTimeoutMs = options.idleTimeoutMs;
    client.owner = this.#side(client, endpoint, (bytes) => {
      options.record.downstreamInBytes += bytes;
      options.record.upstreamOutBytes += bytes;
    });
    endpoint.owner = this.#side(endpoint, client, (bytes) => {
      options.record.upstreamInBytes += bytes;
      options.record.downstreamOutBytes += bytes;
    });
    this.#moved();
    if (early !== undefined) {
      options.record.upstreamOutBytes += early.length;
      endpoint.write(early, 0, early.length);
    }
    if (client.ended) endpoint.end();
    if (endpoint.ended) client.end();
    client.resume();
    endpoint.resume();
    if (client.closed || endpoint.closed) this.cut();
  }

  /** Ends both sides now. */
  cut(): void {
    this.#client.destroy();
    this.#endpoint.destroy();
  }

  /** From now on it is cut where nothing moves for that long. */
  hurry(idleTimeoutMs: number): void {
    this.#idleTimeoutMs = idleTimeoutMs;
    this.#moved();
  }

  onTimeout(): void {
    this.#timedOut = true;
    this.cut();
  }

  #side(from: Wire, to: Wire, counted: (bytes: number) => void): WireOwner {
    return {
      onBytes: (buffer, start, end) => {
        counted(end - start);
        this.#moved();
        from.expectLong(end - start >= LONG_READ_BYTES);
        if (!to.closed && !to.pass(from, buffer, start, end)) from.pause();
      },
      onDrain: () => {
        this.#moved();
        to.resume();
      },
      onEnd: () => {
        to.end();
      },
      onClosed: () => {
        // What one side said before it ended still goes to the other; what it did not end was cut.
        if (from.ended) to.destroyWhenWritten();
        else to.destroy();
        this.#closed += 1;
        if (this.#closed < 2) return;
        this.#options.wheel.disarm(this.#timer);
        this.#options.onOver(this.#timedOut);
      },
    };
  }

  #moved(): void {
    this.#options.wheel.arm(this.#timer, this.#idleTimeoutMs);
  }
}
