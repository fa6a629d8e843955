/**
 * Which certificate answers for a server name: exact, then the wildcard of one label. Where several cover a name, the one that is valid longest has it,
 * and of two that end together the one whose name sorts first: the choice depends on nothing but what there is, so that all workers make the same one.
 *
 * An index is immutable, and a changed copy shares what did not change: a change costs the names of its own certificates.
 */
import { ShardedMap } from '#sharded-map';

/** What of a certificate counts here. */
export interface Coverage {
  readonly name: string;
  readonly hosts: readonly string[];
  readonly notAfterMs: number;
}

export class CertificateIndex<C extends Coverage> {
  readonly #byName: ShardedMap<C>;
  /** The one that answers first. */
  readonly #byHost: ShardedMap<readonly C[]>;

  private constructor(byName: ShardedMap<C>, byHost: ShardedMap<readonly C[]>) {
    this.#byName = byName;
    this.#byHost = byHost;
  }

  static empty<C extends Coverage>(): CertificateIndex<C> {
    return new CertificateIndex<C>(ShardedMap.empty(), ShardedMap.empty());
  }

  /** An index with `changed`, each in place of what had its name, and without the names of `removed`. */
  with(changed: readonly C[], removed: readonly string[] = []): CertificateIndex<C> {
    const names = new Map<string, C | undefined>(removed.map((name) => [name, undefined]));
    for (const certificate of changed) names.set(certificate.name, certificate);
    const hosts = new Map<string, C[]>();
    const listOf = (host: string): C[] => {
      const known = hosts.get(host);
      if (known !== undefined) return known;
      const list = [...(this.#byHost.get(host) ?? [])];
      hosts.set(host, list);
      return list;
    };
    for (const [name, after] of names) {
      for (const host of this.#byName.get(name)?.hosts ?? []) {
        const list = listOf(host);
        const at = list.findIndex((one) => one.name === name);
        if (at !== -1) list.splice(at, 1);
      }
      if (after === undefined) continue;
      for (const host of after.hosts) {
        const list = listOf(host);
        // PERF: a set and a sorted copy for each of 100 000 certificates took 0.5 of 1.2 s of CPU at a worker's boot (2026-11).
        if (!list.includes(after)) list.push(after);
      }
    }
    const byHost = new Map<string, readonly C[] | undefined>();
    for (const [host, list] of hosts) {
      if (list.length > 1) list.sort(byValidity);
      byHost.set(host, list.length === 0 ? undefined : list);
    }
    return new CertificateIndex(this.#byName.with(names), this.#byHost.with(byHost));
  }

  /** For a server name in lower case; undefined: none covers it. */
  find(serverName: string): C | undefined {
    // A client that writes a wildcard names no host.
    if (serverName.startsWith('*')) return undefined;
    const exact = this.#byHost.get(serverName)?.[0];
    if (exact !== undefined) return exact;
    const dot = serverName.indexOf('.');
    return dot < 1 ? undefined : this.#byHost.get(`*${serverName.slice(dot)}`)?.[0];
  }

  get(name: string): C | undefined {
    return this.#byName.get(name);
  }

  /** All that have `host` (exact or wildcard, as they write it) among their names; the one that answers first. */
  holdersOf(host: string): readonly C[] {
    return this.#byHost.get(host) ?? [];
  }

  get size(): number {
    return this.#byName.size;
  }

  values(): Iterable<C> {
    return this.#byName.values();
  }
}

function byValidity(one: Coverage, other: Coverage): number {
  return other.notAfterMs - one.notAfterMs || (one.name < other.name ? -1 : 1);
}
