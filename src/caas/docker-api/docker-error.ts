/** Refusals in Docker's own words and status codes: clients match on them. */
import { parseNamed } from '#caas/images/image-reference.ts';
import { EcluseError, errorLine } from '#errors';
import type { SpecRefusal } from '#caas/spec/spec-refusal.ts';

export function dockerError(status: number, message: string): EcluseError {
  return new EcluseError({ code: 'ECLUSE_DOCKER_REFUSED', source: 'downstream', status, message });
}

/** What is said of a specification that is not taken: ours begin with our name, Docker's own words do not. */
export function refusedSpec(refusal: SpecRefusal): EcluseError {
  return dockerError(refusal.status, refusal.isWhole === true ? refusal.reason : `ecluse: ${refusal.reason}`);
}

/** What Docker says for a container that does not exist. The same for one of another tenant. */
export function noSuchContainer(reference: string): EcluseError {
  return dockerError(404, `No such container: ${reference}`);
}

/** As moby says it: a name has its tag, an id has none. */
export function noSuchImage(reference: string): EcluseError {
  const parsed = parseNamed(reference);
  const hasTag = parsed.kind === 'invalid' || parsed.name.tag !== '' || parsed.name.digest !== '';
  return dockerError(404, `No such image: ${reference}${hasTag ? '' : ':latest'}`);
}

export function noSuchExec(id: string): EcluseError {
  return dockerError(404, `No such exec instance: ${id}`);
}

/** Errors whose words are for tenants. Those of others name hosts, files and sockets, which are the operator's. */
const CODES_FOR_TENANTS = new Set(['ECLUSE_DOCKER_REFUSED', 'ECLUSE_ENGINE_REFUSED', 'ECLUSE_IMAGE_LOST']);

export interface ErrorAnswer {
  readonly status: number;
  readonly message: string;
  /** False: the log must have what the tenant is not told. */
  readonly told: boolean;
}

/** What a tenant is told about anything that was thrown. */
export function answerTo(thrown: unknown): ErrorAnswer {
  if (!(thrown instanceof EcluseError)) {
    return { status: 500, message: 'ecluse: internal error, the operator has the details', told: false };
  }
  if (CODES_FOR_TENANTS.has(thrown.code)) return { status: thrown.status, message: errorLine(thrown), told: true };
  return {
    status: thrown.status,
    message: `ecluse: this cannot be done now, the operator has the details (${thrown.code})`,
    told: false,
  };
}
