/** What answers of workers mean to the pool. Pure. */
import { EcluseError, reasonOf } from '#errors';
import { configRefused } from './committed.ts';
import type { Reply } from './generation/conversation.ts';
import { listenError } from './port-probe.ts';
import type { FreezeResult, ListenAddresses } from './protocol.ts';

/** What two groups of workers found at a freeze. */
export function sumOfFreezes(one: FreezeResult, other: FreezeResult): FreezeResult {
  return {
    cut: one.cut + other.cut,
    waitedMs: Math.max(one.waitedMs, other.waitedMs),
    closedWebSockets: one.closedWebSockets + other.closedWebSockets,
    endedEventStreams: one.endedEventStreams + other.endedEventStreams,
    replayed: one.replayed + other.replayed,
  };
}

/** Why a worker's answer to a change stands in its way; undefined: it does not. */
export function refusalOf(result: PromiseSettledResult<Reply>): string | undefined {
  if (result.status === 'fulfilled') return result.value.kind === 'refused' ? result.value.reason : undefined;
  // A worker that dies takes no part: its successor boots at what is committed. One that hangs does.
  const error: unknown = result.reason;
  return error instanceof EcluseError && error.code === 'ECLUSE_WORKER_GONE' ? undefined : reasonOf(error);
}

export function startFailed(what: string): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_WORKER_START',
    source: 'runtime',
    message: `a worker ${what} at start`,
    mend: 'see its log lines above',
  });
}

export function optionsRefused(reason: string): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_OPTIONS_REFUSED',
    source: 'runtime',
    status: 409,
    message: `a worker did not take the options: ${reason}`,
    mend: 'nothing was changed; see the log of the daemon, and try again',
  });
}

/** Why a worker that was to serve `version` and listen does not. */
export function bootRefused(
  { reason, code }: Reply & { readonly kind: 'refused' },
  version: number,
  { http, https }: ListenAddresses,
): EcluseError {
  if (code === undefined) return configRefused(version, reason);
  const key = http !== undefined && reason.includes(`:${String(http.port)}`) ? 'listen.http' : 'listen.https';
  return listenError(key === 'listen.http' ? http : https, key, { code, reason });
}
