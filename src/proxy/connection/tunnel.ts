/**
 * A connection that changed its protocol (WebSocket and the like): two wires that pass bytes to each other.
 *
 * Each direction has backpressure and ends on its own (half-close); a fault of one side closes both. Closed when both sides are. A WebSocket can
 * also be ended in order (`restart`): each side gets a Close frame between two frames of the other, and nothing after it.
 */
import { randomFillSync } from 'node:crypto';
import { createWheelEntry } from '#proxy/timing-wheel.ts';
import type { TimeoutOwner, TimingWheel, WheelEntry } from '#proxy/timing-wheel.ts';
import { isWebSocket } from '#proxy/http1/stream-kind.ts';
import type { HeadView } from '#proxy/http1/head-view.ts';
import type { Movement } from '#proxy/record.ts';
import type { Wire, WireOwner } from '#proxy/wire/wire.ts';
import { FrameFollower } from './frame-follower.ts';

export interface TunnelOptions {
  readonly wheel: TimingWheel;
  readonly idleTimeoutMs: number;
  readonly record: Movement;
  /** Both sides are closed. */
  readonly onOver: (timedOut: boolean) => void;
}

/** The frames of a WebSocket in both directions, from its first byte on. */
export class WebSocketFrames {
  readonly toClient = new FrameFollower();
  readonly toEndpoint = new FrameFollower();
}

interface Direction {
  readonly from: Wire;
  readonly to: Wire;
  readonly frames: FrameFollower | undefined;
  /** Whether its last frame was sent: what still comes is read away. */
  isTold: boolean;
}

/** A read of that many bytes says that more of them come. */
const LONG_READ_BYTES = 32 * 1024;
/** How long an app may take to close its side after the Close frame. Nobody waits for that. */
const ENDPOINT_LINGER_MS = 300;
/** Close with the status 1012, Service Restart: a server's, and the payload alone. */
const CLOSE_FRAME = Buffer.from([0x88, 0x02, 0x03, 0xf4]);
const CLOSE_STATUS = CLOSE_FRAME.subarray(2);
const MASKED = 0x80;

/** Where a response switches to WebSocket. To be asked before anything is written: the head may lie where that goes. */
export function framesOf({ bytes, view }: { readonly bytes: Buffer; readonly view: HeadView }): WebSocketFrames | undefined {
  return isWebSocket(bytes, view) ? new WebSocketFrames() : undefined;
}

export class Tunnel implements TimeoutOwner {
  readonly #toClient: Direction;
  readonly #toEndpoint: Direction;
  readonly #options: TunnelOptions;
  readonly #timer: WheelEntry;
  #idleTimeoutMs: number;
  #closed = 0;
  #timedOut = false;
  #onTold: (() => void) | undefined;

  /** Takes both wires over. `early`: what the client sent before the switch. `frames`: it is a WebSocket. */
  constructor(
    wires: { client: Wire; endpoint: Wire },
    early: Buffer | undefined,
    options: TunnelOptions,
    frames?: WebSocketFrames,
  ) {
    const { client, endpoint } = wires;
    this.#toClient = { from: endpoint, to: client, frames: frames?.toClient, isTold: false };
    this.#toEndpoint = { from: client, to: endpoint, frames: frames?.toEndpoint, isTold: false };
    this.#options = options;
    this.#timer = createWheelEntry(this);
    this.#idleTimeoutMs = options.idleTimeoutMs;
    client.owner = this.#side(this.#toEndpoint, (bytes) => {
      options.record.downstreamInBytes += bytes;
      options.record.upstreamOutBytes += bytes;
    });
    endpoint.owner = this.#side(this.#toClient, (bytes) => {
      options.record.upstreamInBytes += bytes;
      options.record.downstreamOutBytes += bytes;
    });
    this.#moved();
    if (early !== undefined) {
      frames?.toEndpoint.follow(early, 0, early.length);
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
    this.#toClient.to.destroy();
    this.#toClient.from.destroy();
  }

  /**
   * Ends a WebSocket in order, each direction as soon as no frame is under way in it; others it leaves alone. `isLate`: the end of a frame of the
   * client's is not waited for. `onTold`: all is said, and the client's wire is the caller's. May be called again.
   */
  restart(onTold: () => void, isLate: boolean): void {
    const { from, to } = this.#toClient;
    if (this.#toClient.frames === undefined || from.ended || to.ended || from.closed || to.closed) return;
    this.#onTold = onTold;
    for (const direction of [this.#toClient, this.#toEndpoint])
      if (direction.frames?.isBetween === true && !direction.isTold) this.#tell(direction);
    if (isLate && this.#toClient.isTold) this.#toEndpoint.isTold = true;
    this.#leaveIfTold();
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

  #side(direction: Direction, counted: (bytes: number) => void): WireOwner {
    const { from, to, frames } = direction;
    return {
      onBytes: (buffer, start, end) => {
        if (direction.isTold) return;
        const last = frames === undefined ? -1 : frames.follow(buffer, start, end);
        const isEnd = last !== -1 && this.#onTold !== undefined;
        const stop = isEnd ? last : end;
        counted(stop - start);
        this.#moved();
        from.expectLong(stop - start >= LONG_READ_BYTES);
        if (!to.closed && !to.pass(from, buffer, start, stop)) from.pause();
        if (!isEnd) return;
        this.#tell(direction);
        this.#leaveIfTold();
      },
      onDrain: () => {
        this.#moved();
        to.resume(); // What it reads is written to `from`.
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

  #tell(direction: Direction): void {
    const { record } = this.#options;
    const frame = direction === this.#toClient ? CLOSE_FRAME : maskedClose();
    direction.isTold = true;
    direction.to.write(frame, 0, frame.length);
    if (direction === this.#toClient) record.downstreamOutBytes += frame.length;
    else record.upstreamOutBytes += frame.length;
  }

  /** Gives the client's wire back, and lets the endpoint's come to its end beside. */
  #leaveIfTold(): void {
    const onTold = this.#onTold;
    if (!this.#toClient.isTold || !this.#toEndpoint.isTold || onTold === undefined) return;
    const { wheel } = this.#options;
    wheel.disarm(this.#timer);
    letEnd(this.#toEndpoint.to, wheel);
    onTold();
  }

  #moved(): void {
    this.#options.wheel.arm(this.#timer, this.#idleTimeoutMs);
  }
}

/** As a client has to send it (RFC 6455 §5.3). */
function maskedClose(): Buffer {
  const mask = randomFillSync(Buffer.alloc(4));
  const status = CLOSE_STATUS.map((octet, index) => octet ^ (mask[index] ?? 0));
  return Buffer.concat([CLOSE_FRAME.subarray(0, 1), Buffer.from([MASKED | status.length]), mask, status]);
}

/** Says that no more comes, and reads away what does until the other side says so too. */
function letEnd(wire: Wire, wheel: TimingWheel): void {
  const timer = createWheelEntry({
    onTimeout: () => {
      wire.destroy();
    },
  });
  wire.owner = {
    onBytes: () => undefined,
    onDrain: () => undefined,
    onEnd: () => {
      wire.destroyWhenWritten();
    },
    onClosed: () => {
      wheel.disarm(timer);
    },
  };
  wheel.arm(timer, ENDPOINT_LINGER_MS);
  wire.end();
  wire.resume();
}
