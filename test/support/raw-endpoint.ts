/** An endpoint that keeps every byte it gets, reads requests strictly, and answers those that are whole. */
import type { Socket } from 'node:net';
import { createReader, feed, isBetween, valuesOf } from './raw-message.ts';
import type { MessageReader, RawMessage } from './raw-message.ts';
import { startRawUpstream } from './upstream.ts';
import type { Upstream } from './upstream.ts';

export interface EndpointConnection {
  readonly socket: Socket;
  readonly reader: MessageReader;
  readonly received: string[];
  /** The edge ended or reset it. */
  closed: boolean;
  /** A test has judged what it holds. */
  readonly reported: { done: boolean };
}

export interface SeenRequest {
  readonly message: RawMessage;
  readonly connection: EndpointConnection;
}

export interface RawEndpoint extends Upstream {
  readonly each: readonly EndpointConnection[];
  /** Requests that were whole, in the order in which they became so. */
  readonly seen: readonly SeenRequest[];
}

export interface EndpointBehaviour {
  readonly onRequest: (seen: SeenRequest) => void;
  /** The head of a request is there, its body may not be. */
  readonly onHead?: (head: Omit<RawMessage, 'body' | 'trailers'>, connection: EndpointConnection) => void;
}

export async function startRawEndpoint(behaviour: EndpointBehaviour = { onRequest: echo }): Promise<RawEndpoint> {
  const each: EndpointConnection[] = [];
  const seen: SeenRequest[] = [];
  const upstream = await startRawUpstream((socket) => {
    socket.setNoDelay(true);
    const reader = createReader('request', (head) => {
      behaviour.onHead?.(head, connection);
    });
    const connection: EndpointConnection = { socket, reader, received: [], closed: false, reported: { done: false } };
    each.push(connection);
    socket.on('data', (chunk: Buffer) => {
      const text = chunk.toString('latin1');
      connection.received.push(text);
      const known = reader.messages.length;
      feed(reader, text);
      for (const message of reader.messages.slice(known)) {
        seen.push({ message, connection });
        behaviour.onRequest({ message, connection });
      }
    });
    socket.on('end', () => {
      connection.closed = true;
      socket.end();
    });
    socket.on('close', () => {
      connection.closed = true;
    });
  });
  return { ...upstream, each, seen };
}

/** The id that the client of a test gave its request. */
export function caseOf(message: Pick<RawMessage, 'fields'>): string {
  return valuesOf(message, 'x-case')[0] ?? '';
}

/** The answer to a request: what was understood of it. */
export function echoOf(message: RawMessage): string {
  const body = `${caseOf(message)} ${message.method} ${message.target} ${String(message.body.length)}`;
  return `HTTP/1.1 200 OK\r\nX-Case: ${caseOf(message)}\r\nContent-Length: ${String(body.length)}\r\n\r\n${message.method === 'HEAD' ? '' : body}`;
}

export function echo(seen: SeenRequest): void {
  seen.connection.socket.write(echoOf(seen.message), 'latin1');
}

/** A message without its body: what went wrong on a connection that should hold only whole requests; undefined where nothing did. */
export function leftoverOf(connection: EndpointConnection): string | undefined {
  if (isBetween(connection.reader)) return undefined;
  const { fault, phase } = connection.reader;
  return `${fault ?? `in ${phase}`}: ${JSON.stringify(connection.received.join('').slice(-300))}`;
}
