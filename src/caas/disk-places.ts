/** Where engines keep what containers wrote and what is in volumes. */
import { LRUCache } from 'lru-cache';
import { EcluseError } from '#errors';
import { volumeOfKey } from '#metering/ledger-chain.ts';
import { findVolumeById } from '#state/volumes.ts';
import type { Sql } from '#state/sql.ts';
import type { Containers } from './containers.ts';
import type { DiskPlace } from './disk-meter.ts';
import type { Host } from './host.ts';
import { upperOf } from './snapshots/upper-directory.ts';
import { findVolumeDirectory } from './volumes/volume-data.ts';

interface PlaceDeps {
  readonly sql: Sql;
  readonly hosts: ReadonlyMap<string, Host>;
  readonly containers: Pick<Containers, 'find' | 'inspectEngine'>;
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

  /** Of a container's id, or `volume/ID`. `anew`: what is known is not right any more. Undefined: it has nothing on disk. Throws where an engine does not answer. */
  async find(id: string, how: 'as-known' | 'anew'): Promise<DiskPlace> {
    const volume = volumeOfKey(id);
    const found = volume === undefined ? await this.#container(id) : await this.#volume(volume);
    if (found === undefined) return undefined;
    const { host, key, ask } = found;
    const known = how === 'anew' ? undefined : this.#directories.get(key);
    // An engine may be holding the start of one that sleeps, and does not answer about it; nothing writes there meanwhile.
    if (known === undefined && found.sleeps) return 'still';
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
    return { host: row.host, key: `${row.host} ${row.engineId}`, sleeps: row.snapshot !== '', ask };
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
      sleeps: false,
      ask: async () => await findVolumeDirectory(host, volume),
    };
  }
}

interface Found {
  readonly host: string;
  readonly key: string;
  readonly sleeps: boolean;
  readonly ask: () => Promise<string | undefined>;
}
