/** One worker process as the primary sees it: messages with answers, and its end. */
import cluster from 'node:cluster';
import type { Worker } from 'node:cluster';
import { EcluseError } from '#errors';
import type { EndpointLoad } from './loads.ts';
import type { FromWorker, ToWorker } from './protocol.ts';

/** A message without its `seq`, which this file gives. */
type Unnumbered<M> = M extends unknown ? Omit<M, 'seq'> : never;
export type Ask = Unnumbered<ToWorker>;
export type Reply = FromWorker & { readonly kind: 'ack' | 'refused' | 'metrics' };

export interface WorkerEvents {
  readonly online: () => void;
  readonly listening: (version: number) => void;
  readonly traffic: (message: FromWorker & { readonly kind: 'traffic' }) => void;
  readonly loads: (loads: readonly EndpointLoad[]) => void;
  readonly wake: (endpointIds: readonly string[]) => void;
}

interface Pending {
  readonly resolve: (reply: Reply) => void;
  readonly reject: (error: EcluseError) => void;
}

export class WorkerProcess {
  readonly #worker: Worker;
  readonly #pending = new Map<number, Pending>();
  readonly #exit = Promise.withResolvers<string>();
  #seq = 0;
  #gone = false;

  /** Forks the program that `cluster.setupPrimary` named. */
  constructor(events: WorkerEvents) {
    this.#worker = cluster.fork();
    this.#worker.on('message', (message: FromWorker) => {
      this.#receive(message, events);
    });
    this.#worker.on('error', () => undefined); // A channel that breaks shows as the exit.
    this.#worker.once('exit', (code: number | null, signal: string | null) => {
      this.#ended(signal ?? `code ${String(code)}`);
    });
  }

  get pid(): number {
    return this.#worker.process.pid ?? 0;
  }

  /** Resolves with how the process ended. */
  get exit(): Promise<string> {
    return this.#exit.promise;
  }

  /** Sends without waiting for an answer. */
  tell(message: Ask): number {
    this.#seq += 1;
    const seq = this.#seq;
    if (!this.#gone && this.#worker.isConnected()) this.#worker.send({ ...message, seq }, undefined, () => undefined);
    return seq;
  }

  /** Sends and waits for the answer; rejects after `timeoutMs` and when the process ends. */
  async ask(message: Ask, timeoutMs: number): Promise<Reply> {
    const { promise, resolve, reject } = Promise.withResolvers<Reply>();
    if (this.#gone) throw failure('ECLUSE_WORKER_GONE', `worker ${String(this.pid)} is gone`);
    const seq = this.tell(message);
    this.#pending.set(seq, { resolve, reject });
    const timer = setTimeout(() => {
      reject(
        failure(
          'ECLUSE_WORKER_TIMEOUT',
          `worker ${String(this.pid)} did not answer "${message.kind}" in ${String(timeoutMs)} ms`,
        ),
      );
    }, timeoutMs);
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      this.#pending.delete(seq);
    }
  }

  kill(): void {
    if (!this.#gone) this.#worker.process.kill('SIGKILL');
  }

  #receive(message: FromWorker, events: WorkerEvents): void {
    switch (message.kind) {
      case 'online':
        events.online();
        return;
      case 'listening':
        events.listening(message.version);
        return;
      case 'traffic':
        events.traffic(message);
        return;
      case 'loads':
        events.loads(message.loads);
        return;
      case 'wake':
        events.wake(message.endpointIds);
        return;
      case 'ack':
      case 'refused':
      case 'metrics':
        this.#pending.get(message.seq)?.resolve(message);
        return;
    }
  }

  #ended(how: string): void {
    this.#gone = true;
    for (const { reject } of this.#pending.values())
      reject(failure('ECLUSE_WORKER_GONE', `worker ${String(this.pid)} ended (${how})`));
    this.#exit.resolve(how);
  }
}

function failure(code: string, message: string): EcluseError {
  return new EcluseError({ code, source: 'runtime', message });
}
