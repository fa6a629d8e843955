/** Workers of earlier generations beside those of a pool: brought to what it serves, told what changes, and ended by their own time. */
import { reasonOf } from '#errors';
import type { Log } from '#log';
import type { Spends } from '#proxy/actions/rate-limits.ts';
import { WORKER_ACK_TIMEOUT_MS, WORKER_DRAIN_MS } from '#proxy/limits.ts';
import type { EndpointLoad } from '#proxy/loads.ts';
import type { EdgeChange, ToWorker, TrafficReport } from '#proxy/protocol.ts';
import type { Ask, Reply } from './conversation.ts';
import type { Predecessor, Predecessors, Told } from './predecessors.ts';

type Adoption = Omit<ToWorker & { readonly kind: 'adopt' }, 'seq'>;

export interface Succession {
  /** Of this primary, counted from 1. */
  readonly generation: number;
  /** Where workers look for the primary that comes after theirs. */
  readonly socketPath: string;
  /** Those that looked for this one. The pool owns them from here on. */
  readonly predecessors: Predecessors;
}

export interface OldWorkersEvents {
  readonly traffic: (worker: Predecessor, report: TrafficReport) => void;
  readonly loads: (worker: Predecessor, loads: readonly EndpointLoad[]) => void;
  readonly wake: (endpointIds: readonly string[]) => void;
  readonly spent: (worker: Predecessor, spends: Spends) => void;
  /** It is there, and was told nothing yet. */
  readonly found: (worker: Predecessor) => void;
  readonly wanted: (worker: Predecessor, hosts: readonly string[]) => void;
  readonly gone: (worker: Predecessor) => void;
}

export class OldWorkers implements AsyncDisposable {
  readonly #log: Log;
  readonly #predecessors: Predecessors;
  readonly #events: OldWorkersEvents;

  private constructor(log: Log, predecessors: Predecessors, events: OldWorkersEvents) {
    this.#log = log;
    this.#predecessors = predecessors;
    this.#events = events;
  }

  static of(log: Log, succession: Succession | undefined, events: OldWorkersEvents): OldWorkers | undefined {
    return succession === undefined ? undefined : new OldWorkers(log, succession.predecessors, events);
  }

  /** Takes them over, now that the pool's own workers listen. `adoption`: what is served, as it is when it is asked for. */
  begin(adoption: () => Adoption): void {
    this.#predecessors.takeAll((worker) => {
      worker.hearWith((message) => {
        this.#hear(worker, message);
      });
      void this.#forgetWhenGone(worker);
      this.#events.found(worker);
      // In one turn with what is committed now: later changes follow on the same connection.
      if (worker.isFluent) void this.#adopt(worker, adoption());
      worker.tell({ kind: 'retire' });
    });
  }

  async #forgetWhenGone(worker: Predecessor): Promise<void> {
    await worker.gone;
    this.#events.gone(worker);
  }

  async #adopt(worker: Predecessor, adoption: Adoption): Promise<void> {
    try {
      const reply = await worker.ask(adoption, WORKER_ACK_TIMEOUT_MS);
      if (reply.kind === 'refused') throw new Error(reply.reason);
    } catch (error) {
      this.#log.warn(
        { pid: worker.pid, reason: reasonOf(error) },
        'a worker of an earlier generation serves what it served before',
      );
    }
  }

  #hear(worker: Predecessor, message: Told): void {
    if (message.kind === 'traffic') this.#events.traffic(worker, message.report);
    else if (message.kind === 'loads') this.#events.loads(worker, message.loads);
    else if (message.kind === 'spent') this.#events.spent(worker, message);
    else if (message.kind === 'wake') this.#events.wake(message.endpointIds);
    else if (message.kind === 'certificate-wanted') this.#events.wanted(worker, message.hosts);
  }

  all(): readonly Predecessor[] {
    return this.#predecessors.all();
  }

  /** What is committed. They take no part in whether it is: they end, and have no new connections. */
  changed(change: EdgeChange, thaw: readonly string[]): void {
    for (const worker of this.#fluent()) {
      worker.tell({ kind: 'prepare', change });
      worker.tell({ kind: 'commit', version: change.routes.version, thaw });
    }
  }

  /** Asks each; one that does not answer is ended: it would go on with what it was to stop. */
  async askAll(message: Ask, timeoutMs: number): Promise<Reply[]> {
    const replies = await Promise.all(
      this.#fluent().map(async (worker) => {
        try {
          return await worker.ask(message, timeoutMs);
        } catch (error) {
          const about = { pid: worker.pid, asked: message.kind, reason: reasonOf(error) };
          this.#log.warn(about, 'a worker of an earlier generation did not answer and is ended');
          worker.kill();
          return undefined;
        }
      }),
    );
    return replies.filter((reply) => reply !== undefined);
  }

  /** Rate limits: what the others let through. */
  spent(spends: Spends, by: object): void {
    for (const worker of this.#fluent()) if (worker !== by) worker.tell({ kind: 'spent-elsewhere', ...spends });
  }

  #fluent(): readonly Predecessor[] {
    return this.all().filter(({ isFluent }) => isFluent);
  }

  /** The node stops: they end with its own. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(
      this.all().map(async (worker) => {
        try {
          await worker.ask({ kind: 'drain', deadlineMs: WORKER_DRAIN_MS }, WORKER_DRAIN_MS + 1000);
        } catch {
          // Gone already, or stuck.
        }
        worker.kill();
      }),
    );
    await this.#predecessors[Symbol.asyncDispose]();
  }
}
