/** Requests one after the other on each of some kept connections, as fast as they are answered (closed loop): what a change does to who is there. */
import { Agent, request as startRequest } from 'node:http';

export interface KeptLoad {
  /** Of the answers so far. */
  readonly statuses: readonly number[];
  /** Ends it when what is under way has ended. Returns why requests failed. */
  stop(): Promise<readonly string[]>;
}

export function startKeptLoad(port: number, options: { readonly host: string; readonly connections: number }): KeptLoad {
  const agent = new Agent({ keepAlive: true, maxSockets: options.connections });
  const over = new AbortController();
  const statuses: number[] = [];
  const errors: string[] = [];
  const one = async (): Promise<void> => {
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    const asking = startRequest({ host: '127.0.0.1', port, headers: { host: options.host }, agent }, (response) => {
      statuses.push(response.statusCode ?? 0);
      response.on('error', reject);
      response.on('end', () => {
        resolve(undefined);
      });
      response.resume();
    });
    asking.on('error', reject);
    asking.end();
    await promise;
  };
  const clients = Array.from({ length: options.connections }, async () => {
    while (!over.signal.aborted) await one().catch((error: unknown) => errors.push(String(error)));
  });
  return {
    statuses,
    stop: async () => {
      over.abort();
      await Promise.all(clients);
      agent.destroy();
      return errors;
    },
  };
}
