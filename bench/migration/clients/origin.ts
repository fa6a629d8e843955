/** Where the clients find the app: through the edge or beside it. */
import { readFileSync } from 'node:fs';
import { Agent as PlainAgent, request as requestPlain } from 'node:http';
import type { ClientRequest, IncomingMessage, RequestOptions } from 'node:http';
import { Agent as TlsAgent, request as requestTls } from 'node:https';
import { z } from 'zod';

export const ORIGIN = z.object({
  port: z.int(),
  host: z.string(),
  /** The CA of its certificate; absent: plain HTTP. */
  caFile: z.string().optional(),
});
export type Origin = z.infer<typeof ORIGIN>;

export interface Asked extends Pick<RequestOptions, 'method' | 'path'> {
  readonly connection: 'kept' | 'own';
  readonly headers?: Readonly<Record<string, string>>;
}

export interface Way {
  /** `kept`: over the connections that requests share; `own`: over one of its own. */
  readonly request: (options: Asked, onResponse?: (response: IncomingMessage) => void) => ClientRequest;
  readonly close: () => void;
}

/** Connections are used in turn, so that none is idle for long enough to be closed just when it is wanted. */
export function openWay(origin: Origin, connectionsMax: number): Way {
  const pool = { keepAlive: true, maxSockets: connectionsMax, maxFreeSockets: connectionsMax, scheduling: 'fifo' } as const;
  const to = { host: '127.0.0.1', port: origin.port };
  if (origin.caFile === undefined) {
    const agent = new PlainAgent(pool);
    return {
      request: ({ connection, headers, ...options }, onResponse) =>
        requestPlain(
          { ...options, ...to, agent: connection === 'kept' ? agent : false, headers: { ...headers, host: origin.host } },
          onResponse,
        ),
      close: () => {
        agent.destroy();
      },
    };
  }
  const tls = { ca: readFileSync(origin.caFile), servername: origin.host };
  const agent = new TlsAgent({ ...pool, ...tls });
  return {
    request: ({ connection, headers, ...options }, onResponse) =>
      requestTls(
        { ...options, ...to, ...tls, agent: connection === 'kept' ? agent : false, headers: { ...headers, host: origin.host } },
        onResponse,
      ),
    close: () => {
      agent.destroy();
    },
  };
}
