/**
 * What Node's parser (llhttp, strict) makes of the same bytes, by way of `node:http` over sockets that are none.
 *
 * Everything is read while `data` is emitted, so thousands of connections a second are possible. INVARIANT of use: each message is fed up to its last
 * octet but one, and then that octet: where Node takes it for whole is where it ends, to the octet.
 */
import { createServer, request } from 'node:http';
import type { ClientRequest, IncomingMessage, Server, ServerResponse } from 'node:http';
import { Duplex } from 'node:stream';

export interface NodeMessage {
  readonly method: string;
  readonly target: string;
  readonly status: number;
  readonly reason: string;
  readonly minor: number;
  readonly fields: readonly string[];
  readonly body: string;
  readonly trailers: readonly string[];
  /** The offset after it; -1 where it is not whole. */
  readonly end: number;
  readonly persistent: boolean;
  /** Whether what follows is no HTTP. */
  readonly tunnel: boolean;
}

export interface NodeReading {
  readonly messages: readonly NodeMessage[];
  /** Empty where Node took all of it. */
  readonly error: string;
}

interface Draft {
  readonly message: Omit<NodeMessage, 'end' | 'body' | 'trailers' | 'persistent' | 'tunnel'>;
  readonly incoming: IncomingMessage | undefined;
  readonly persistent: () => boolean;
  whole: boolean;
  end: number;
}

/** More than we take of anything. */
const HEADER_BYTES_MAX = 512 * 1024;

/** One connection, whose bytes are fed at once. */
class Feed {
  readonly drafts: Draft[] = [];
  error = '';
  readonly socket: Duplex = new Duplex({ read: () => undefined, write: (_chunk, _encoding, done) => done() });

  constructor() {
    this.socket.on('error', (error) => (this.error ||= error.message));
  }

  add(incoming: IncomingMessage, persistent: () => boolean, whole = false): void {
    // In requests what is of responses is null, and the other way round.
    const { method, url, statusCode, statusMessage, httpVersionMinor: minor, rawHeaders: fields } = incoming;
    const status = { status: statusCode ?? 0, reason: statusMessage ?? '' };
    this.drafts.push({
      message: { method: method ?? '', target: url ?? '', ...status, minor, fields },
      incoming,
      persistent,
      whole,
      end: -1,
    });
  }

  /** `ends`: where we have messages end. `closes`: the connection ends with the last. */
  feed(bytes: Buffer, ends: readonly number[], closes: boolean): NodeReading {
    let from = 0;
    for (const cut of new Set(ends.flatMap((end) => [end - 1, end]))) {
      if (this.error !== '' || cut <= from) continue;
      this.socket.emit('data', bytes.subarray(from, cut));
      from = cut;
      this.#mark(cut);
    }
    if (closes) {
      this.socket.emit('end');
      this.#mark(from);
    }
    const messages = this.drafts.map((draft) => finished(draft));
    this.socket.destroy();
    return { messages, error: this.error };
  }

  #mark(at: number): void {
    for (const draft of this.drafts) if (draft.end < 0 && (draft.whole || draft.incoming?.complete === true)) draft.end = at;
  }
}

function finished(draft: Draft): NodeMessage {
  const { incoming } = draft;
  let body = '';
  for (;;) {
    const piece: unknown = draft.whole ? null : incoming?.read();
    if (!Buffer.isBuffer(piece)) break;
    body += piece.toString('latin1');
  }
  return {
    ...draft.message,
    end: draft.end,
    body,
    trailers: incoming?.rawTrailers ?? [],
    persistent: draft.persistent(),
    tunnel: draft.whole && incoming !== undefined,
  };
}

export class NodeServer {
  readonly #server: Server = createServer({ maxHeaderSize: HEADER_BYTES_MAX, requireHostHeader: false });
  #feed = new Feed();

  constructor() {
    const onRequest = (incoming: IncomingMessage, response: ServerResponse): void => {
      const { shouldKeepAlive } = response;
      this.#feed.add(incoming, () => shouldKeepAlive);
    };
    this.#server.maxHeadersCount = 0;
    this.#server.on('request', onRequest).on('checkContinue', onRequest).on('checkExpectation', onRequest);
    this.#server.on('connect', (incoming) => this.#feed.add(incoming, () => false, true));
    this.#server.on(
      'clientError',
      (error: Error & { code?: string }) => (this.#feed.error ||= `${error.code ?? ''} ${error.message}`),
    );
  }

  read(bytes: Buffer, ends: readonly number[]): NodeReading {
    this.#feed = new Feed();
    this.#server.emit('connection', this.#feed.socket);
    return this.#feed.feed(bytes, ends, false);
  }
}

/** A request that waits for its response: Node attaches the parser in a later tick, so open many, wait once, then read. */
export class NodeClient {
  readonly #feed = new Feed();

  constructor(method: string) {
    const feed = this.#feed;
    const path = method === 'CONNECT' ? 'a.test:80' : '/';
    const sent: ClientRequest = request({ method, path, maxHeaderSize: HEADER_BYTES_MAX, createConnection: () => feed.socket });
    sent.shouldKeepAlive = true;
    sent.maxHeadersCount = 0;
    sent.on('error', (error) => (feed.error ||= error.message));
    sent.on('response', (incoming) => feed.add(incoming, () => sent.shouldKeepAlive));
    sent.on('information', ({ statusCode, statusMessage, httpVersionMinor, rawHeaders }) => {
      const message = {
        method: '',
        target: '',
        status: statusCode,
        reason: statusMessage,
        minor: httpVersionMinor,
        fields: rawHeaders,
      };
      feed.drafts.push({ message, incoming: undefined, persistent: () => true, whole: true, end: -1 });
    });
    sent.on('upgrade', (incoming) => feed.add(incoming, () => false, true));
    sent.on('connect', (incoming) => feed.add(incoming, () => false, true));
  }

  read(bytes: Buffer, ends: readonly number[], closes: boolean): NodeReading {
    return this.#feed.feed(bytes, ends, closes);
  }
}
