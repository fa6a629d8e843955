/**
 * Two workers that answer one request per connection and close, behind each way in which they can share a port.
 * argv: way, port. Each line on stdin is answered with the connections that each worker has taken, as JSON.
 */
import cluster from 'node:cluster';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';

const WORKERS = 2;
const ANSWER = 'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok';
const [, , way, port] = process.argv;

function serve(): void {
  let taken = 0;
  const server = createServer({ noDelay: true }, (socket) => {
    taken += 1;
    socket.once('data', () => socket.end(ANSWER));
    socket.on('error', () => undefined); // The client ended.
  });
  const own = way === 'reuse-port' ? { reusePort: true, exclusive: true } : {};
  server.listen({ port: Number(port), host: '127.0.0.1', ...own }, () => process.send?.('up'));
  process.on('message', () => process.send?.(taken));
  process.on('disconnect', () => {
    // oxlint-disable-next-line unicorn/no-process-exit -- the program's own end
    process.exit(0);
  });
}

async function run(): Promise<void> {
  // oxlint-disable-next-line import/no-named-as-default-member -- it is assigned
  cluster.schedulingPolicy = way === 'round-robin' ? cluster.SCHED_RR : cluster.SCHED_NONE;
  const workers = Array.from({ length: WORKERS }, () => cluster.fork());
  const answers = async (): Promise<unknown[]> =>
    await Promise.all(workers.map(async (worker) => await new Promise((resolve) => worker.once('message', resolve))));
  await answers();
  process.stdout.write('up\n');
  const lines = createInterface({ input: process.stdin });
  lines.on('line', () => {
    void answers().then((taken) => process.stdout.write(`${JSON.stringify(taken)}\n`));
    for (const worker of workers) worker.send('count');
  });
  lines.on('close', () => {
    // oxlint-disable-next-line unicorn/no-process-exit -- the program's own end; the workers follow
    process.exit(0);
  });
}

if (cluster.isPrimary) await run();
else serve();
