/** What an engine says about a container's life, in the store's words. Pure. */
import type { ContainerLife, ContainerRow, ContainerState } from '#state/containers.ts';
import { engineTimeMs } from '#caas/engine/engine-answers.ts';
import type { EngineInspect } from '#caas/engine/engine-answers.ts';

const STATES: readonly ContainerState[] = ['created', 'running', 'paused', 'restarting', 'exited', 'dead'];

function stateOf(status: string): ContainerState {
  return STATES.find((known) => known === status) ?? 'dead'; // `removing` is on its way there.
}

/** What an engine's inspect says about a container's life, with the start time that a migration carried along. Pure. */
export function lifeOf(inspect: EngineInspect, row: ContainerRow): ContainerLife {
  const carried = row.carriedStart !== '' && row.carriedStart === inspect.State.StartedAt;
  const [network] = Object.values(inspect.NetworkSettings.Networks ?? {});
  const state = stateOf(inspect.State.Status);
  return {
    state,
    startedMs: carried ? row.startedMs : engineTimeMs(inspect.State.StartedAt),
    finishedMs: engineTimeMs(inspect.State.FinishedAt),
    restartCount: carried ? row.restartCount : inspect.RestartCount,
    address: state === 'running' || state === 'paused' ? (network?.IPAddress ?? '') : '',
  };
}
