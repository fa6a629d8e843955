/** What the benchmarks of slow clients share: the origin, the config of the edge, and the peers beside it. */
import { z } from 'zod';
import type { EdgeLimits } from '#proxy/edge-limits.ts';
import type { PlainEdge } from '../../test/support/edge.ts';
import { BENCH_HOST } from '../proxy/configs.ts';
import { installPrograms, isInstalled, note } from '../proxy/install.ts';
import { makeCertificateFiles, startPeer } from '../proxy/peers.ts';
import { LOAD_CORE, freePorts, listening } from '../proxy/stage.ts';
import type { Child, Stage } from '../proxy/stage.ts';
import { FIRST } from './canary.ts';
import { ask } from './dialogue.ts';
import { EdgeUnderTest } from './edge-under-test.ts';

const ORIGIN_COUNTS = z.object({ bytes: z.number(), open: z.int(), requests: z.int() });
/** One endpoint gets 1024 requests at once from a worker of ours. */
const ENDPOINTS = 4;
const TENANTS = 20;

export class SlowOrigin {
  readonly ports: readonly number[];
  readonly #child: Child;

  private constructor(child: Child, ports: readonly number[]) {
    this.#child = child;
    this.ports = ports;
  }

  static async start(stage: Stage): Promise<SlowOrigin> {
    const ports = await freePorts(ENDPOINTS);
    const program = new URL('programs/origin.ts', import.meta.url).pathname;
    const child = stage.start({ core: LOAD_CORE, argv: [...FIRST, process.execPath, program, ...ports.map(String)] });
    for (const port of ports) await listening(port, child);
    return new SlowOrigin(child, ports);
  }

  /** Bytes that the kernel took from it so far, and its open connections. */
  async counts(): Promise<z.infer<typeof ORIGIN_COUNTS>> {
    return await ask(this.#child, ORIGIN_COUNTS, {});
  }
}

/** A proxy under attack. */
export interface Target {
  readonly name: string;
  readonly httpPort: number;
  readonly pids: () => readonly number[];
}

/** Hosts of other tenants, at which the same endpoints answer. */
export const TENANT_HOSTS: readonly string[] = Array.from({ length: TENANTS }, (_, index) => `tenant-${String(index)}.test`);

export function edgeConfig(ports: readonly number[]): PlainEdge {
  const hosts = [BENCH_HOST, ...TENANT_HOSTS];
  const endpointsOf = (id: string): PlainEdge['config']['services'][number]['endpoints'] =>
    ports.map((port, index) => ({ id: `${id}-${String(index)}`, address: '127.0.0.1', port, hostName: 'a', generation: 1 }));
  return {
    config: {
      version: 1,
      services: hosts.map((host, index) => ({ id: host, tenant: `t${String(index)}`, endpoints: endpointsOf(host) })),
      routes: hosts.map((host) => ({ host, path: '/', serviceId: host })),
    },
    certificates: [],
  };
}

export async function startEdge(
  stage: Stage,
  origin: SlowOrigin,
  name: string,
  limits: Partial<EdgeLimits>,
): Promise<EdgeUnderTest> {
  return await EdgeUnderTest.start(stage, {
    name,
    initial: edgeConfig(origin.ports),
    limits,
    accessLogFile: stage.path(`${name}.log`),
  });
}

export function targetOf(edge: EdgeUnderTest): Target {
  return { name: 'ecluse', httpPort: edge.httpPort, pids: () => [edge.pid] };
}

/** nginx and HAProxy with the configs of `npm run bench -- proxy`. */
export async function startPeers(stage: Stage, origin: SlowOrigin, names: readonly ('nginx' | 'haproxy')[]): Promise<Target[]> {
  await installPrograms([...names, 'perl', 'openssl']);
  const files = await makeCertificateFiles(stage);
  const [websocketPort = 0] = origin.ports;
  const started: Target[] = [];
  for (const name of names) {
    if (!(await isInstalled(name))) {
      note(`!! ${name} is left out: it could not be installed`);
      continue;
    }
    const around = { hosts: [BENCH_HOST], workers: 1, endpointPorts: origin.ports, websocketPort, ...files, inspect: false };
    started.push(await startPeer(stage, name, around));
  }
  return started;
}
