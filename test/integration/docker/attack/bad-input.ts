/** Bad input: cut, wrong, huge, slow. Docker-shaped errors, and nothing stays behind. */
import { readdir } from 'node:fs/promises';
import { once } from 'node:events';
import { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'vitest';
import { callApi, connectTls } from '../../../support/docker-api.ts';
import type { ApiCall } from '../../../support/docker-api.ts';
import { imageArchive } from '../../../support/image-archive.ts';
import type { AttackWorld } from '../../../support/attack.ts';
import { create, get, messageOf, post } from './cases.ts';
import type { AttackCase } from './cases.ts';

const TAR = { 'content-type': 'application/x-tar' };
const JSON_TYPE = { 'content-type': 'application/json' };

/** Everything that takes a JSON body. */
const jsonCalls: readonly string[] = [
  '/containers/create',
  '/containers/ownbox/exec',
  '/containers/ownbox/update',
  '/networks/create',
  '/networks/ownnet/connect',
  '/networks/ownnet/disconnect',
  '/volumes/create',
  '/auth',
  '/commit?container=ownbox',
];

/** Everything that takes an archive. */
const tarCalls: readonly (readonly [string, string])[] = [
  ['POST', '/images/load'],
  ['POST', '/images/create?fromSrc=-&repo=broken'],
  ['POST', '/build?t=broken'],
  ['PUT', '/containers/ownbox/archive?path=/tmp'],
];

/** Bytes on a connection of its own, and what came back until it closed. */
async function exchange(world: AttackWorld, bytes: string | Buffer, limitMs: number): Promise<string> {
  const socket = await connectTls(world.node, world.credentials);
  let text = '';
  socket.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk;
  });
  socket.write(bytes);
  await Promise.race([once(socket, 'close'), delay(limitMs)]);
  socket.destroy();
  return text;
}

async function expectRefused(
  world: AttackWorld,
  call: ApiCall,
  statuses: readonly number[] = [400, 403, 413, 415, 500],
): Promise<void> {
  const answer = await callApi(world.node, world.credentials, call);
  expect(statuses, `${call.path}: ${String(answer.status)} ${answer.text}`).toContain(answer.status);
  expect(answer.text).not.toContain(world.node.dataDir);
  messageOf(answer);
}

/** A stream of JSON that would be 1 GB if anybody read it; counts what was taken. */
function gigabyte(taken: { bytes: number }): Readable {
  const chunk = Buffer.alloc(64 * 1024, 'x');
  return Readable.from(
    (function* pieces() {
      yield Buffer.from('{"Image":"own:1","Cmd":["');
      for (let sent = 0; sent < 1024 ** 3; sent += chunk.length) {
        taken.bytes += chunk.length;
        yield chunk;
      }
      yield Buffer.from('"]}');
    })(),
  );
}

async function openFiles(pid: number | undefined): Promise<number> {
  return (await readdir(`/proc/${String(pid)}/fd`)).length;
}

