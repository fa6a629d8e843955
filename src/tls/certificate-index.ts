/**
 * Which certificate answers for a server name: exact, then the wildcard of one label. Where several cover a name, the one that is valid longest has it,
 * and of two that end together the one whose name sorts first: the choice depends on nothing but what there is, so that all workers make the same one.
 *
 * Certificates are in packs by a hash of their name, and beside them is a table from the hashes of hosts to those of names: what is found by a hash is
 * looked at before it is believed. An index is immutable, and a changed copy shares the packs that did not change. A bare index knows what certificates
 * cover, and has none of them.
 * COST: a change of one certificate among n copies n / SHARDS of them (120 KB of 100 000), some pairs of numbers, and the lists of both.
 */
import { SHARDS, hashOf, shardOf } from '#sharded-map';
import type { Coverage, EdgeCertificate } from './certificate.ts';
import { BarePackWriter, CertificatePack } from './certificate-pack.ts';
import type { PackedCertificate } from './certificate-pack.ts';

/** A pack by the place that it has in its index. */
export interface PlacedPack {
  readonly number: number;
  readonly pack: CertificatePack;
}

/** A pack on its way to another process. */
export interface ToldPack {
  readonly number: number;
  readonly bytes: Uint8Array;
}

/** Hashes of hosts, each followed by that of the name of a certificate that covers it. */
type Pairs = Uint32Array;
const PAIR = 2;
const NO_PAIRS: Pairs = new Uint32Array();
const NO_PACKS: readonly CertificatePack[] = Array.from({ length: SHARDS }, () => CertificatePack.empty);
const NO_HOSTS: readonly Pairs[] = Array.from({ length: SHARDS }, () => NO_PAIRS);

type Repack<C> = (pack: CertificatePack, added: readonly C[], names: ReadonlySet<string>) => CertificatePack;

export class CertificateIndex<C extends Coverage = PackedCertificate> {
  readonly #packs: readonly CertificatePack[];
  readonly #hosts: readonly Pairs[];
  readonly #isBare: boolean;
  readonly size: number;

  private constructor(packs: readonly CertificatePack[], hosts: readonly Pairs[], isBare: boolean) {
    this.#packs = packs;
    this.#hosts = hosts;
    this.#isBare = isBare;
    this.size = packs.reduce((sum, pack) => sum + pack.size, 0);
  }

  static of(certificates: readonly EdgeCertificate[]): CertificateIndex {
    return new CertificateIndex(NO_PACKS, NO_HOSTS, false).with(certificates);
  }

  static bare(): CertificateIndex<Coverage> {
    return new CertificateIndex<Coverage>(NO_PACKS, NO_HOSTS, true);
  }

  /** `coverages`: each name once, some at a time. */
  static async bareOf(coverages: AsyncIterable<readonly Coverage[]>): Promise<CertificateIndex<Coverage>> {
    // PERF: written as they come. As objects, a hundred thousand left 100 MB to the primary that it did not need again.
    const packs = NO_PACKS.map(() => new BarePackWriter());
    const hosts = NO_HOSTS.map(() => new NumberWriter());
    for await (const some of coverages) {
      for (const coverage of some) {
        const nameHash = hashOf(coverage.name);
        packs[shardOf(nameHash)]?.write(coverage);
        for (const host of new Set(coverage.hosts)) {
          const hash = hashOf(host);
          hosts[shardOf(hash)]?.write(hash, nameHash);
        }
      }
    }
    return new CertificateIndex<Coverage>(
      packs.map((writer) => writer.pack()),
      hosts.map((writer) => writer.numbers()),
      true,
    );
  }

  /** Of what another process told; the last word counts. */
  static told(told: ReadonlyMap<number, CertificatePack>): CertificateIndex {
    return new CertificateIndex(...partsOf(told), false);
  }

  static toldBare(told: ReadonlyMap<number, CertificatePack>): CertificateIndex<Coverage> {
    return new CertificateIndex<Coverage>(...partsOf(told), true);
  }

  /** An index with `changed`, each in place of what had its name, and without the names of `removed`. */
  with(changed: readonly EdgeCertificate[], removed: readonly string[] = []): CertificateIndex<C> {
    const repack: Repack<EdgeCertificate> = this.#isBare
      ? (pack, added, names): CertificatePack => pack.withBare(added, names)
      : (pack, added, names): CertificatePack => pack.with(added, names);
    return this.#changed(changed, removed, repack);
  }

