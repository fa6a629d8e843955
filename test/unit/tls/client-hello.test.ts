import { once } from 'node:events';
import { createServer } from 'node:net';
import { connect } from 'node:tls';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { readClientHello } from '#tls/client-hello.ts';

/** What OpenSSL sends first. */
async function helloOf(options: { readonly servername?: string; readonly ALPNProtocols?: string[] }): Promise<Buffer> {
  const first = Promise.withResolvers<Buffer>();
  const server = createServer((socket) => {
    socket.on('error', () => undefined).once('data', first.resolve);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const client = connect({ host: '127.0.0.1', port, rejectUnauthorized: false, ...options });
  client.on('error', () => undefined);
  const bytes = await first.promise;
  client.destroy();
  server.close();
  return bytes;
}

/** The same message in records of so many bytes. */
function inRecordsOf(hello: Buffer, size: number): Buffer {
  const message = hello.subarray(5);
  const records: Buffer[] = [];
  for (let at = 0; at < message.length; at += size) {
    const piece = message.subarray(at, at + size);
    const head = Buffer.from([22, 3, 1, 0, 0]);
    head.writeUInt16BE(piece.length, 3);
    records.push(head, piece);
  }
  return Buffer.concat(records);
}

describe('readClientHello', () => {
  test('reads who is called and by which protocols, from what OpenSSL sends', async () => {
    const hello = await helloOf({ servername: 'Shop.Example.com', ALPNProtocols: ['acme-tls/1'] });
    expect(readClientHello(hello)).toEqual({ kind: 'hello', serverName: 'shop.example.com', protocols: ['acme-tls/1'] });
    const other = await helloOf({ servername: 'a.test', ALPNProtocols: ['h2', 'http/1.1'] });
    expect(readClientHello(other)).toEqual({ kind: 'hello', serverName: 'a.test', protocols: ['h2', 'http/1.1'] });
    expect(readClientHello(await helloOf({}))).toEqual({ kind: 'hello', serverName: undefined, protocols: [] });
  });

  test('waits for each part of it, and reads it in however many records it comes', async () => {
    const hello = await helloOf({ servername: 'a.test', ALPNProtocols: ['acme-tls/1'] });
    for (const size of [Math.ceil(hello.length / 15), 1000, hello.length]) {
      const bytes = inRecordsOf(hello, size);
      for (let length = 0; length < bytes.length; length += 1)
        if (readClientHello(bytes.subarray(0, length)).kind !== 'more') throw new Error(`${String(size)} ${String(length)}`);
      expect(readClientHello(bytes)).toEqual({ kind: 'hello', serverName: 'a.test', protocols: ['acme-tls/1'] });
    }
  });

  test('what is none is left to TLS to refuse', () => {
    expect(readClientHello(Buffer.from('GET / HTTP/1.1\r\n\r\n')).kind).toBe('other');
    expect(readClientHello(Buffer.from([21, 3, 3, 0, 2, 2, 80])).kind).toBe('other');
    // Empty records, which could be repeated for ever.
    expect(readClientHello(Buffer.from([22, 3, 1, 0, 0])).kind).toBe('other');
    // A message that says it has 16 MiB.
    expect(readClientHello(Buffer.from([22, 3, 1, 0, 4, 1, 255, 255, 255])).kind).toBe('other');
    // One in records of an octet each, that makes work with each.
    expect(readClientHello(Buffer.concat(Array.from({ length: 16 }, () => Buffer.from([22, 3, 1, 0, 1, 1])))).kind).toBe('other');
    // A ServerHello.
    expect(readClientHello(Buffer.from([22, 3, 1, 0, 4, 2, 0, 0, 10])).kind).toBe('other');
  });

  test('no bytes make it throw, and it says the same of the same', () => {
    const isRead = (bytes: Buffer): void => {
      expect(['more', 'other', 'hello']).toContain(readClientHello(bytes).kind);
      expect(readClientHello(bytes)).toEqual(readClientHello(bytes));
    };
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
        isRead(Buffer.from(bytes));
        const framed = Buffer.concat([Buffer.from([22, 3, 1, 0, 0, 1, 0, 0, 0]), bytes]);
        framed.writeUInt16BE(bytes.length + 4, 3);
        framed.writeUIntBE(bytes.length, 6, 3);
        isRead(framed);
      }),
      { numRuns: 500 },
    );
  });

  test('a hello with a byte changed anywhere is read, or not, and never throws', async () => {
    const hello = await helloOf({ servername: 'a.test', ALPNProtocols: ['acme-tls/1'] });
    fc.assert(
      fc.property(fc.nat(hello.length - 1), fc.nat(255), (at, value) => {
        const changed = Buffer.from(hello);
        changed[at] = value;
        expect(['more', 'other', 'hello']).toContain(readClientHello(changed).kind);
      }),
      { numRuns: 1000 },
    );
  });
});
