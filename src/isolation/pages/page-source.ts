/** The source's end as its node's primary process sees it: plain calls; the bytes are a thread's. */
import type { FinishReport, GrowingImage, PageProgress, PageSource, PageTicket, PeerTls, RoundReport } from './exchange.ts';
import { cancelled } from './page-errors.ts';
import { reasonOf } from '#errors';
import type { SourceAnswer, SourceRequest } from './page-source-thread.ts';
import { PageThread } from './page-thread.ts';
import { decidePreCopy } from './pre-copy.ts';
import type { PreCopyDecision, PreCopyLimits } from './pre-copy.ts';
import { PAGE_BYTES } from './page-hash.ts';
import type { SourceProgress } from './source-session.ts';

export interface PageSourceOptions {
  /** See `findSandboxMemory`. */
  readonly memoryFile: string;
  readonly ticket: PageTicket;
  readonly tls: PeerTls;
  /** Undefined: as fast as it goes. */
  readonly bandwidthBytesPerSecond: number | undefined;
  /** Aborting it cancels whatever is under way. */
  readonly signal: AbortSignal;
  readonly onProgress: (progress: PageProgress) => void;
}

/** What is known of a phase, as people want it. Pure. */
export function progressOf(
  phase: Pick<PageProgress, 'phase' | 'round'> & { readonly elapsedMs: number },
  { doneBytes, totalBytes, sentBytes }: SourceProgress,
): PageProgress {
  const bytesPerMs = phase.elapsedMs > 0 ? doneBytes / phase.elapsedMs : 0;
  return {
    phase: phase.phase,
    round: phase.round,
    doneBytes,
    totalBytes,
    sentBytes,
    etaMs: bytesPerMs > 0 ? Math.round(Math.max(0, totalBytes - doneBytes) / bytesPerMs) : undefined,
  };
}

/** Connects to the target with its ticket. Errors: ECLUSE_PAGES_…; the sandbox is not touched by any of them. */
export async function openPageSource(options: PageSourceOptions): Promise<PageSource> {
  const source = new ThreadedSource(options);
  try {
    await source.open();
    return source;
  } catch (error) {
    await source[Symbol.asyncDispose]();
    throw error;
  }
}

class ThreadedSource implements PageSource {
  readonly #options: PageSourceOptions;
  readonly #thread: PageThread<SourceRequest, SourceAnswer, SourceProgress>;
  readonly #onAbort = (): void => {
    void this.#close();
  };
  #phase: PageProgress['phase'] = 'connect';
  #round = 0;
  #sentBytes = 0;
  #fromMs = performance.now();
  #closing: Promise<void> | undefined;

  constructor(options: PageSourceOptions) {
    this.#options = options;
    this.#thread = new PageThread(new URL('page-source-thread.ts', import.meta.url), (progress) => {
      const phase = { phase: this.#phase, round: this.#round, elapsedMs: performance.now() - this.#fromMs };
      options.onProgress(progressOf(phase, progress));
    });
    options.signal.addEventListener('abort', this.#onAbort, { once: true });
  }

  async open(): Promise<void> {
    const { ticket, tls, memoryFile, bandwidthBytesPerSecond } = this.#options;
    await this.#ask({ kind: 'open', ticket, tls, memoryFile, bandwidthBytesPerSecond });
  }

  async round(): Promise<RoundReport> {
    this.#round += 1;
    this.#begin('round');
    const answer = await this.#ask({ kind: 'round' });
    if (answer.kind !== 'round') throw new TypeError(`a round was answered by ${answer.kind}`);
    this.#sentBytes += answer.report.sentBytes;
    return answer.report;
  }

  async finish({ imageDir, saved, inOrder }: GrowingImage): Promise<FinishReport> {
    this.#begin('finish');
    void this.#tellSaved(saved);
    const answer = await this.#ask({ kind: 'finish', imageDir, inOrder });
    if (answer.kind !== 'finish') throw new TypeError(`the final pass was answered by ${answer.kind}`);
    this.#begin('done');
    const { pagesBytes, sentBytes } = answer.report;
    this.#sentBytes += sentBytes;
    this.#options.onProgress({
      phase: 'done',
      round: this.#round,
      doneBytes: pagesBytes,
      totalBytes: pagesBytes,
      sentBytes: this.#sentBytes,
      etaMs: 0,
    });
    return answer.report;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#options.signal.removeEventListener('abort', this.#onAbort);
    await this.#close();
  }

  async #tellSaved(saved: Promise<unknown>): Promise<void> {
    let failure: string | undefined;
    try {
      await saved;
    } catch (error) {
      failure = reasonOf(error);
    }
    // Should the thread have ended, `finish` says so too.
    await this.#thread.ask({ kind: 'saved', failure }).catch(() => undefined);
  }

  async #ask(request: SourceRequest): Promise<SourceAnswer> {
    const { signal } = this.#options;
    if (signal.aborted) throw cancelled(signal.reason);
    try {
      return await this.#thread.ask(request);
    } catch (error) {
      throw isAborted(signal) ? cancelled(signal.reason) : error;
    }
  }

  #begin(phase: PageProgress['phase']): void {
    this.#phase = phase;
    this.#fromMs = performance.now();
  }

  async #close(): Promise<void> {
    this.#closing ??= this.#thread.end({ kind: 'close' });
    await this.#closing;
  }
}

/** Asked again after a wait. */
function isAborted(signal: AbortSignal): boolean {
  return signal.aborted;
}

/** Rounds until `decidePreCopy` says that no more of them pays. */
export async function preCopy(
  source: PageSource,
  limits: PreCopyLimits,
): Promise<{ readonly rounds: readonly RoundReport[]; readonly why: Extract<PreCopyDecision, { kind: 'stop' }>['why'] }> {
  const rounds: RoundReport[] = [];
  for (;;) {
    const decision = decidePreCopy(
      rounds.map(({ newPages, sentBytes, tookMs }) => ({ newBytes: newPages * PAGE_BYTES, sentBytes, tookMs })),
      limits,
    );
    if (decision.kind === 'stop') return { rounds, why: decision.why };
    rounds.push(await source.round());
  }
}