  #changed<A extends Coverage>(changed: readonly A[], removed: readonly string[], repack: Repack<A>): CertificateIndex<C> {
    if (changed.length === 0 && removed.length === 0) return this;
    const names = new Map<string, A | undefined>(removed.map((name) => [name, undefined]));
    for (const certificate of changed) names.set(certificate.name, certificate);
    const packs = [...this.#packs];
    const [gone, come]: [number[], number[]] = [[], []];
    for (const [shard, some] of Map.groupBy(names, ([name]) => shardOf(hashOf(name)))) {
      const before = packs[shard] ?? CertificatePack.empty;
      const touched = new Set(some.map(([name]) => name));
      const added = some.flatMap(([, certificate]) => (certificate === undefined ? [] : [certificate]));
      for (const name of touched) for (const one of before.named(hashOf(name))) if (one.name === name) pairsOf(one, gone);
      for (const certificate of added) pairsOf(certificate, come);
      packs[shard] = repack(before, added, touched);
    }
    return new CertificateIndex(packs, changedHosts(this.#hosts, gone, come), this.#isBare);
  }

  /** For a server name in lower case; undefined: none covers it. */
  find(serverName: string): C | undefined {
    // A client that writes a wildcard names no host.
    if (serverName.startsWith('*')) return undefined;
    const exact = this.#bestOf(serverName);
    if (exact !== undefined) return exact;
    const dot = serverName.indexOf('.');
    return dot < 1 ? undefined : this.#bestOf(`*${serverName.slice(dot)}`);
  }

  get(name: string): C | undefined {
    const hash = hashOf(name);
    return this.#seen(this.#packs[shardOf(hash)]?.named(hash) ?? []).find((one) => one.name === name);
  }

  /** All that have `host` (exact or wildcard, as they write it) among their names; the one that answers first. */
  holdersOf(host: string): readonly C[] {
    const found = new Map(this.#covering(host).map((one) => [one.name, one]));
    return [...found.values()].toSorted(byValidity);
  }

  *values(): Generator<C> {
    for (const pack of this.#packs) yield* this.#seen([...pack.values()]);
  }

  /** What somebody has to be told who was told the `known` packs of this index, or of an earlier one. */
  packsBeside(known: ReadonlyMap<number, CertificatePack>): readonly PlacedPack[] {
    return this.#packs.flatMap((pack, number) =>
      pack === (known.get(number) ?? CertificatePack.empty) ? [] : [{ number, pack }],
    );
  }

  /** Of a bare index nobody is to see more than what it has: its type says which that is. */
  #seen(certificates: readonly PackedCertificate[]): readonly C[] {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- `C` is `Coverage` or `PackedCertificate`: the constructor is private
    return certificates as readonly Coverage[] as readonly C[];
  }

  #bestOf(host: string): C | undefined {
    const [first, ...others] = this.#covering(host);
    return others.reduce((best, one) => (best === undefined || byValidity(one, best) < 0 ? one : best), first);
  }

  #covering(host: string): readonly C[] {
    const hash = hashOf(host);
    const pairs = this.#hosts[shardOf(hash)] ?? NO_PAIRS;
    const found: PackedCertificate[] = [];
    for (let index = 0; index < pairs.length; index += PAIR) {
      if (pairs[index] !== hash) continue;
      const nameHash = pairs[index + 1] ?? 0;
      for (const one of this.#packs[shardOf(nameHash)]?.named(nameHash) ?? []) if (one.covers(host)) found.push(one);
    }
    return this.#seen(found);
  }
}

/** What another process tells of an index, piece by piece. */
export class ToldPacks {
  readonly #told = new Map<number, CertificatePack>();

  tell(number: number, pack: CertificatePack): void {
    this.#told.set(number, pack);
  }

  index(): CertificateIndex {
    return CertificateIndex.told(this.#told);
  }
}

/** Numbers that become an array of exactly their size. */
class NumberWriter {
  #numbers = NO_PAIRS;
  #count = 0;

  write(one: number, other: number): void {
    if (this.#count === this.#numbers.length) {
      const larger = new Uint32Array(Math.max(2 * PAIR, 2 * this.#count));
      larger.set(this.#numbers);
      this.#numbers = larger;
    }
    this.#numbers[this.#count] = one;
    this.#numbers[this.#count + 1] = other;
    this.#count += PAIR;
  }

  numbers(): Uint32Array {
    return this.#numbers.slice(0, this.#count);
  }
}

function partsOf(told: ReadonlyMap<number, CertificatePack>): [readonly CertificatePack[], readonly Pairs[]] {
  const packs = NO_PACKS.map((none, number) => told.get(number) ?? none);
  const come: number[] = [];
  for (const pack of packs) for (const certificate of pack.values()) pairsOf(certificate, come);
  return [packs, changedHosts(NO_HOSTS, [], come)];
}

function pairsOf({ name, hosts }: Coverage, pairs: number[]): void {
  const nameHash = hashOf(name);
  for (const host of hosts.length > 1 ? new Set(hosts) : hosts) pairs.push(hashOf(host), nameHash);
}

/** Each pair of `gone` is taken away once: two names with one hash may have a host in common. */
function changedHosts(before: readonly Pairs[], gone: readonly number[], come: readonly number[]): readonly Pairs[] {
  const changed = new Map<number, number[]>();
  const listOf = (hash: number): number[] => {
    const shard = shardOf(hash);
    const known = changed.get(shard);
    if (known !== undefined) return known;
    const list = [...(before[shard] ?? NO_PAIRS)];
    changed.set(shard, list);
    return list;
  };
  for (let index = 0; index < gone.length; index += PAIR) {
    const [host = 0, name = 0] = [gone[index], gone[index + 1]];
    const list = listOf(host);
    for (let at = 0; at < list.length; at += PAIR) {
      if (list[at] !== host || list[at + 1] !== name) continue;
      list.splice(at, PAIR);
      break;
    }
  }
  for (let index = 0; index < come.length; index += PAIR) listOf(come[index] ?? 0).push(come[index] ?? 0, come[index + 1] ?? 0);
  const hosts = [...before];
  for (const [shard, list] of changed) hosts[shard] = Uint32Array.from(list);
  return hosts;
}

function byValidity(one: Coverage, other: Coverage): number {
  return other.notAfterMs - one.notAfterMs || (one.name < other.name ? -1 : 1);
}
