/** The first bytes of a connection, looked at before somebody else reads them. */
import type { Socket } from 'node:net';
import { createWheelEntry } from './timing-wheel.ts';
import type { TimingWheel } from './timing-wheel.ts';

export interface LookOptions<T> {
  readonly wheel: TimingWheel;
  readonly timeoutMs: number;
  /** What is found where nothing comes in time. */
  readonly late: T;
  /** What is found where the socket closes first, or ends; undefined: nobody is told. */
  readonly closed?: T;
}

/** What was found, and after how many bytes the rest begins, which is put back. */
export interface Look<T> {
  readonly found: T;
  readonly after: number;
}

/** Gives `look` all that has come, again and again until it finds something, and tells `done`, once. */
export function lookAhead<T>(
  socket: Socket,
  options: LookOptions<T>,
  look: (gathered: Buffer) => Look<T> | undefined,
  done: (found: T) => void,
): void {
  let gathered: Buffer = Buffer.alloc(0);
  const timer = createWheelEntry({
    onTimeout: () => {
      finish(options.late);
    },
  });
  const finish = (found: T): void => {
    leave();
    done(found);
  };
  const leave = (): void => {
    options.wheel.disarm(timer);
    socket.off('readable', onReadable);
    socket.off('end', onEnd);
    socket.off('close', onClose);
  };
  const onClose = (): void => {
    if (options.closed === undefined) leave();
    else finish(options.closed);
  };
  const onEnd = (): void => {
    socket.destroy(); // What is looked for does not come any more.
  };
  const onReadable = (): void => {
    const chunk: unknown = socket.read();
    if (!Buffer.isBuffer(chunk)) return;
    gathered = gathered.length === 0 ? chunk : Buffer.concat([gathered, chunk]);
    const seen = look(gathered);
    if (seen === undefined) return;
    if (seen.after < gathered.length) socket.unshift(gathered.subarray(seen.after));
    finish(seen.found);
  };
  options.wheel.arm(timer, options.timeoutMs);
  socket.on('close', onClose);
  socket.on('end', onEnd);
  socket.on('readable', onReadable);
  onReadable(); // What another look has put back is there already.
}
