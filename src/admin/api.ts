/** The admin API: HTTP/JSON under /v1 on a unix socket. It checks and translates; what happens is the node's to do. */
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { systemClock, waitFor } from '#clock';
import { errorLine } from '#errors';
import type { Log } from '#log';
import { statusOf } from './api-error.ts';
import { EventStreams } from './event-stream.ts';
import { sendError } from './exchange.ts';
import type { Exchange } from './exchange.ts';
import { CLOSE_GRACE_MS, CONNECTIONS_MAX, REQUEST_TIMEOUT_MS } from './limits.ts';
import type { NodeControl } from './node-control.ts';
import { findRoute } from './routes.ts';
import type { RouteContext } from './admin-route.ts';
import { listenOnSocket } from './socket.ts';

export interface AdminApiDeps {
  readonly control: NodeControl;
  readonly log: Log;
}

export interface AdminApiOptions {
  readonly socketPath: string;
}

/** Owns the server and its socket file. Disposing lets requests under way finish for a short while. */
export class AdminApi implements AsyncDisposable {
  readonly #server: Server;
  readonly #streams: EventStreams;
  #underWay = 0;

  private constructor({ control, log }: AdminApiDeps) {
    this.#streams = new EventStreams(control, systemClock);
    const context = { control, clock: systemClock, streams: this.#streams };
    this.#server = createServer(
      { requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: REQUEST_TIMEOUT_MS },
      (request, response) => {
        void this.#answer({ request, response }, context, log.child({ mod: 'admin' }));
      },
    );
    this.#server.maxConnections = CONNECTIONS_MAX;
  }

  /** Opens the socket. Errors: ECLUSE_ALREADY_RUNS where another daemon answers there, ECLUSE_ADMIN_SOCKET. */
  static async open(deps: AdminApiDeps, options: AdminApiOptions): Promise<AdminApi> {
    const api = new AdminApi(deps);
    await listenOnSocket(api.#server, options.socketPath);
    return api;
  }

  async #answer(
    pair: { readonly request: IncomingMessage; readonly response: ServerResponse },
    context: RouteContext,
    log: Log,
  ): Promise<void> {
    const { request, response } = pair;
    this.#underWay += 1;
    response.on('error', () => undefined); // A client that left; what it asked for goes on.
    // Not `new URL`: it would resolve `..` and fold what was written.
    const [pathname = '', search = ''] = (request.url ?? '').split('?', 2);
    const exchange: Exchange = { request, response, query: new URLSearchParams(search), captured: {} };
    try {
      const { route, captured } = findRoute(request.method ?? '', pathname);
      await route.handle({ ...exchange, captured }, context);
    } catch (error) {
      const level = statusOf(error) >= 500 ? 'error' : 'debug';
      log[level]({ method: request.method, path: pathname, reason: errorLine(error) }, 'admin request failed');
      // The rest of a body that nobody read would be taken for the next request.
      if (!request.complete && !response.headersSent) response.setHeader('connection', 'close');
      sendError(exchange, error);
    } finally {
      this.#underWay -= 1;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#streams.close();
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => {
        resolve();
      });
    });
    await waitFor(systemClock, () => (this.#underWay === 0 ? true : undefined), { limitMs: CLOSE_GRACE_MS, stepMs: 20 });
    this.#server.closeAllConnections();
    await closed;
  }
}
