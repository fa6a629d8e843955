/** Messages with answers, as the primary sees them, over a channel that keeps their order: to a worker of its own, or to one of an earlier primary. */
import { EcluseError } from '#errors';
import type { FromWorker, ToWorker } from '#proxy/protocol.ts';

/** A message without its `seq`, which this file gives. */
type Unnumbered<M> = M extends unknown ? Omit<M, 'seq'> : never;
export type Ask = Unnumbered<ToWorker>;
export type Reply = FromWorker & { readonly kind: 'ack' | 'refused' | 'metrics' };

interface Pending {
  readonly resolve: (reply: Reply) => void;
  readonly reject: (error: EcluseError) => void;
}

export class Conversation {
  readonly #pid: () => number;
  readonly #send: (message: ToWorker) => void;
  readonly #pending = new Map<number, Pending>();
  #seq = 0;
  #isOver = false;

  /** `send` is not called any more when the channel has ended. */
  constructor(pid: () => number, send: (message: ToWorker) => void) {
    this.#pid = pid;
    this.#send = send;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** Sends without waiting for an answer. */
  tell(message: Ask): number {
    this.#seq += 1;
    const seq = this.#seq;
    if (!this.#isOver) this.#send({ ...message, seq });
    return seq;
  }

  /** Sends and waits for the answer; rejects after `timeoutMs` and when the process ends. */
  async ask(message: Ask, timeoutMs: number): Promise<Reply> {
    const { promise, resolve, reject } = Promise.withResolvers<Reply>();
    if (this.#isOver) throw failure('ECLUSE_WORKER_GONE', `worker ${String(this.#pid())} is gone`);
    const seq = this.tell(message);
    this.#pending.set(seq, { resolve, reject });
    const timer = setTimeout(() => {
      const what = `worker ${String(this.#pid())} did not answer "${message.kind}" in ${String(timeoutMs)} ms`;
      reject(failure('ECLUSE_WORKER_TIMEOUT', what));
    }, timeoutMs);
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      this.#pending.delete(seq);
    }
  }

  answered(reply: Reply): void {
    this.#pending.get(reply.seq)?.resolve(reply);
  }

  /** `how` the process ended: what waits for answers hears of it. */
  end(how: string): void {
    this.#isOver = true;
    for (const { reject } of this.#pending.values())
      reject(failure('ECLUSE_WORKER_GONE', `worker ${String(this.#pid())} ended (${how})`));
  }
}

export function isReply(message: FromWorker): message is Reply {
  return message.kind === 'ack' || message.kind === 'refused' || message.kind === 'metrics';
}

function failure(code: string, message: string): EcluseError {
  return new EcluseError({ code, source: 'runtime', message });
}
