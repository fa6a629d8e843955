/** One worker process as the primary sees it: messages with answers, and its end. */
import cluster from 'node:cluster';
import type { Worker } from 'node:cluster';
import type { Spends } from './actions/rate-limits.ts';
import type { EndpointLoad } from './loads.ts';
import { Conversation } from './generation/conversation.ts';
import type { Ask, Reply } from './generation/conversation.ts';
import type { FromWorker, TrafficReport } from './protocol.ts';

export interface WorkerEvents {
  readonly online: () => void;
  readonly listening: (version: number) => void;
  readonly traffic: (worker: WorkerProcess, report: TrafficReport) => void;
  readonly loads: (loads: readonly EndpointLoad[]) => void;
  readonly spent: (spends: Spends) => void;
  readonly wake: (endpointIds: readonly string[]) => void;
  readonly wanted: (hosts: readonly string[]) => void;
  readonly called: (names: readonly string[]) => void;
}

export class WorkerProcess {
  readonly #worker: Worker;
  readonly #conversation: Conversation;
  readonly #exit = Promise.withResolvers<string>();

  /** Forks the program that `cluster.setupPrimary` named. */
  constructor(events: WorkerEvents) {
    const worker = cluster.fork();
    this.#worker = worker;
    this.#conversation = new Conversation(
      () => this.pid,
      (message) => {
        if (worker.isConnected()) worker.send(message, undefined, () => undefined);
      },
    );
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

  tell(message: Ask): void {
    this.#conversation.tell(message);
  }

  /** Sends and waits for the answer; rejects after `timeoutMs` and when the process ends. */
  async ask(message: Ask, timeoutMs: number): Promise<Reply> {
    return await this.#conversation.ask(message, timeoutMs);
  }

  kill(): void {
    if (!this.#conversation.isOver) this.#worker.process.kill('SIGKILL');
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
        events.traffic(this, message.report);
        return;
      case 'loads':
        events.loads(message.loads);
        return;
      case 'spent':
        events.spent(message);
        return;
      case 'wake':
        events.wake(message.endpointIds);
        return;
      case 'certificate-wanted':
        events.wanted(message.hosts);
        return;
      case 'called':
        events.called(message.names);
        return;
      case 'ack':
      case 'refused':
      case 'metrics':
        this.#conversation.answered(message);
        return;
      case 'hello': // Who was forked needs none.
        return;
    }
  }

  #ended(how: string): void {
    this.#conversation.end(how);
    this.#exit.resolve(how);
  }
}
