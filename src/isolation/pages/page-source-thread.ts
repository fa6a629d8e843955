/** The thread of page-source.ts: one migration's reading, hashing and sending. */
import { once } from 'node:events';
import { constants, getPriority, setPriority } from 'node:os';
import type { TLSSocket } from 'node:tls';
import type { FinishReport, PageTicket, PeerTls, RoundReport } from './exchange.ts';
import { cancelled, pageError } from './page-errors.ts';
import { PageThreadEnd } from './page-thread.ts';
import { connectPages } from './page-transport.ts';
import { SourceSession } from './source-session.ts';
import type { SourceProgress } from './source-session.ts';

export type SourceRequest =
  | {
      readonly kind: 'open';
      readonly ticket: PageTicket;
      readonly tls: PeerTls;
      readonly memoryFile: string;
      readonly bandwidthBytesPerSecond: number | undefined;
    }
  | { readonly kind: 'round' }
  | { readonly kind: 'finish'; readonly imageDir: string; readonly inOrder: boolean }
  | { readonly kind: 'saved'; readonly failure: string | undefined }
  | { readonly kind: 'close' };

export type SourceAnswer =
  | { readonly kind: 'done' }
  | { readonly kind: 'round'; readonly report: RoundReport }
  | { readonly kind: 'finish'; readonly report: FinishReport };

/** Rounds give way to whoever serves; in the final pass people wait for it. A priority is a thread's own on Linux. */
const USUAL_NICE = getPriority(0);
const ROUND_NICE = Math.min(constants.priority.PRIORITY_LOW, USUAL_NICE + 5);
/** News are for people. */
const NEWS_STEP_MS = 100;

let session: SourceSession | undefined;
let channel: TLSSocket | undefined;
const saved = Promise.withResolvers<undefined>();
saved.promise.catch(() => undefined); // It may fail before anybody waits for it.

function beNice(nice: number): void {
  try {
    setPriority(0, nice);
  } catch {
    // To be nice again takes a privilege; without it the final pass is as nice as the rounds.
  }
}

function opened(): SourceSession {
  if (session === undefined) throw pageError('ECLUSE_PAGES_THREAD', 'the exchange is not open', 'migrate again');
  return session;
}

let toldMs = 0;
const owner = new PageThreadEnd<SourceRequest, SourceAnswer, SourceProgress>(async (request) => {
  switch (request.kind) {
    case 'open': {
      const { ticket, tls, ...options } = request;
      channel = await connectPages(ticket, tls);
      session = new SourceSession(channel, {
        ...options,
        onProgress: (progress) => {
          if (performance.now() - toldMs < NEWS_STEP_MS) return;
          toldMs = performance.now();
          owner.tell(progress);
        },
      });
      await session.open(ticket);
      return { kind: 'done' };
    }
    case 'round': {
      beNice(ROUND_NICE);
      return { kind: 'round', report: await opened().round() };
    }
    case 'finish': {
      beNice(USUAL_NICE);
      return { kind: 'finish', report: await opened().finish({ ...request, saved: saved.promise }) };
    }
    case 'saved': {
      if (request.failure === undefined) saved.resolve(undefined);
      else saved.reject(cancelled(request.failure));
      return { kind: 'done' };
    }
    case 'close': {
      session?.[Symbol.dispose]();
      // The thread ends with this answer, and the sink should still hear why.
      if (channel?.closed === false) await once(channel, 'close');
      return { kind: 'done' };
    }
  }
});
