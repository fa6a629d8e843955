/** Packs over a real socket, from a server that answers as it should not. */
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { PackClient, PackServer } from '#proxy/pack-channel.ts';
import { CertificatePack } from '#tls/certificate-pack.ts';
import { PackShelf } from '#tls/pack-shelf.ts';
import { pemBlockOf } from '#tls/pem-blocks.ts';

const HEAD_BYTES = 5;
const GONE = 'what reads certificates is gone';

let folder: string;
let path: string;
let server: Server | undefined;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ecluse-packs-'));
  path = join(folder, 'packs.sock');
});

afterEach(async () => {
  server?.close();
  server = undefined;
  await rm(folder, { recursive: true });
});

function packOf(name: string, keyBytes = 40): CertificatePack {
  const leafPem = pemBlockOf('CERTIFICATE', Buffer.from(`leaf of ${name}`));
  const keyPem = pemBlockOf('PRIVATE KEY', Buffer.alloc(keyBytes, name));
  return CertificatePack.of([{ name, hosts: [name], notAfterMs: 1, leafPem, chain: { pem: 'chain' }, keyPem }], () => undefined);
}

async function answering(answer: (socket: Socket) => void): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.once('data', () => {
      answer(socket);
    });
  }).listen(path, resolve);
  await promise;
}

function headOf(kind: number, bytes: number): Buffer {
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUInt8(kind);
  head.writeUInt32BE(bytes, 1);
  return head;
}

test('packs of any size arrive as they were, side by side', { timeout: 10_000 }, async () => {
  const sent = [packOf('a.test'), packOf('b.test', 20 * 1024 * 1024), CertificatePack.empty, packOf('c.test', 200_000)];
  await PackServer.open(path, async ({ id }) => await Promise.resolve(sent[id] ?? CertificatePack.empty));
  using client = await PackClient.connect(path, new PackShelf());
  const fetched: CertificatePack[] = [];
  for (const id of sent.keys()) fetched.push(await client.fetch({ id, names: [] }));
  expect(fetched.map(({ bytes }, index) => sent[index]?.bytes.equals(bytes))).toEqual([true, true, true, true]);
  expect(fetched.flatMap((pack) => [...pack.values()].map(({ name }) => name))).toEqual(['a.test', 'b.test', 'c.test']);
});

test('an answer in single bytes is one', async () => {
  const { bytes } = packOf('a.test');
  await answering((socket) => {
    socket.setNoDelay();
    for (const byte of Buffer.concat([headOf(0, bytes.length), bytes])) socket.write(Buffer.of(byte));
  });
  using client = await PackClient.connect(path, new PackShelf());
  expect((await client.fetch({ id: 1, names: [] })).bytes.equals(bytes)).toBe(true);
});

test.each([
  ['is longer than it says', Buffer.concat([headOf(0, 8), packOf('a.test').bytes])],
  ['is longer than any pack', headOf(0, 0xff_ff_ff_ff)],
  ['says that it is empty', headOf(0, 0)],
  ['is no pack', Buffer.concat([headOf(0, 8), Buffer.from([4, 0, 0, 0, 1, 0, 0, 0])])],
])('an answer that %s ends the connection', async (_what, bytes) => {
  await answering((socket) => socket.write(bytes));
  using client = await PackClient.connect(path, new PackShelf());
  await expect(client.fetch({ id: 1, names: [] })).rejects.toThrow(GONE);
  await expect(client.fetch({ id: 2, names: [] })).rejects.toThrow(GONE);
});

test('a server that ends in the middle of an answer is said', async () => {
  await answering((socket) => socket.end(headOf(0, 100)));
  using client = await PackClient.connect(path, new PackShelf());
  await expect(client.fetch({ id: 1, names: [] })).rejects.toThrow(GONE);
});
