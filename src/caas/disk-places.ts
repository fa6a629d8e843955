/** Where engines keep what containers wrote and what is in volumes. */
import { LRUCache } from 'lru-cache';
import { EcluseError } from '#errors';
import { volumeOfKey } from '#metering/ledger-chain.ts';
import { findVolumeById } from '#state/volumes.ts';
import type { Sql } from '#state/sql.ts';
import type { ContainerRow } from '#state/containers.ts';
import type { Containers } from './containers.ts';
import type { DiskPlace } from './disk-meter.ts';
import type { EngineInspect } from './engine/engine-answers.ts';
import type { Host } from './host.ts';
import { upperOf } from './snapshots/upper-directory.ts';
import { findVolumeDirectory } from './volumes/volume-data.ts';

interface PlaceDeps {
  readonly sql: Sql;
  readonly hosts: ReadonlyMap<string, Host>;
  readonly containers: Pick<Containers, 'find' | 'inspectEngine'>;
  /** Whether an engine holds the start of a container that sleeps: it does not answer about it. */
  readonly sleepsLightly: (id: string) => boolean;
}

/** More than a node has. What is not in it is asked for again. */
const KNOWN_MAX = 20_000;

export class DiskPlaces {
  readonly #deps: PlaceDeps;
  /** By host and engine container, or volume: those never get another one. PERF: to ask an engine costs the node three times what a walk does. */
  readonly #directories = new LRUCache<string, string>({ max: KNOWN_MAX });

  constructor(deps: PlaceDeps) {
    this.#deps = deps;
  }

  /** What an engine said of a container that is awake: it may not answer later. */
  note({ host, engineId }: Pick<ContainerRow, 'host' | 'engineId'>, inspect: EngineInspect): void {
    const upper = inspect.GraphDriver?.Data?.['UpperDir'];
    if (upper !== undefined) this.#directories.set(keyOf(host, engineId), upper);
  }

  /** Of a container's id, or `volume/ID`. `anew`: what is known is not right any more. Throws where an engine does not answer. */
  async find(id: string, how: 'as-known' | 'anew'): Promise<DiskPlace> {
    const volume = volumeOfKey(id);
    const found = volume === undefined ? await this.#container(id) : await this.#volume(volume);
    if (found === undefined) return 'unknown';
    const { host, key, ask } = found;
    const known = how === 'anew' ? undefined : this.#directories.get(key);
    if (known === undefined && this.#deps.sleepsLightly(id)) return 'unknown';
    const directory = known ?? (await ask());
    if (directory === undefined) return undefined;
    this.#directories.set(key, directory);
    return { host, directory };
  }

  async #container(id: string): Promise<Found | undefined> {
    const { containers } = this.#deps;
    const row = await containers.find(id);
    if (row === undefined || row.engineId === '') return undefined;
    const ask = async (): Promise<string | undefined> => {
      const inspect = await containers.inspectEngine(row);
      return inspect === undefined ? undefined : upperOf(inspect);
    };
    return { host: row.host, key: keyOf(row.host, row.engineId), ask };
  }

  async #volume(id: string): Promise<Found | undefined> {
    const volume = await findVolumeById(this.#deps.sql, id);
    if (volume === undefined || volume.host === '') return undefined;
    const host = this.#deps.hosts.get(volume.host);
    if (host === undefined)
      throw new EcluseError({ code: 'ECLUSE_HOST_UNKNOWN', source: 'runtime', message: `there is no host ${volume.host} now` });
    return {
      host: volume.host,
      key: `${volume.host} ${id}`,
      ask: async () => await findVolumeDirectory(host, volume),
    };
  }
}

function keyOf(host: string, id: string): string {
  return `${host} ${id}`;
}

interface Found {
  readonly host: string;
  readonly key: string;
  readonly ask: () => Promise<string | undefined>;
}
