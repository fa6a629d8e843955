/**
 * Clients of server-sent events, as browsers are (WHATWG HTML §9.2): they come back after `retry:` with Last-Event-ID, and know which ids never came.
 * Unlike browsers they come back after a refusal too, and count it.
 */
import type { ClientRequest, IncomingMessage } from 'node:http';
import type { Way } from './origin.ts';
import { beginWindow, emptyCounts, noteEnd, seenIn } from './streams.ts';
import type { StreamClients, StreamCounts } from './streams.ts';

/** Browsers' own, where the server names none. */
const RETRY_DEFAULT_MS = 3000;

interface Reader {
  readonly index: number;
  lastId: number | undefined;
  retryMs: number;
  request: ClientRequest | undefined;
}

export function startEventClients(way: Way, clients: number): StreamClients {
  const counts = emptyCounts(clients);
  const state = { stopped: false };
  const readers = Array.from({ length: clients }, (_, index): Reader => ({
    index,
    lastId: undefined,
    retryMs: RETRY_DEFAULT_MS,
    request: undefined,
  }));
  const connect = (reader: Reader): void => {
    if (state.stopped) return;
    let isOver = false;
    const over = (what: string): void => {
      if (isOver) return;
      isOver = true;
      noteEnd(counts, what);
      setTimeout(connect, reader.retryMs, reader);
    };
    const headers: Record<string, string> = { accept: 'text/event-stream' };
    if (reader.lastId !== undefined) headers['last-event-id'] = String(reader.lastId);
    reader.request = way.request({ connection: 'own', path: '/events', headers }, (response) => {
      if (response.statusCode === 200) read(response, reader, counts);
      else response.resume();
      const how = response.statusCode === 200 ? 'ended' : `status ${String(response.statusCode)}`;
      response.on('close', () => {
        over(response.complete ? how : 'cut');
      });
      response.on('error', () => {
        over('cut');
      });
    });
    reader.request.on('error', (error: NodeJS.ErrnoException) => {
      over(error.code ?? error.message);
    });
    reader.request.end();
  };
  for (const reader of readers) connect(reader);
  return {
    begin: () => {
      beginWindow(counts);
    },
    end: () => seenIn(counts),
    stop: () => {
      state.stopped = true;
      for (const { request } of readers) request?.destroy();
    },
  };
}

function read(response: IncomingMessage, reader: Reader, counts: StreamCounts): void {
  let rest = '';
  response.setEncoding('utf8').on('data', (piece: string) => {
    const blocks = `${rest}${piece}`.split('\n\n');
    rest = blocks.pop() ?? '';
    for (const block of blocks) take(block, reader, counts);
  });
}

function take(block: string, reader: Reader, counts: StreamCounts): void {
  const retry = /^retry: ?(\d+)$/m.exec(block)?.[1];
  if (retry !== undefined) reader.retryMs = Number(retry);
  const id = Number(/^id: ?(\d+)$/m.exec(block)?.[1] ?? Number.NaN);
  if (Number.isNaN(id)) return;
  counts.messages += 1;
  counts.gaps[reader.index]?.note();
  const expected = (reader.lastId ?? id - 1) + 1;
  if (id > expected) counts.missed += id - expected;
  if (id < expected) counts.duplicated += 1;
  reader.lastId = id;
}
