/** Raw requests to a node's Docker endpoint, as a tenant: what no client library would send. */
import { readFile } from 'node:fs/promises';
import { request } from 'node:https';
import type { IncomingMessage, OutgoingHttpHeaders } from 'node:http';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { Readable } from 'node:stream';
import { connect } from 'node:tls';
import type { TLSSocket } from 'node:tls';
import { writeBusyboxImage } from './busybox-image.ts';
import type { TestNode } from './node.ts';

export interface ApiCall {
  readonly method?: string;
  /** As it goes on the wire; nothing is encoded. */
  readonly path: string;
  /** An object goes as JSON; a string, buffer or stream as it is. */
  readonly body?: unknown;
  readonly headers?: OutgoingHttpHeaders;
}

export interface ApiAnswer {
  readonly status: number;
  readonly text: string;
  readonly headers: IncomingMessage['headers'];
}

export interface Credentials {
  readonly ca: string;
  readonly cert?: string;
  readonly key?: string;
}

export async function credentialsOf(node: TestNode, tenant: string): Promise<Credentials> {
  const folder = join(node.dataDir, 'tenants', tenant);
  const read = async (name: string): Promise<string> => await readFile(join(folder, name), 'utf8');
  return { ca: await read('ca.pem'), cert: await read('cert.pem'), key: await read('key.pem') };
}

/** One request on a connection of its own; rejects where the connection is cut before the answer ends. */
export async function callApi(node: TestNode, credentials: Credentials, call: ApiCall): Promise<ApiAnswer> {
  const { body } = call;
  const isRaw = body === undefined || typeof body === 'string' || Buffer.isBuffer(body) || body instanceof Readable;
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const outgoing = request(
    {
      ...credentials,
      host: '127.0.0.1',
      port: node.ports.docker,
      method: call.method ?? 'GET',
      path: call.path,
      agent: false,
      headers: { host: 'localhost', ...(isRaw ? {} : { 'content-type': 'application/json' }), ...call.headers },
    },
    resolve,
  );
  outgoing.once('error', reject);
  if (body instanceof Readable) body.pipe(outgoing);
  else outgoing.end(isRaw ? body : JSON.stringify(body));
  const response = await promise;
  outgoing.on('error', () => undefined); // The answer may come before all of the body went.
  return { status: response.statusCode ?? 0, text: (await buffer(response)).toString('utf8'), headers: response.headers };
}

/** A bare TLS connection to the endpoint. */
export async function connectTls(node: TestNode, credentials: Credentials): Promise<TLSSocket> {
  const { promise, resolve, reject } = Promise.withResolvers<TLSSocket>();
  const socket = connect({ ...credentials, host: '127.0.0.1', port: node.ports.docker, ALPNProtocols: ['http/1.1'] }, () => {
    resolve(socket);
  });
  socket.once('error', reject);
  await promise;
  socket.on('error', () => undefined);
  return socket;
}

/** The busybox root file system in memory. */
export async function busyboxTar(folder: string): Promise<Buffer> {
  const file = join(folder, 'busybox.tar');
  await writeBusyboxImage(file);
  return await readFile(file);
}