const bodies: readonly AttackCase[] = [
  {
    row: 'filters of bytes',
    name: 'JSON of another type is refused at every endpoint that reads it',
    run: async (world) => {
      for (const path of jsonCalls) {
        for (const type of [
          'text/plain',
          'application/x-www-form-urlencoded',
          'multipart/form-data; boundary=x',
          'application/json-patch',
          'x',
        ]) {
          await expectRefused(world, {
            method: 'POST',
            path,
            body: '{"Image":"own:1","Name":"wrong","Cmd":["true"]}',
            headers: { 'content-type': type },
          });
        }
      }
    },
  },
  {
    row: 'filters of bytes',
    name: 'what is no JSON, or is none of that kind, is refused at every endpoint that reads it',
    run: async (world) => {
      for (const path of jsonCalls) {
        for (const body of [
          '{',
          '{"a":',
          '[]',
          '7',
          '"x"',
          '{}{}',
          '\uFEFF{}x',
          '{"Image":"own:1"}trailing',
          '\0',
          `{"Image":${'['.repeat(50_000)}`,
        ]) {
          await expectRefused(world, { method: 'POST', path, body, headers: JSON_TYPE });
        }
      }
    },
  },
  {
    row: 'filters of bytes',
    name: 'a body that its length hides is not smuggled',
    run: async (world) => {
      const hidden = '{"Image":"own:1","HostConfig":{"Privileged":true}}';
      const empty = await exchange(
        world,
        `POST /containers/create?name=hidden HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 0\r\n\r\n${hidden}`,
        3000,
      );
      expect(empty).toMatch(/^HTTP\/1\.1 400 /);
      const both = await exchange(
        world,
        `POST /containers/create?name=hidden HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n32\r\n${hidden}\r\n0\r\n\r\n`,
        3000,
      );
      expect(both).toMatch(/^HTTP\/1\.1 400 [^]*\{"message":"/);
      const twice = await exchange(
        world,
        `POST /containers/create?name=hidden HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\ncontent-length: ${String(hidden.length)}\r\n\r\n${hidden}`,
        3000,
      );
      expect(twice).toMatch(/^HTTP\/1\.1 400 [^]*\{"message":"/);
    },
  },
  {
    row: 'filters of bytes',
    name: 'what stands behind a megabyte of padding is read as well',
    run: async (world) => {
      const padding = ' '.repeat(1_500_000);
      await expectRefused(world, create(`{"Image":"own:1",${padding}"HostConfig":{"Privileged":true}}`));
      await expectRefused(
        world,
        create(`{"Image":"own:1","Labels":{"x":"${'y'.repeat(1_500_000)}"},"HostConfig":{"Privileged":true}}`),
      );
    },
  },
  {
    row: 'filters of bytes',
    name: 'a gigabyte of JSON is not read',
    run: async (world) => {
      const announced = await exchange(
        world,
        `POST /containers/create HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: ${String(1024 ** 3)}\r\n\r\n{"Image":"`,
        5000,
      );
      expect(announced).toMatch(/^HTTP\/1\.1 413 [^]*\{"message":"/);
      const taken = { bytes: 0 };
      const call = { method: 'POST', path: '/containers/create', body: gigabyte(taken), headers: JSON_TYPE };
      const outcome = await callApi(world.node, world.credentials, call).then(
        ({ status }) => status,
        () => 'cut',
      );
      expect([413, 'cut']).toContain(outcome);
      expect(taken.bytes).toBeLessThan(256 * 1024 ** 2);
    },
  },
];

const archives: readonly AttackCase[] = [
  {
    row: 'image load',
    name: 'archives that end in the middle make nothing',
    run: async (world) => {
      const whole = await imageArchive({ repoTags: ['broken:1'], rootFs: world.rootFs });
      for (const [method, path] of tarCalls) {
        for (const end of [1, 511, 700, Math.floor(whole.length / 2)]) {
          const answer = await callApi(world.node, world.credentials, {
            method,
            path,
            body: whole.subarray(0, end),
            headers: TAR,
          });
          const failed = answer.status >= 400 || /"error"/.test(answer.text);
          expect(failed, `${path} cut at ${String(end)}: ${String(answer.status)} ${answer.text}`).toBe(true);
          expect(answer.text).not.toContain(world.node.dataDir);
        }
      }
    },
  },
  {
    row: 'archive',
    name: 'bytes that are no archive make nothing',
    run: async (world) => {
      for (const [method, path] of tarCalls) {
        for (const body of [
          Buffer.from('garbage'.repeat(1000)),
          Buffer.from([0x1f, 0x8b, 8, 0, 1, 2, 3, 4]),
          Buffer.from('BZh91AY&SY'),
          Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0]),
        ]) {
          const answer = await callApi(world.node, world.credentials, { method, path, body, headers: TAR });
          const failed = answer.status >= 400 || /"error"/.test(answer.text);
          expect(failed, `${path}: ${String(answer.status)} ${answer.text}`).toBe(true);
          expect(answer.text).not.toContain(world.node.dataDir);
        }
      }
    },
  },
  {
    row: 'image load',
    name: 'uploads that are dropped half-way make nothing',
    run: async (world) => {
      const whole = await imageArchive({ repoTags: ['broken:1'], rootFs: world.rootFs });
      for (const [method, path] of tarCalls) {
        const socket = await connectTls(world.node, world.credentials);
        socket.write(
          `${method} ${path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-tar\r\ncontent-length: ${String(whole.length)}\r\n\r\n`,
        );
        socket.write(whole.subarray(0, whole.length / 2));
        await delay(300);
        socket.destroy();
      }
      await delay(500);
    },
  },
];

const connections: readonly AttackCase[] = [
  {
    row: 'wire: errors',
    name: 'bytes that are no HTTP get an error in Docker’s form',
    run: async (world) => {
      for (const bytes of [
        'garbage\r\n\r\n',
        'GET / HTTP/9.9\r\n\r\n',
        'GET /containers/json HTTP/1.1\r\nhost: a\r\nbad header\r\n\r\n',
        'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
      ]) {
        expect(await exchange(world, bytes, 3000), bytes).toMatch(/^HTTP\/1\.1 \d{3} [^]*\{"message":"/);
      }
    },
  },
  {
    row: 'slow readers',
    name: 'bodies that trickle are cut off, and hold nobody up',
    run: async (world) => {
      const before = await openFiles(world.node.process.pid);
      const slow = jsonCalls.map(
        async (path) =>
          await exchange(
            world,
            `POST ${path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"Image"`,
            15_000,
          ),
      );
      expect((await world.askAsVictim(get('/containers/json'))).status).toBe(200);
      for (const answer of await Promise.all(slow)) expect(answer).toMatch(/^HTTP\/1\.1 408 [^]*\{"message":"/);
      await delay(300);
      expect(await openFiles(world.node.process.pid)).toBeLessThanOrEqual(before + 5);
    },
  },
  {
    row: 'slow readers',
    name: 'connections that are half open or silent leave nothing',
    run: async (world) => {
      const before = await openFiles(world.node.process.pid);
      const sockets = await Promise.all(Array.from({ length: 40 }, async () => await connectTls(world.node, world.credentials)));
      for (const [index, socket] of sockets.entries()) {
        if (index % 4 === 0) socket.end('GET /_ping HTTP/1.1\r\nhost: a\r\n\r\n');
        if (index % 4 === 1)
          socket.end(
            'POST /containers/create HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{',
          );
        if (index % 4 === 2) socket.end('GET /events HTTP/1.1\r\nhost: a\r\n\r\n');
      }
      await delay(500);
      expect((await world.ask(post('/containers/ownbox/rename?name=ownbox'))).status).toBeGreaterThanOrEqual(400);
      for (const socket of sockets) socket.destroy();
      await delay(500);
      expect(await openFiles(world.node.process.pid)).toBeLessThanOrEqual(before + 5);
    },
  },
];

export const badInputCases: readonly AttackCase[] = [...bodies, ...archives, ...connections];
