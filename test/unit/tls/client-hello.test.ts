import { once } from 'node:events';
import { createServer } from 'node:net';
import { connect } from 'node:tls';
import type { ConnectionOptions } from 'node:tls';
import { describe, expect, test } from 'vitest';
import { HELLO_BYTES_MAX, readClientHello } from '#tls/client-hello.ts';

/** What OpenSSL says first. */
async function helloOf(options: ConnectionOptions): Promise<Buffer> {
  const { promise, resolve } = Promise.withResolvers<Buffer>();
  const server = createServer((socket) => {
    socket.once('data', (bytes: Buffer) => {
      resolve(bytes);
      socket.destroy();
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (typeof address !== 'object' || address === null) throw new Error('no port');
  connect({ host: '127.0.0.1', port: address.port, ...options }).on('error', () => undefined);
  const hello = await promise;
  server.close();
  return hello;
}

/** The same message in records of `size` octets. */
function inRecords(hello: Buffer, size: number): Buffer {
  const message = hello.subarray(5);
  const records: Buffer[] = [];
  for (let at = 0; at < message.length; at += size) {
    const part = message.subarray(at, at + size);
    records.push(Buffer.from([22, 3, 1, part.length >> 8, part.length & 255]), part);
  }
  return Buffer.concat(records);
}

describe('readClientHello()', () => {
  test.each([{}, { maxVersion: 'TLSv1.2' as const }])('finds the name that OpenSSL writes: %o', async (options) => {
    const hello = await helloOf({ servername: 'shop.example.com', ...options });
    expect(readClientHello(hello)).toEqual({ kind: 'hello', serverName: 'shop.example.com' });
    expect(readClientHello(Buffer.concat([hello, Buffer.from('more')]))).toEqual({
      kind: 'hello',
      serverName: 'shop.example.com',
    });
  });

  test('there may be none', async () => {
    expect(readClientHello(await helloOf({ servername: '' }))).toEqual({ kind: 'hello', serverName: undefined });
  });

  test('in pieces: more is wanted until all is there, never anything else', async () => {
    const hello = await helloOf({ servername: 'shop.example.com' });
    for (const bytes of [hello, inRecords(hello, 400)]) {
      for (let length = 0; length < bytes.length; length += 1)
        expect(readClientHello(bytes.subarray(0, length))).toEqual({ kind: 'more' });
      expect(readClientHello(bytes)).toEqual({ kind: 'hello', serverName: 'shop.example.com' });
    }
  });

  test('many small records are not read: each costs a copy', async () => {
    const hello = await helloOf({ servername: 'shop.example.com' });
    expect(readClientHello(inRecords(hello, 1))).toEqual({ kind: 'other' });
  });

  test.each([
    ['HTTP', Buffer.from('GET / HTTP/1.1\r\n')],
    ['an alert', Buffer.from([21, 3, 1, 0, 2, 2, 40])],
    ['another message', Buffer.from([22, 3, 1, 0, 4, 2, 0, 0, 0])],
    ['another version', Buffer.from([22, 2, 0, 0, 4, 1, 0, 0, 0])],
    ['an empty record', Buffer.from([22, 3, 1, 0, 0])],
    ['a long one', Buffer.from([22, 3, 1, 255, 255, 1, 0, 255, 255])],
    ['an empty one', Buffer.from([22, 3, 1, 0, 4, 1, 0, 0, 0])],
  ])('%s is none', (_, bytes) => {
    expect(readClientHello(bytes)).toEqual({ kind: 'other' });
  });

  test('octets that lie about lengths give a name, none, or nothing that can be read', async () => {
    const hello = await helloOf({ servername: 'shop.example.com' });
    for (let at = 9; at < hello.length; at += 1)
      for (const octet of [0, 1, 127, 255]) {
        const broken = Buffer.from(hello);
        broken[at] = octet;
        expect(['hello', 'other']).toContain(readClientHello(broken).kind);
      }
    expect(hello.length).toBeLessThan(HELLO_BYTES_MAX);
  });
});
