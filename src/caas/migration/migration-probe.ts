/**
 * What a container does at its port: asked before it is saved, so that no less can be demanded of what is restored.
 *
 * A port that accepts says only that the sandbox has a network. What is restored can accept and never answer: with runsc 20240729 an app that had open
 * connections when it was saved can lose events of its sockets at a restore (`sandbox-connections.ts`). So whoever serves HTTP by
 * its labels has to answer a request.
 */
import { request } from 'node:http';
import { connect } from 'node:net';
import type { Clock } from '#clock';
import { waitFor } from '#clock';
import { codeOf } from '#errors';
import type { ContainerSpec } from '#caas/spec/container-spec.ts';
import type { Serving } from '#state/snapshots.ts';

const PROBE_TRY_MS = 1_000;
const PROBE_LIMIT_MS = 10_000;
const PROBE_STEP_MS = 5;

/** `unknown`: nothing comes from its network, not even a refusal. */
export type Found = Serving | 'unknown';

interface Door {
  readonly address: string;
  readonly port: number;
  /** Where it says itself whether it is well. */
  readonly healthPath: string | undefined;
  /** Whether it serves HTTP to clients of the edge. */
  readonly isHttp: boolean;
}

/** Undefined: it has no address or no port. */
function doorOf(spec: ContainerSpec, address: string): Door | undefined {
  const labels = spec.config.Labels ?? {};
  const port = Number(labels['ecluse.http.port'] ?? spec.tcpPorts[0]);
  if (address === '' || !Number.isInteger(port)) return undefined;
  const path = labels['ecluse.http.health'];
  const healthPath = path?.startsWith('/') === true ? path : undefined;
  return { address, port, healthPath, isHttp: labels['ecluse.http.host'] !== undefined };
}

/** What it does now. Where it has a health path, that has to say that it is well to count as an answer. */
export async function servingOf(spec: ContainerSpec, address: string): Promise<Found> {
  const door = doorOf(spec, address);
  return door === undefined ? 'nothing' : await foundAt(door);
}

async function foundAt(door: Door): Promise<Found> {
  if (door.healthPath !== undefined) return await healthAt(door, door.healthPath);
  return await knock(door, door.isHttp);
}

/** For what is kept: what could not be found out is not demanded later. */
export function keptServing(found: Found): Serving {
  return found === 'unknown' ? 'nothing' : found;
}

/** Waits until it does what it did before; false where it does not within ten seconds. `check` throws where there is no use in waiting. */
export async function untilServes(
  clock: Clock,
  {
    spec,
    address,
    before,
    check,
  }: { readonly spec: ContainerSpec; readonly address: string; readonly before: Found; readonly check: () => Promise<void> },
): Promise<boolean> {
  const door = doorOf(spec, address);
  if (door === undefined || before === 'nothing') return true;
  const serves = async (): Promise<true | undefined> => {
    if (await servesAs(door, before)) return true;
    await check();
    return undefined;
  };
  return (await waitFor(clock, serves, { limitMs: PROBE_LIMIT_MS, stepMs: PROBE_STEP_MS })) === true;
}

async function servesAs(door: Door, before: Exclude<Found, 'nothing'>): Promise<boolean> {
  if (before === 'accepts') return (await knock(door, false)) === 'accepts';
  const found = await foundAt(door);
  // What listened goes on to listen: who refuses never did. Who accepts has to do all that can be asked of it.
  if (before === 'unknown')
    return found === 'nothing' || found === (door.isHttp || door.healthPath !== undefined ? 'answers' : 'accepts');
  return found === 'answers';
}

/** RFC 9110 §9.3.7: it asks about the server, and changes nothing. */
const QUESTION = 'OPTIONS * HTTP/1.1\r\nHost: ecluse-probe\r\nUser-Agent: ecluse-probe\r\nConnection: close\r\n\r\n';

/** Whether its port accepts, and, where `asks`, whether anything comes back for a request: what, is not looked at. */
async function knock({ address, port }: Door, asks: boolean): Promise<Found> {
  return await new Promise((resolve) => {
    const socket = connect({ host: address, port, timeout: PROBE_TRY_MS });
    let known: Found = 'unknown';
    const settle = (found: Found): void => {
      socket.destroy();
      resolve(found);
    };
    socket.once('connect', () => {
      known = 'accepts';
      if (asks) socket.write(QUESTION);
      else settle('accepts');
    });
    socket.once('data', () => {
      settle('answers');
    });
    socket.once('end', () => {
      settle(known);
    });
    socket.once('timeout', () => {
      settle(known);
    });
    socket.once('error', (error) => {
      settle(codeOf(error) === 'ECONNREFUSED' ? 'nothing' : known);
    });
  });
}

async function healthAt({ address, port }: Door, path: string): Promise<Found> {
  return await new Promise((resolve) => {
    let known: Found = 'unknown';
    const outgoing = request({ host: address, port, path, timeout: PROBE_TRY_MS, agent: false }, (response) => {
      response.resume();
      resolve((response.statusCode ?? 500) < 400 ? 'answers' : 'accepts');
      response.once('end', () => outgoing.destroy());
    });
    outgoing.once('socket', (socket) => {
      socket.once('connect', () => {
        known = 'accepts';
      });
    });
    outgoing.once('timeout', () => outgoing.destroy(new Error('no answer')));
    outgoing.once('error', (error) => {
      resolve(codeOf(error) === 'ECONNREFUSED' ? 'nothing' : known);
    });
    outgoing.end();
  });
}
