/**
 * Certificates on their way to workers that boot: a hundred thousand are 120 MB, which in one message cost each worker 400 MB more that it never gave back
 * (2026-11). They go in pieces, each when the one before has arrived: from the process that reads many, or from this one.
 */
import { LRUCache } from 'lru-cache';
import { hashOf } from '#sharded-map';
import type { Coverage, EdgeCertificate } from '#tls/certificate.ts';
import type { CertificateIndex, PlacedPack, ToldPack } from '#tls/certificate-index.ts';
import type { CertificatePack } from '#tls/certificate-pack.ts';
import type { Ask, Reply } from './generation/conversation.ts';
import { WORKER_START_TIMEOUT_MS } from './limits.ts';

/** Where the certificates of a bare index are. What is read is never older than the index that was committed last. */
export interface CertificateStock {
  /** All of these names that can be served. */
  readonly pack: (names: readonly string[]) => Promise<CertificatePack>;
  /** The socket of a process that reads them (`PackServer`) until it is given back; undefined: they are few, and `pack` is to be asked. */
  readonly lend: () => Promise<({ readonly path: string } & Disposable) | undefined>;
  /** Those of these names that such a process does not know. */
  readonly besides: (names: readonly string[]) => Promise<readonly EdgeCertificate[]>;
}

export interface DeliveryDeps {
  /** What is committed, at this moment. */
  readonly index: () => CertificateIndex<Coverage>;
  /** For an index that is bare. */
  readonly stock: CertificateStock | undefined;
  /** The index has certificates that cannot be served. */
  readonly missing: (names: readonly string[]) => void;
}

interface Listening {
  readonly ask: (message: Ask, timeoutMs: number) => Promise<Reply>;
}

/** A message ends with the pack that brings it over this: of a hundred thousand certificates each pack is one, of which the worker keeps every byte. */
const PIECE_BYTES = 64 * 1024;
/** Packs that a worker is told to fetch at a time: 2 MB of a hundred thousand certificates. */
const FETCHED_AT_ONCE = 16;
/** 8 MB: workers that boot together read what the first of them has read. The process that reads keeps as many. */
export const RECENT_MAX = 64;

export class CertificateDelivery {
  readonly #deps: DeliveryDeps;
  /** What was read last, by this process or another. */
  readonly #recent = new LRUCache<CertificatePack, { readonly pack: Promise<CertificatePack> | undefined }>({ max: RECENT_MAX });
  #deliveries = 0;
  /** Number of the pack that was read last. */
  #last = -1;

  constructor(deps: DeliveryDeps) {
    this.#deps = deps;
  }

  /**
   * Tells `worker` what there is, and what changes meanwhile (a change takes longer than to tell of it), and calls `then` in the very turn in which it has all:
   * who boots the worker there gives it what the index has at that moment. Rejects where certificates cannot be read, or the worker does not listen.
   */
  async deliver<T>(worker: Listening, then: () => Promise<T>): Promise<T> {
    const { index, stock } = this.#deps;
    const known = new Map<number, CertificatePack>();
    this.#deliveries += 1;
    try {
      using lent = await stock?.lend();
      for (;;) {
        const left = index().packsBeside(known);
        if (left.length === 0) return await then();
        const message = lent === undefined ? await this.#piece(left, known) : await this.#errand(left, known, lent.path);
        const reply = await worker.ask(message, WORKER_START_TIMEOUT_MS);
        if (reply.kind === 'refused') throw new Error(reply.reason);
        if (reply.kind === 'ack' && reply.missing !== undefined) this.#deps.missing(reply.missing);
      }
    } finally {
      this.#deliveries -= 1;
      if (this.#deliveries === 0) this.#recent.clear();
    }
  }

  async #piece(left: readonly PlacedPack[], known: Map<number, CertificatePack>): Promise<Ask> {
    const packs: ToldPack[] = [];
    let size = 0;
    for (const { number, pack } of this.#inOrder(left)) {
      const { bytes } = await this.#whole(pack);
      this.#last = number;
      packs.push({ number, bytes });
      known.set(number, pack);
      size += bytes.length;
      if (size >= PIECE_BYTES) break;
    }
    return { kind: 'certificates', packs };
  }

  async #errand(left: readonly PlacedPack[], known: Map<number, CertificatePack>, path: string): Promise<Ask> {
    const chosen = this.#inOrder(left).slice(0, FETCHED_AT_ONCE);
    const wanted = [];
    for (const { number, pack } of chosen) {
      this.#recent.set(pack, { pack: undefined });
      this.#last = number;
      known.set(number, pack);
      const names = namesOf(pack);
      wanted.push({ number, id: pack.id, names, besides: (await this.#deps.stock?.besides(names)) ?? [] });
    }
    return { kind: 'fetch-certificates', path, wanted };
  }

  /** First what was read for others, so that workers that boot together read all but the first and last packs once. */
  #inOrder(packs: readonly PlacedPack[]): readonly PlacedPack[] {
    if (this.#recent.size === 0) return packs;
    const read = packs.filter(({ pack }) => this.#recent.has(pack));
    if (read.length > 0) return read;
    const next = packs.findIndex(({ number }) => number > this.#last);
    return next === -1 ? packs : [...packs.slice(next), ...packs.slice(0, next)];
  }

  async #whole(pack: CertificatePack): Promise<CertificatePack> {
    const { stock, missing } = this.#deps;
    if (stock === undefined || pack.size === 0) return pack;
    const known = this.#recent.get(pack)?.pack;
    if (known !== undefined) return await known;
    const names = namesOf(pack);
    const reading = stock.pack(names).then((whole) => {
      const lost = missingIn(whole, names);
      if (lost.length > 0) missing(lost);
      return whole;
    });
    this.#recent.set(pack, { pack: reading });
    reading.catch(() => this.#recent.delete(pack));
    return await reading;
  }
}

function namesOf(pack: CertificatePack): readonly string[] {
  return [...pack.values()].map(({ name }) => name);
}

/** Those of `names` that `pack` has not. */
export function missingIn(pack: CertificatePack, names: readonly string[]): readonly string[] {
  if (pack.size === names.length) return [];
  return names.filter((name) => pack.named(hashOf(name)).every((one) => one.name !== name));
}
