/** An endpoint to which no connection can be made, and that does not refuse one. */
import { spawn } from 'node:child_process';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** An endpoint whose kernel takes no more connections: it never accepts, and its queue is full. */
export async function startDeaf(): Promise<AsyncDisposable & { readonly port: number }> {
  const program =
    "const s = require('net').createServer().listen({ host: '127.0.0.1', port: 0, backlog: 1 }, () => console.log(s.address().port));";
  const child = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
  const { promise, resolve } = Promise.withResolvers<number>();
  child.stdout.once('data', (text: Buffer) => {
    resolve(Number(text.toString()));
  });
  const port = await promise;
  child.kill('SIGSTOP');
  const fillers: Socket[] = [];
  for (let waits = false; !waits && fillers.length < 16;) {
    const socket = connect({ host: '127.0.0.1', port });
    socket.on('error', () => undefined);
    fillers.push(socket);
    await sleep(50);
    waits = socket.connecting;
  }
  return {
    port,
    [Symbol.asyncDispose]: async () => {
      for (const socket of fillers) socket.destroy();
      child.kill('SIGKILL');
      await Promise.resolve();
    },
  };
}
