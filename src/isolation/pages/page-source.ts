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
  const { ticket, tls, memoryFile, bandwidthBytesPerSecond, signal, onProgress } = options;
  let phase: PageProgress['phase'] = 'connect';
  let round = 0;
  let sentBytes = 0;
  let fromMs = performance.now();
  const thread = new PageThread<SourceRequest, SourceAnswer, SourceProgress>(
    new URL('page-source-thread.ts', import.meta.url),
    (progress) => {
      onProgress(progressOf({ phase, round, elapsedMs: performance.now() - fromMs }, progress));
    },
  );
  let closing: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    closing ??= thread.end({ kind: 'close' });
    await closing;
  };
  const onAbort = (): void => {
    void close();
  };
  signal.addEventListener('abort', onAbort, { once: true });
  const ask = async (request: SourceRequest): Promise<SourceAnswer> => {
    try {
      signal.throwIfAborted();
      return await thread.ask(request);
    } catch (error) {
      if (signal.aborted) throw cancelled(signal.reason);
      throw error;
    }
  };
  const begin = (next: PageProgress['phase']): void => {
    phase = next;
    fromMs = performance.now();
  };
  const source: PageSource = {
    round: async (): Promise<RoundReport> => {
      round += 1;
      begin('round');
      const answer = await ask({ kind: 'round' });
      if (answer.kind !== 'round') throw new TypeError(`a round was answered by ${answer.kind}`);
      sentBytes += answer.report.sentBytes;
      return answer.report;
    },
    finish: async ({ imageDir, saved, inOrder }: GrowingImage): Promise<FinishReport> => {
      begin('finish');
      // Whatever the thread says to it, `finish` says too.
      const tellSaved = (failure: string | undefined): void => {
        thread.ask({ kind: 'saved', failure }).catch(() => undefined);
      };
      saved.then(
        () => {
          tellSaved(undefined);
        },
        (error: unknown) => {
          tellSaved(reasonOf(error));
        },
      );
      const answer = await ask({ kind: 'finish', imageDir, inOrder });
      if (answer.kind !== 'finish') throw new TypeError(`the final pass was answered by ${answer.kind}`);
      begin('done');
      sentBytes += answer.report.sentBytes;
      const { pagesBytes } = answer.report;
      onProgress({ phase, round, doneBytes: pagesBytes, totalBytes: pagesBytes, sentBytes, etaMs: 0 });
      return answer.report;
    },
    async [Symbol.asyncDispose](): Promise<void> {
      signal.removeEventListener('abort', onAbort);
      await close();
    },
  };
  try {
    await ask({ kind: 'open', ticket, tls, memoryFile, bandwidthBytesPerSecond });
    return source;
  } catch (error) {
    await source[Symbol.asyncDispose]();
    throw error;
  }
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
