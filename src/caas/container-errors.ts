/** What tenants hear when an engine refuses, and of names that are taken: Docker's words, with their own names. Pure. */
import type { EcluseError } from '#errors';
import type { ContainerRow } from '#state/containers.ts';
import { dockerError } from './docker-api/docker-error.ts';
import { EngineError } from '#caas/engine/engine-client.ts';

export function nameTaken(name: string, holder: string, before = ''): EcluseError {
  return dockerError(
    409,
    `${before}Conflict. The container name "/${name}" is already in use by ${holder}. You have to remove (or rename) that container to be able to reuse that name.`,
  );
}

/** Engine messages name the engine's id; the tenant knows the virtual one. */
export function withVirtualNames(error: unknown, row: ContainerRow): unknown {
  if (!(error instanceof EngineError)) return error;
  const message = error.message
    .replaceAll(row.engineId, row.id)
    .replaceAll(/ecluse-[0-9a-f]{6}-[0-9a-f]{16}(?:-r\d+)?/g, row.name)
    .replaceAll(/\becluse-[0-9a-f]{6}-[a-z0-9-]+/g, 'bridge'); // The tenant's engine network.
  return dockerError(error.status, message);
}
