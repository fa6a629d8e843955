/**
 * One health check: a GET over a connection of its own, healthy where the head of a 2xx or 3xx came whole and in time.
 *
 * SECURITY: endpoints are not trusted: the head is judged as strictly as that of any response and bounded, the body is read away to a limit.
 * Ownership: the connection is closed when the promise resolves. Cancellation: `signal` closes it. Never rejects.
 */
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { codeOf, reasonOf } from '#errors';
import { NEED_MORE, parseHead } from '#proxy/http1/head.ts';
import { createHeadView } from '#proxy/http1/head-view.ts';
import { refusalOf } from '#proxy/http1/refusal.ts';
import { connectOptions } from '#proxy/endpoint-security.ts';
import type { EndpointSecurity } from '#proxy/endpoint-security.ts';
import { secureFaultOf } from '#proxy/wire/secure-fault.ts';
import { createProxyHeader, writeProxyHeader } from '#proxy/wire/proxy-protocol.ts';
import type { CheckOutcome } from './health-state.ts';
import { BODY_BYTES_MAX, BODY_MS_MAX, HEAD_LIMITS, INTERIM_MAX, REASON_LENGTH_MAX } from './limits.ts';

export interface ProbeTarget {
  readonly address: string;
  readonly port: number;
  readonly path: string;
  readonly timeoutMs: number;
  /** The PROXY header that the endpoint wants first: one of a check, which has no client. */
  readonly sendProxy: 1 | 2 | undefined;
  /** How it is spoken to over TLS; undefined: in the clear. A text says why it cannot be. */
  readonly security?: EndpointSecurity | string | undefined;
}

export async function probe(target: ProbeTarget, signal: AbortSignal): Promise<CheckOutcome> {
  const { promise, resolve } = Promise.withResolvers<CheckOutcome>();
  if (signal.aborted) return failed('it was called off');
  const { security } = target;
  if (typeof security === 'string') return failed(security);
  const to = { host: target.address, port: target.port, signal };
  const socket = security === undefined ? connect(to) : connectTls({ ...to, ...connectOptions(security) });
  const reader = new AnswerReader();
  let outcome: CheckOutcome | undefined;
  let timer = setTimeout(() => {
    end(failed(`no ${isConnecting(socket) ? 'connection' : 'whole answer'} in ${String(target.timeoutMs)} ms`));
  }, target.timeoutMs);
  const end = (found: CheckOutcome): void => {
    outcome ??= found;
    socket.destroy();
  };
  socket.setNoDelay(true);
  socket.once(security === undefined ? 'connect' : 'secureConnect', () => socket.write(requestOf(target)));
  socket.on('data', (bytes: Buffer) => {
    if (outcome !== undefined) {
      if (socket.bytesRead > BODY_BYTES_MAX) socket.destroy();
      return;
    }
    outcome = reader.read(bytes);
    if (outcome === undefined) return;
    clearTimeout(timer);
    timer = setTimeout(() => socket.destroy(), BODY_MS_MAX);
  });
  socket.on('end', () => {
    end(failed('it closed the connection without a whole answer'));
  });
  socket.on('error', (error) => {
    outcome ??= failed(reasonText(error, socket));
  });
  socket.once('close', () => {
    clearTimeout(timer);
    resolve(outcome ?? failed('the connection was closed'));
  });
  return await promise;
}

function requestOf({ address, port, path, sendProxy }: ProbeTarget): Buffer {
  const host = address.includes(':') ? `[${address}]` : address;
  const head = `GET ${path} HTTP/1.1\r\nHost: ${host}:${String(port)}\r\nUser-Agent: ecluse-health\r\nAccept: */*\r\nConnection: close\r\n\r\n`;
  const request = Buffer.from(head, 'latin1');
  return sendProxy === undefined ? request : Buffer.concat([writeProxyHeader(sendProxy, createProxyHeader()), request]);
}

/** Reads up to the end of the head that counts. */
class AnswerReader {
  #bytes: Buffer = Buffer.alloc(0);
  #start = 0;
  #interims = 0;
  readonly #view = createHeadView('response', HEAD_LIMITS);

  /** Undefined: it is not all there yet. Its limits bound what is kept. */
  read(more: Buffer): CheckOutcome | undefined {
    this.#bytes = this.#bytes.length === 0 ? more : Buffer.concat([this.#bytes, more]);
    for (;;) {
      const after = parseHead(this.#bytes, this.#start, this.#bytes.length, this.#view);
      if (after === NEED_MORE) return undefined;
      if (after < 0) return failed(`its answer is malformed: ${refusalOf(after).reason}`);
      const { status } = this.#view;
      if (status >= 200 && status < 400) return { kind: 'passed' };
      if (status >= 400 || status === 101) return failed(`it answered with status ${String(status)}`);
      this.#interims += 1;
      if (this.#interims > INTERIM_MAX) return failed('it answered with 1xx again and again');
      this.#start = after;
    }
  }
}

function failed(reason: string): CheckOutcome {
  return { kind: 'failed', reason: reason.slice(0, REASON_LENGTH_MAX) };
}

const REASONS: ReadonlyMap<string, string> = new Map([
  ['ECONNREFUSED', 'it refused the connection'],
  ['ECONNRESET', 'it reset the connection'],
  ['EHOSTUNREACH', 'there is no way to its host'],
  ['ENETUNREACH', 'there is no way to its network'],
]);

function reasonText(error: unknown, socket: Socket): string {
  const fault = secureFaultOf({ socket, fault: error, reached: !socket.connecting });
  if (fault === 'certificate') return `its certificate does not verify: ${reasonOf(error)}`;
  return REASONS.get(codeOf(error) ?? '') ?? reasonOf(error);
}

function isConnecting(socket: Socket): boolean {
  return socket.connecting || Reflect.get(socket, 'secureConnecting') === true;
}
