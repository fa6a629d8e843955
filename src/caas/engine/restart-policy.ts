/**
 * Restart policies of engine containers: an engine starts a container that has one again when it ends, whoever ended it, and whenever the engine
 * itself starts. While a container is held still or is on two hosts it has none: what its engine would start then is a second copy, or one without
 * its memory.
 */
import type { ContainerRow } from '#state/containers.ts';
import type { Host } from '#caas/host.ts';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import type { ContainerSpec } from '#caas/spec/container-spec.ts';
import { inspectSchema } from './engine-answers.ts';
import { EngineError } from './engine-client.ts';

type Policy = NonNullable<ContainerSpec['hostConfig']['RestartPolicy']>;

/** Before a container is held or ended that must not come back by itself. */
export async function forbidRestart(host: Host, engineId: string): Promise<void> {
  try {
    await setPolicy(host, engineId, { Name: 'no' });
  } catch (error) {
    // 404: it is gone. 409: one that its engine removes at its end is not started again either.
    if (!(error instanceof EngineError && (error.status === 404 || error.status === 409))) throw error;
  }
}

/** It has the policy again that its tenant gave it. */
export async function allowRestart(host: Host, row: ContainerRow): Promise<void> {
  const policy = policyOf(row);
  if (policy !== undefined) await setPolicy(host, row.engineId, policy);
}

/** As `allowRestart`, for one that is to run: where it ended while it had no policy, it is started as its policy would have. */
export async function restartAsAllowed(host: Host, row: ContainerRow): Promise<void> {
  const policy = policyOf(row);
  if (policy === undefined) return;
  await setPolicy(host, row.engineId, policy);
  const { json } = await host.client.call({ method: 'GET', path: ['containers', row.engineId, 'json'] });
  const { Running, Restarting, ExitCode } = inspectSchema.parse(json).State;
  if (Running || Restarting || (policy.Name === 'on-failure' && ExitCode === 0)) return;
  await host.client.call({ method: 'POST', path: ['containers', row.engineId, 'start'] });
}

function policyOf(row: ContainerRow): Policy | undefined {
  const policy = parseStoredSpec(row.spec).hostConfig.RestartPolicy;
  return policy === null || policy.Name === '' || policy.Name === 'no' ? undefined : policy;
}

/** What a container is made with on the host that it moves to. */
export function withoutRestart(spec: ContainerSpec): ContainerSpec {
  return { ...spec, hostConfig: { ...spec.hostConfig, RestartPolicy: null } };
}

async function setPolicy(host: Host, engineId: string, policy: object): Promise<void> {
  await host.client.call({ method: 'POST', path: ['containers', engineId, 'update'], body: { RestartPolicy: policy } });
}
