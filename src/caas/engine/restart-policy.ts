/** Restart policies of engine containers: an engine starts a container that has one again when it ends, whoever ended it. */
import type { ContainerRow } from '#state/containers.ts';
import type { Host } from '#caas/host.ts';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import { EngineError } from './engine-client.ts';

/** Before a container is ended that must not come back by itself. */
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
  const policy = parseStoredSpec(row.spec).hostConfig.RestartPolicy;
  if (policy === null || policy.Name === '' || policy.Name === 'no') return;
  await setPolicy(host, row.engineId, policy);
}

async function setPolicy(host: Host, engineId: string, policy: object): Promise<void> {
  await host.client.call({ method: 'POST', path: ['containers', engineId, 'update'], body: { RestartPolicy: policy } });
}
