/** What the soak runs: two origins, the edge, and the configs that it is changed to. */
import { readFile } from 'node:fs/promises';
import type { EdgeLimits } from '#proxy/edge-limits.ts';
import type { EdgeCertificate } from '#tls/certificate.ts';
import type { Endpoint, Route, Service } from '#routing/route-table.ts';
import type { PlainEdge } from '../../test/support/edge.ts';
import { BENCH_HOST } from '../proxy/configs.ts';
import { startOrigin } from '../proxy/origin.ts';
import type { Origin } from '../proxy/origin.ts';
import { makeCertificateFiles } from '../proxy/peers.ts';
import type { Stage } from '../proxy/stage.ts';
import { EdgeUnderTest } from './edge-under-test.ts';
import { SlowOrigin } from './scene.ts';

/** Short, so that a soak of minutes sees every limit reached many times. */
export const SOAK_LIMITS: Partial<EdgeLimits> = {
  headTimeoutMs: 5_000,
  progressWindowMs: 5_000,
  idleTimeoutMs: 20_000,
  upstreamIdleMs: 5_000,
};

export interface SoakScene {
  readonly edge: EdgeUnderTest;
  /** For wrk: fast. */
  readonly origin: Origin;
  readonly logFile: string;
  readonly configOf: (version: number) => PlainEdge;
}

/** In every second config there are that many tenants more. */
const PASSING_TENANTS = 500;

export async function startSoakScene(stage: Stage): Promise<SoakScene> {
  const origin = await startOrigin(stage);
  const odd = await SlowOrigin.start(stage);
  const certificates = [await certificateOf(stage), await certificateOf(stage)];
  const configOf = (version: number): PlainEdge => soakConfig(version, { fast: origin.ports, odd: odd.ports, certificates });
  const logFile = stage.path('soak.log');
  const edge = await EdgeUnderTest.start(stage, {
    name: 'soak',
    initial: configOf(1),
    limits: SOAK_LIMITS,
    accessLogFile: logFile,
  });
  return { edge, origin, logFile, configOf };
}

/** Another one each time. */
async function certificateOf(stage: Stage): Promise<EdgeCertificate> {
  const { certFile, keyFile } = await makeCertificateFiles(stage);
  const [leafPem, keyPem] = [await readFile(certFile, 'utf8'), await readFile(keyFile, 'utf8')];
  return { name: BENCH_HOST, hosts: [BENCH_HOST], notAfterMs: 0, leafPem, chain: { pem: '' }, keyPem };
}

interface Parts {
  readonly fast: readonly number[];
  readonly odd: readonly number[];
  readonly certificates: readonly EdgeCertificate[];
}

function of(ports: readonly number[], index: number): number {
  return ports[index % ports.length] ?? 0;
}

/** Each version moves endpoints, gives others a new generation, and has other tenants or another certificate than the one before. */
function soakConfig(version: number, { fast, odd, certificates }: Parts): PlainEdge {
  const generation = Math.floor(version / 2);
  const endpoint = (id: string, port: number): Endpoint => ({ id, address: '127.0.0.1', port, hostName: 'a', generation });
  const services: Service[] = [
    { id: 'fast', tenant: 't0', endpoints: [endpoint('fast-0', of(fast, version)), endpoint('fast-1', of(fast, version + 1))] },
    { id: 'odd', tenant: 't1', endpoints: [endpoint('odd-0', of(odd, version)), endpoint('odd-1', of(odd, version + 1))] },
  ];
  const routes: Route[] = [
    { host: BENCH_HOST, path: '/', serviceId: 'fast' },
    { host: BENCH_HOST, path: '/odd', serviceId: 'odd' },
    { host: BENCH_HOST, path: '/planned', serviceId: 'odd' },
  ];
  for (let index = 0; index < (version % 2) * PASSING_TENANTS; index += 1) {
    const name = `passing-${String(index)}-of-${String(version)}`;
    services.push({ id: name, tenant: name, endpoints: [endpoint(name, of(fast, index))] });
    routes.push({ host: `${name}.test`, path: '/', serviceId: name });
  }
  const certificate = certificates[Math.floor(version / 3) % certificates.length];
  return { config: { version, services, routes }, certificates: certificate === undefined ? [] : [certificate] };
}
