/**
 * Certificates on their way to workers that boot: a hundred thousand are 120 MB, which in one message cost each worker 400 MB more that it never gave back
 * (2026-11). They are read from where they are kept and told in pieces, each when the one before has arrived, so that neither end holds more than one.
 */
import { LRUCache } from 'lru-cache';
import { hashOf } from '#sharded-map';
import type { Coverage } from '#tls/certificate.ts';
import type { CertificateIndex, PlacedPack, ToldPack } from '#tls/certificate-index.ts';
import type { CertificatePack } from '#tls/certificate-pack.ts';
import type { Ask, Reply } from './generation/conversation.ts';
import { WORKER_START_TIMEOUT_MS } from './limits.ts';

/** All that can be served of these names. What is read is never older than the bare index that was committed last. */
export type PackCertificates = (names: readonly string[]) => Promise<CertificatePack>;

export interface CertificateSource {
  /** What is committed, at this moment. */
  readonly index: () => CertificateIndex<Coverage>;
  /** For an index that is bare. */
  readonly pack: PackCertificates | undefined;
  /** The index has certificates that cannot be read. */
  readonly missing: (names: readonly string[]) => void;
}

interface Listening {
  readonly ask: (message: Ask, timeoutMs: number) => Promise<Reply>;
}

/** A message ends with the pack that brings it over this: of a hundred thousand certificates each pack is one, of which the worker keeps every byte. */
const PIECE_BYTES = 64 * 1024;
/** 4 MB of a hundred thousand certificates: workers that boot together read what the first of them has read. */
const READ_MAX = 32;

export class CertificateDelivery {
  readonly #source: CertificateSource;
  readonly #read = new LRUCache<CertificatePack, Promise<CertificatePack>>({ max: READ_MAX });
  #deliveries = 0;
  /** Number of the pack that was read last. */
  #last = -1;

  constructor(source: CertificateSource) {
    this.#source = source;
  }

  /**
   * Tells `worker` what there is, and what changes meanwhile, until what is left fits into one message. Returns that: whoever boots the worker with it in the
   * same turn gives it exactly what the index has then. Rejects where certificates cannot be read, or the worker does not listen.
   */
  async deliver(worker: Listening): Promise<readonly ToldPack[]> {
    const known = new Map<number, CertificatePack>();
    this.#deliveries += 1;
    try {
      for (;;) {
        const piece = await this.#nextPiece(known);
        if (this.#source.index().packsBeside(known).length === 0) return piece;
        await worker.ask({ kind: 'certificates', packs: piece }, WORKER_START_TIMEOUT_MS);
      }
    } finally {
      this.#deliveries -= 1;
      if (this.#deliveries === 0) this.#read.clear();
    }
  }

  async #nextPiece(known: Map<number, CertificatePack>): Promise<readonly ToldPack[]> {
    const piece: ToldPack[] = [];
    let size = 0;
    for (const { number, pack } of this.#inOrder(this.#source.index().packsBeside(known))) {
      const { bytes } = await this.#whole(pack);
      this.#last = number;
      piece.push({ number, bytes });
      known.set(number, pack);
      size += bytes.length;
      if (size >= PIECE_BYTES) break;
    }
    return piece;
  }

  /** First what was read for others, so that workers that boot together read all but the first and last packs once. */
  #inOrder(packs: readonly PlacedPack[]): readonly PlacedPack[] {
    if (this.#read.size === 0) return packs;
    const read = packs.filter(({ pack }) => this.#read.has(pack));
    if (read.length > 0) return read;
    const next = packs.findIndex(({ number }) => number > this.#last);
    return next === -1 ? packs : [...packs.slice(next), ...packs.slice(0, next)];
  }

  async #whole(pack: CertificatePack): Promise<CertificatePack> {
    const { pack: packOf, missing } = this.#source;
    if (packOf === undefined || pack.size === 0) return pack;
    const known = this.#read.get(pack);
    if (known !== undefined) return await known;
    const names = [...pack.values()].map(({ name }) => name);
    const reading = packOf(names).then((whole) => {
      if (whole.size < names.length) missing(names.filter((name) => whole.named(hashOf(name)).every((one) => one.name !== name)));
      return whole;
    });
    this.#read.set(pack, reading);
    return await reading;
  }
}
