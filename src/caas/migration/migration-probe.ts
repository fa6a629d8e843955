/** Whether a container serves at an address: asked before a move, so that the same can be demanded after it. */
import { request } from 'node:http';
import { connect } from 'node:net';
import type { Clock } from '#clock';
import { waitFor } from '#clock';
import type { ContainerSpec } from '#caas/spec/container-spec.ts';

const PROBE_TRY_MS = 1_000;
const PROBE_LIMIT_MS = 10_000;
const PROBE_STEP_MS = 5;

/** Its health path if it names one, else whether its port accepts. False where it has neither. */
export async function probeOnce(spec: ContainerSpec, address: string): Promise<boolean> {
  const labels = spec.config.Labels ?? {};
  const port = Number(labels['ecluse.http.port'] ?? spec.tcpPorts[0]);
  if (address === '' || !Number.isInteger(port)) return false;
  const path = labels['ecluse.http.health'];
  return path?.startsWith('/') === true ? await answersHealth(address, port, path) : await accepts(address, port);
}

/** Waits until it serves; false where it does not within ten seconds. `check` throws where there is no use in waiting. */
export async function untilServes(
  clock: Clock,
  { spec, address, check }: { readonly spec: ContainerSpec; readonly address: string; readonly check: () => Promise<void> },
): Promise<boolean> {
  const serves = async (): Promise<true | undefined> => {
    if (await probeOnce(spec, address)) return true;
    await check();
    return undefined;
  };
  return (await waitFor(clock, serves, { limitMs: PROBE_LIMIT_MS, stepMs: PROBE_STEP_MS })) === true;
}

async function accepts(address: string, port: number): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = connect({ host: address, port, timeout: PROBE_TRY_MS });
    const settle = (answer: boolean): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.once('connect', () => {
      settle(true);
    });
    socket.once('timeout', () => {
      settle(false);
    });
    socket.once('error', () => {
      settle(false);
    });
  });
}

async function answersHealth(address: string, port: number, path: string): Promise<boolean> {
  return await new Promise((resolve) => {
    const outgoing = request({ host: address, port, path, timeout: PROBE_TRY_MS, agent: false }, (response) => {
      response.resume();
      resolve((response.statusCode ?? 500) < 400);
      response.once('end', () => outgoing.destroy());
    });
    outgoing.once('timeout', () => outgoing.destroy(new Error('no answer')));
    outgoing.once('error', () => {
      resolve(false);
    });
    outgoing.end();
  });
}
