/** What comes before HTTP and TLS on a connection from a proxy: its PROXY header. */
import type { Socket } from 'node:net';
import { createWheelEntry } from './timing-wheel.ts';
import type { TimingWheel } from './timing-wheel.ts';
import { createProxyHeader, proxyRefusalReason, readProxyHeader } from './wire/proxy-protocol.ts';
import type { ProxyHeader } from './wire/proxy-protocol.ts';

/** The longest header is 2 KiB; what comes with it in one read is put back. */
const HEADER_BYTES_MAX = 16 * 1024;

/** Reads the header, puts what follows back and gives what it told, or why it is refused. Once; never where the socket closes first. */
export function readPreface(
  socket: Socket,
  options: { readonly wheel: TimingWheel; readonly timeoutMs: number },
  done: (told: ProxyHeader | string) => void,
): void {
  const header = createProxyHeader();
  let gathered = Buffer.alloc(0);
  const timer = createWheelEntry({
    onTimeout: () => {
      finish('the PROXY header did not come in time');
    },
  });
  const finish = (told: ProxyHeader | string): void => {
    options.wheel.disarm(timer);
    socket.off('readable', onReadable);
    socket.off('close', onClose);
    done(told);
  };
  const onClose = (): void => {
    options.wheel.disarm(timer);
  };
  const onReadable = (): void => {
    const chunk: unknown = socket.read();
    if (!Buffer.isBuffer(chunk)) return;
    gathered = Buffer.concat([gathered, chunk]);
    const after = readProxyHeader(gathered, 0, gathered.length, header);
    if (after === 0 && gathered.length < HEADER_BYTES_MAX) return;
    if (after <= 0) {
      finish(proxyRefusalReason(after));
      return;
    }
    if (after < gathered.length) socket.unshift(gathered.subarray(after));
    finish(header);
  };
  options.wheel.arm(timer, options.timeoutMs);
  socket.on('close', onClose);
  socket.on('readable', onReadable);
}
