/**
 * The change log as server-sent events: each change is one event whose id is its sequence number, so that a client that was cut off
 * resumes by `Last-Event-ID` without a gap.
 */
import type { Clock } from '#clock';
import { EcluseError } from '#errors';
import type { Change } from '#state/change-log.ts';
import type { Exchange } from './exchange.ts';
import { queryOf } from './exchange.ts';
import { exactJson } from './exact-json.ts';
import { CHANGES_MAX, EVENT_COMMENT_MS, EVENT_POLL_MS, EVENT_STREAMS_MAX } from './limits.ts';
import type { NodeControl } from './node-control.ts';
import { eventsQuerySchema, parseRequest } from './requests.ts';

/** The sequence number of the newest change; 0 where there is none. Found by bisection, because the log is asked by cursor only. */
export async function latestSeq(control: NodeControl): Promise<number> {
  const hasAfter = async (seq: number): Promise<boolean> => (await control.changes(seq, 1)).length > 0;
  if (!(await hasAfter(0))) return 0;
  let low = 0;
  let high = 1;
  while (await hasAfter(high)) {
    low = high;
    high *= 2;
  }
  // INVARIANT: there is a change after `low`, and none after `high`.
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (await hasAfter(middle)) low = middle;
    else high = middle;
  }
  return high;
}

/** The newest `count` changes, oldest first. */
export async function latestChanges(control: NodeControl, count: number): Promise<readonly Change[]> {
  return await control.changes(Math.max(0, (await latestSeq(control)) - count), count);
}

export class EventStreams {
  readonly #control: NodeControl;
  readonly #clock: Clock;
  readonly #stop = new AbortController();
  #open = 0;

  constructor(control: NodeControl, clock: Clock) {
    this.#control = control;
    this.#clock = clock;
  }

  /** Ends every stream. */
  close(): void {
    this.#stop.abort();
  }

  /** Serves one stream until the client goes or `close`. */
  async serve(exchange: Exchange): Promise<void> {
    if (this.#open >= EVENT_STREAMS_MAX) {
      throw new EcluseError({
        code: 'ECLUSE_TOO_MANY_STREAMS',
        source: 'usage',
        message: `there are ${String(EVENT_STREAMS_MAX)} event streams already`,
        mend: 'end one of them',
        status: 429,
      });
    }
    this.#open += 1;
    try {
      await this.#run(exchange);
    } finally {
      this.#open -= 1;
    }
  }

  async #run(exchange: Exchange): Promise<void> {
    const { request, response } = exchange;
    const { after } = parseRequest(
      eventsQuerySchema,
      { ...queryOf(exchange), ...resumeFrom(request.headers['last-event-id']) },
      'query',
    );
    let cursor = after ?? (await latestSeq(this.#control));
    const gone = new AbortController();
    response.on('close', () => {
      gone.abort();
    });
    const signal = AbortSignal.any([gone.signal, this.#stop.signal]);
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    // A comment at once: the client knows that the stream stands before anything happens.
    response.write(`: after ${String(cursor)}\n\n`);
    let saidMs = this.#clock.monotonicMs();
    try {
      while (!signal.aborted) {
        const changes = await this.#control.changes(cursor, CHANGES_MAX);
        cursor = changes.at(-1)?.seq ?? cursor;
        const isQuiet = this.#clock.monotonicMs() - saidMs >= EVENT_COMMENT_MS;
        if (changes.length > 0 || isQuiet) {
          saidMs = this.#clock.monotonicMs();
          const isTaken = response.write(changes.length > 0 ? changes.map(eventText).join('') : ': quiet\n\n');
          if (!isTaken) await drained(response, signal);
        }
        if (changes.length < CHANGES_MAX) await this.#clock.sleep(EVENT_POLL_MS, signal);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
    response.end();
  }
}

function resumeFrom(lastEventId: string | string[] | undefined): { readonly after?: string } {
  return typeof lastEventId === 'string' ? { after: lastEventId } : {};
}

function eventText(change: Change): string {
  return `id: ${String(change.seq)}\nevent: ${change.kind}\ndata: ${exactJson(change)}\n\n`;
}

/** Resolves when the client has read what was written. */
async function drained(response: Exchange['response'], signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    const done = (): void => {
      response.off('drain', done);
      signal.removeEventListener('abort', done);
      resolve();
    };
    response.on('drain', done);
    signal.addEventListener('abort', done);
    if (signal.aborted) done();
  });
}
