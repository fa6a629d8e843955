/** The ClientHello of a connection, read and put back, so that it is known who is asked for before TLS begins. */
import type { Socket } from 'node:net';
import { HELLO_BYTES_MAX, readClientHello } from '#tls/client-hello.ts';
import { createWheelEntry } from './timing-wheel.ts';
import type { TimingWheel } from './timing-wheel.ts';

export type Greeting =
  /** No server name: it names no host, or it cannot be told. */
  | { readonly kind: 'name'; readonly serverName: string | undefined; readonly protocols: readonly string[] }
  | { readonly kind: 'closed' }
  | { readonly kind: 'late' };

const NO_HELLO = { serverName: undefined, protocols: [] } as const;

/** Calls `done` once. What was read is put back. */
export function readGreeting(
  socket: Socket,
  options: { readonly wheel: TimingWheel; readonly timeoutMs: number },
  done: (greeting: Greeting) => void,
): void {
  let gathered: Buffer = Buffer.alloc(0);
  const timer = createWheelEntry({
    onTimeout: () => {
      finish({ kind: 'late' });
    },
  });
  const finish = (greeting: Greeting): void => {
    options.wheel.disarm(timer);
    socket.off('readable', onReadable);
    socket.off('end', onEnd);
    socket.off('close', onClose);
    if (gathered.length > 0 && greeting.kind === 'name') socket.unshift(gathered);
    done(greeting);
  };
  const onClose = (): void => {
    finish({ kind: 'closed' });
  };
  const onEnd = (): void => {
    socket.destroy();
  };
  const onReadable = (): void => {
    const chunk: unknown = socket.read();
    if (!Buffer.isBuffer(chunk)) return;
    gathered = gathered.length === 0 ? chunk : Buffer.concat([gathered, chunk]);
    const read = readClientHello(gathered);
    if (read.kind === 'more' && gathered.length < HELLO_BYTES_MAX) return;
    const { serverName, protocols } = read.kind === 'hello' ? read : NO_HELLO;
    finish({ kind: 'name', serverName, protocols });
  };
  options.wheel.arm(timer, options.timeoutMs);
  socket.on('close', onClose);
  socket.on('end', onEnd);
  socket.on('readable', onReadable);
  onReadable(); // What came behind a PROXY header is there already.
}
