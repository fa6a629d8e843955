/**
 * What the internal CA gave this worker, and the handshakes that wait for it. The CA's key is the primary's: a worker asks for a host the first time that a
 * client wants it, and again while it waits, because the primary that was asked may be gone, and the next one not there yet.
 */
import { LRUCache } from 'lru-cache';
import type { Clock } from '#clock';
import type { EdgeCertificate } from './certificate.ts';

export interface IssuedCertificate extends EdgeCertificate {
  /** From then on it is time for the next one. */
  readonly renewFromMs: number;
}

/** What the primary says of a host. Undefined: it gives none. */
export interface IssueAnswer {
  readonly host: string;
  readonly certificate: IssuedCertificate | undefined;
}

export interface IssuingDeps {
  readonly clock: Clock;
  /** Asks the primary, which answers by `answered`, or is gone. */
  readonly ask: (hosts: readonly string[]) => void;
}

type Waiter = (certificate: IssuedCertificate | undefined) => void;

interface Wanted {
  readonly sinceMs: number;
  readonly waiters: Waiter[];
}

/** 1.5 KB each. The primary keeps ten times as many, and asking it again costs a tenth of a millisecond. */
const KEPT_MAX = 10_000;
/** Hosts that are asked for at a time: clients may name every host that there is a route for. */
const HOSTS_MAX = 256;
/** Handshakes that wait. A worker has 512 under way by default, but clients that leave are still waited for until the answer comes. */
const WAITERS_MAX = 2048;
/** A primary that changes is away for a second or two. */
const AGAIN_MS = 500;
/** The usual limit of a handshake: who would be answered later is gone. */
const WAIT_MS = 10_000;

export class IssuedCertificates implements Disposable {
  readonly #deps: IssuingDeps;
  readonly #kept = new LRUCache<string, IssuedCertificate>({ max: KEPT_MAX });
  readonly #wanted = new Map<string, Wanted>();
  #waiters = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(deps: IssuingDeps) {
    this.#deps = deps;
  }

  /** Tells `done` the certificate of a route host, at once or when it comes; undefined: there is none, or too many wait. */
  certificateFor(host: string, done: Waiter): void {
    const nowMs = this.#deps.clock.nowMs();
    const known = this.#kept.get(host);
    if (known !== undefined && nowMs < known.notAfterMs) {
      // It serves on while its successor is made.
      if (nowMs >= known.renewFromMs) this.#want(host, undefined);
      done(known);
      return;
    }
    if (this.#waiters >= WAITERS_MAX || !this.#want(host, done)) done(undefined);
  }

  answered({ host, certificate }: IssueAnswer): void {
    if (certificate !== undefined) this.#kept.set(host, certificate);
    const wanted = this.#wanted.get(host);
    if (wanted === undefined) return; // It was asked for twice.
    this.#wanted.delete(host);
    this.#waiters -= wanted.waiters.length;
    this.#stopIfIdle();
    for (const waiter of wanted.waiters) waiter(certificate);
  }

  [Symbol.dispose](): void {
    for (const host of this.#wanted.keys()) this.answered({ host, certificate: undefined });
  }

  /** False: too many hosts are asked for. */
  #want(host: string, waiter: Waiter | undefined): boolean {
    const begun = this.#wanted.get(host);
    if (begun === undefined && this.#wanted.size >= HOSTS_MAX) return false;
    const wanted = begun ?? { sinceMs: this.#deps.clock.monotonicMs(), waiters: [] };
    if (waiter !== undefined) {
      wanted.waiters.push(waiter);
      this.#waiters += 1;
    }
    if (begun !== undefined) return true;
    this.#wanted.set(host, wanted);
    this.#deps.ask([host]);
    this.#timer ??= setInterval(() => {
      this.#again();
    }, AGAIN_MS).unref();
    return true;
  }

  #again(): void {
    const nowMs = this.#deps.clock.monotonicMs();
    for (const [host, { sinceMs }] of this.#wanted) {
      if (nowMs - sinceMs >= WAIT_MS) this.answered({ host, certificate: undefined });
    }
    if (this.#wanted.size > 0) this.#deps.ask([...this.#wanted.keys()]);
  }

  #stopIfIdle(): void {
    if (this.#wanted.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}
