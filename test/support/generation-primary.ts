/** A primary that does nothing but run workers, to be killed: what it is told is JSON on its command line, and its port is what it says. */
import { join } from 'node:path';
import * as z from 'zod';
import { systemClock } from '#clock';
import { createLog } from '#log';
import { Predecessors } from '#proxy/generation/predecessors.ts';
import { WorkerPool } from '#proxy/worker-pool.ts';
import { CertificateIndex } from '#tls/certificate-index.ts';
import { serviceConfig } from './operator-edge.ts';

const ORDER = z.object({ folder: z.string(), endpoints: z.array(z.number()), wishes: z.looseObject({}) });
const { folder, endpoints, wishes } = ORDER.parse(JSON.parse(process.argv[2] ?? '{}'));
const log = createLog('silent');
const socketPath = join(folder, 'workers.sock');
const pool = await WorkerPool.open(
  { log, clock: systemClock },
  {
    workers: 2,
    workerFile: join(import.meta.dirname, '../../src/worker.ts'),
    listen: { http: { host: '127.0.0.1', port: 0 }, https: undefined },
    accessLogFile: join(folder, 'access.log'),
    logLevel: 'silent',
    initial: { config: serviceConfig(endpoints, wishes), certificates: CertificateIndex.of([]) },
    succession: { generation: 1, socketPath, predecessors: await Predecessors.open(log, socketPath) },
    onTraffic: () => undefined,
    onWake: () => undefined,
  },
);
process.stdout.write(`${String(pool.listening.http?.port)}\n`);
