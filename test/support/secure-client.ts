/** A client that speaks TLS with its own certificate, and one request after the other over one connection. */
import { once } from 'node:events';
import { connect as connectPlain } from 'node:net';
import { connect } from 'node:tls';
import type { ConnectionOptions, TLSSocket } from 'node:tls';
import type { Made } from './certificate-maker.ts';
import { createReader, feed, feedEnd, finals } from './raw-message.ts';
import type { RawMessage } from './raw-message.ts';
import { eventually } from './edge.ts';

export class SecureClient implements Disposable {
  readonly socket: TLSSocket;
  /** The last ticket that came. */
  session: Buffer | undefined;
  closed = false;
  readonly #reader = createReader('response');
  #answers = 0;

  private constructor(socket: TLSSocket) {
    this.socket = socket;
    socket.on('session', (session) => {
      this.session = session;
    });
    socket.on('data', (chunk: Buffer) => {
      feed(this.#reader, chunk.toString('latin1'));
    });
    socket.on('end', () => {
      feedEnd(this.#reader);
    });
    socket.on('close', () => {
      this.closed = true;
    });
    socket.on('error', () => undefined); // `close` follows.
  }

  /** Rejects where the handshake fails. */
  static async open(options: ConnectionOptions): Promise<SecureClient> {
    const socket = connect({ host: '127.0.0.1', rejectUnauthorized: false, ...options });
    const client = new SecureClient(socket);
    await once(socket, 'secureConnect');
    return client;
  }

  /** The same, behind a PROXY header. */
  static async openBehindProxy(port: number, options: ConnectionOptions): Promise<SecureClient> {
    const beneath = connectPlain({ host: '127.0.0.1', port });
    await once(beneath, 'connect');
    beneath.write('PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n');
    return await SecureClient.open({ ...options, socket: beneath });
  }

  async get(host: string, path = '/', fields = ''): Promise<RawMessage> {
    this.#reader.asked.push('GET');
    this.socket.write(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\n${fields}\r\n`);
    this.#answers += 1;
    const wanted = this.#answers;
    const answers = await eventually(() => {
      const whole = finals(this.#reader);
      return whole.length >= wanted || this.closed ? whole : undefined;
    });
    const last = answers.at(wanted - 1);
    if (last === undefined) throw new Error('the connection was closed without an answer');
    return last;
  }

  [Symbol.dispose](): void {
    this.socket.destroy();
  }
}

/** How a client shows a certificate, with what signed it where that is given. */
export function shows(leaf: Made, ...chain: readonly Made[]): { readonly cert: string; readonly key: string } {
  return { cert: [leaf, ...chain].map(({ certPem }) => certPem).join(''), key: leaf.keyPem };
}
