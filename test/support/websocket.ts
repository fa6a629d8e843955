/**
 * A WebSocket client for the tenants' endpoint: Node's own, which asks for a client certificate's connection by way of a relay, as it takes none itself.
 */
import { once } from 'node:events';
import { createServer } from 'node:net';
import type { Socket } from 'node:net';
import { connect } from 'node:tls';
import type { Credentials } from './docker-api.ts';
import type { TestNode } from './node.ts';

export interface WebSocketMessage {
  readonly kind: 'text' | 'binary';
  readonly text: string;
}

export interface WebSocketClient extends AsyncDisposable {
  readonly send: (text: string) => void;
  /** Everything that came until the other side closed, and its code. */
  readonly untilClosed: () => Promise<{ readonly messages: readonly WebSocketMessage[]; readonly code: number }>;
}

function messageOf(payload: unknown): WebSocketMessage {
  if (payload instanceof ArrayBuffer) return { kind: 'binary', text: Buffer.from(payload).toString('utf8') };
  return { kind: 'text', text: String(payload) };
}

export async function connectWebSocket(node: TestNode, credentials: Credentials, path: string): Promise<WebSocketClient> {
  const sockets: Socket[] = [];
  const relay = createServer((plain) => {
    const tls = connect({ ...credentials, host: '127.0.0.1', port: node.ports.docker, ALPNProtocols: ['http/1.1'] });
    plain.pipe(tls).pipe(plain);
    for (const socket of [plain, tls]) sockets.push(socket.on('error', () => undefined));
  });
  relay.listen(0, '127.0.0.1');
  await once(relay, 'listening');
  const address = relay.address();
  if (typeof address !== 'object' || address === null) throw new Error('no port');
  const client = new WebSocket(`ws://127.0.0.1:${String(address.port)}${path}`);
  client.binaryType = 'arraybuffer';
  const messages: WebSocketMessage[] = [];
  const closed = Promise.withResolvers<number>();
  client.addEventListener('message', ({ data }: { readonly data: unknown }) => messages.push(messageOf(data)));
  client.addEventListener('close', ({ code }) => {
    closed.resolve(code);
  });
  const opened = Promise.withResolvers<undefined>();
  client.addEventListener('open', () => {
    opened.resolve(undefined);
  });
  client.addEventListener('error', () => {
    opened.reject(new Error('the WebSocket was refused'));
  });
  await opened.promise;
  return {
    send: (text) => {
      client.send(text);
    },
    untilClosed: async () => ({ code: await closed.promise, messages }),
    async [Symbol.asyncDispose](): Promise<void> {
      relay.close();
      for (const socket of sockets) socket.destroy();
      await once(relay, 'close');
    },
  };
}
