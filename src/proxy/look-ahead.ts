/** The first bytes of a connection, looked at before somebody else reads them. */
import type { Socket } from 'node:net';
import { createWheelEntry } from './timing-wheel.ts';
import type { TimingWheel } from './timing-wheel.ts';

export interface LookOptions<T> {
  readonly wheel: TimingWheel;
  readonly timeoutMs: number;
  /** What is found where nothing comes in time. */
  readonly late: T;
}

/** What was found, and after how many bytes the rest begins, which is put back. */
export interface Look<T> {
  readonly found: T;
  readonly after: number;
}

/** Gives `look` all that has come, again and again until it finds something, and tells `done`. Once; never where the socket closes first. */
export function lookAhead<T>(
  socket: Socket,
  options: LookOptions<T>,
  look: (gathered: Buffer) => Look<T> | undefined,
  done: (found: T) => void,
): void {
  let gathered = Buffer.alloc(0);
  const timer = createWheelEntry({
    onTimeout: () => {
      finish(options.late);
    },
  });
  const finish = (found: T): void => {
    options.wheel.disarm(timer);
    socket.off('readable', onReadable);
    socket.off('close', onClose);
    done(found);
  };
  const onClose = (): void => {
    options.wheel.disarm(timer);
  };
  const onReadable = (): void => {
    const chunk: unknown = socket.read();
    if (!Buffer.isBuffer(chunk)) return;
    gathered = Buffer.concat([gathered, chunk]);
    const seen = look(gathered);
    if (seen === undefined) return;
    if (seen.after < gathered.length) socket.unshift(gathered.subarray(seen.after));
    finish(seen.found);
  };
  options.wheel.arm(timer, options.timeoutMs);
  socket.on('close', onClose);
  socket.on('readable', onReadable);
}
