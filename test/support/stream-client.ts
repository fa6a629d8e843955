/** Plain TCP and UDP towards published ports: what a client sends, and all that comes back. */
import { createSocket } from 'node:dgram';
import type { Socket as DatagramSocket } from 'node:dgram';
import { connect } from 'node:net';
import type { Socket } from 'node:net';

export interface StreamAnswer {
  readonly bytes: Buffer;
  /** The error code of the connection; undefined: the other side ended it in order. */
  readonly code: string | undefined;
}

/** Sends `data`, ends its own direction and reads until the other one ends: `printf … | nc`. */
export async function talk(port: number, data: string | Buffer, host = '127.0.0.1'): Promise<StreamAnswer> {
  const socket = connect({ host, port, allowHalfOpen: true });
  socket.end(data);
  return await answerOf(socket);
}

/** All that a socket receives until it closes. */
export async function answerOf(socket: Socket): Promise<StreamAnswer> {
  const chunks: Buffer[] = [];
  let code: string | undefined;
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  socket.on('error', (error: NodeJS.ErrnoException) => {
    code = error.code;
  });
  await new Promise((resolve) => socket.once('close', resolve));
  return { bytes: Buffer.concat(chunks), code };
}

export interface DatagramClient extends AsyncDisposable {
  /** What came back so far, in order. */
  readonly received: readonly string[];
  send(text: string): void;
}

export function datagramClient(port: number, host = '127.0.0.1'): DatagramClient {
  const socket = createSocket({ type: 'udp4', lookup: literally });
  const received: string[] = [];
  socket.on('message', (message) => received.push(message.toString()));
  return {
    received,
    send: (text) => {
      socket.send(text, port, host);
    },
    [Symbol.asyncDispose]: async () => {
      await closed(socket);
    },
  };
}

export interface DatagramEcho extends AsyncDisposable {
  readonly port: number;
  /** The ports that datagrams came from. */
  readonly peers: ReadonlySet<number>;
}

/** Answers each datagram with `prefix` and itself. */
export async function startDatagramEcho(prefix = ''): Promise<DatagramEcho> {
  const socket = createSocket('udp4');
  const peers = new Set<number>();
  socket.on('message', (message, from) => {
    peers.add(from.port);
    socket.send(`${prefix}${message.toString()}`, from.port, from.address);
  });
  await new Promise<void>((resolve) => {
    socket.bind(0, '127.0.0.1', resolve);
  });
  return {
    port: socket.address().port,
    peers,
    [Symbol.asyncDispose]: async () => {
      await closed(socket);
    },
  };
}

async function closed(socket: DatagramSocket): Promise<void> {
  await new Promise<void>((resolve) => {
    socket.close(() => {
      resolve();
    });
  });
}

/** At once: the order of datagrams is what is looked at. */
function literally(
  address: string,
  _options: unknown,
  done: (error: Error | null, address: string, family: number) => void,
): void {
  done(null, address, 4);
}
