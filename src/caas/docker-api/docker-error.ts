/** Refusals in Docker's own words and status codes: clients match on them. */
import { EcluseError } from '#errors';

export function dockerError(status: number, message: string): EcluseError {
  return new EcluseError({ code: 'ECLUSE_DOCKER_REFUSED', source: 'downstream', status, message });
}

/** What Docker says for a container that does not exist. The same for one of another tenant. */
export function noSuchContainer(reference: string): EcluseError {
  return dockerError(404, `No such container: ${reference}`);
}

export function noSuchImage(reference: string): EcluseError {
  return dockerError(404, `No such image: ${reference}`);
}

export function noSuchExec(id: string): EcluseError {
  return dockerError(404, `No such exec instance: ${id}`);
}
