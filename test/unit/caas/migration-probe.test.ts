import type { Socket } from 'node:net';
import { describe, expect, test } from 'vitest';
import { keptServing, servingOf, untilServes } from '#caas/migration/migration-probe.ts';
import type { Found } from '#caas/migration/migration-probe.ts';
import type { ContainerSpec } from '#caas/spec/container-spec.ts';
import { systemClock } from '#clock';
import { specOf as storedSpec } from '../../support/caas-data.ts';
import { startRawUpstream } from '../../support/upstream.ts';

const HTTP = { 'ecluse.http.host': 'a.test' };

/** Loopback's one address that nothing can be sent to: the answer is neither a connection nor a refusal. */
const NOWHERE = '255.255.255.255';

const answering = (socket: Socket): void => {
  socket.on('data', () => socket.end('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'));
};
const healthy = (socket: Socket): void => {
  socket.on('data', () => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'));
};
const silent = (): void => undefined;
const closing = (socket: Socket): void => {
  socket.on('data', () => socket.end());
};

function specOf(port: number, labels: Readonly<Record<string, string>>): ContainerSpec {
  return storedSpec({ Labels: { ...labels } }, [port]);
}

async function found(onSocket: (socket: Socket) => void, labels: Readonly<Record<string, string>>): Promise<Found> {
  await using server = await startRawUpstream(onSocket);
  return await servingOf(specOf(server.port, labels), '127.0.0.1');
}

describe('servingOf()', { timeout: 10_000 }, () => {
  test.each([
    ['HTTP that answers, whatever it says', answering, HTTP, 'answers'],
    ['HTTP that accepts and says nothing', silent, HTTP, 'accepts'],
    ['HTTP that accepts and closes', closing, HTTP, 'accepts'],
    ['no HTTP', silent, {}, 'accepts'],
    ['a health path that is well', healthy, { 'ecluse.http.health': '/h' }, 'answers'],
    ['a health path that is not', answering, { ...HTTP, 'ecluse.http.health': '/h' }, 'accepts'],
    ['a health path without an answer', silent, { ...HTTP, 'ecluse.http.health': '/h' }, 'accepts'],
  ] as const)('of %s', async (_title, onSocket, labels, expected) => {
    expect(await found(onSocket, labels)).toBe(expected);
  });

  test('of a port that refuses, an address that nothing comes from, and none', async () => {
    const server = await startRawUpstream(silent);
    const { port } = server;
    await server[Symbol.asyncDispose]();
    for (const labels of [HTTP, {}, { 'ecluse.http.health': '/h' }]) {
      expect(await servingOf(specOf(port, labels), '127.0.0.1')).toBe('nothing');
      expect(await servingOf(specOf(port, labels), NOWHERE)).toBe('unknown');
      expect(await servingOf(specOf(port, labels), '')).toBe('nothing');
    }
    expect([keptServing('unknown'), keptServing('answers')]).toEqual(['nothing', 'answers']);
  });
});

describe('untilServes()', { timeout: 10_000 }, () => {
  async function serves(onSocket: (socket: Socket) => void, before: Found, labels: Readonly<Record<string, string>> = HTTP) {
    await using server = await startRawUpstream(onSocket);
    const spec = specOf(server.port, labels);
    let looks = 0;
    const check = async (): Promise<void> => {
      looks += 1;
      await Promise.resolve();
      if (looks > 1) throw new Error('gone');
    };
    return await untilServes(systemClock, { spec, address: '127.0.0.1', before, check }).catch(() => 'waits');
  }

  test.each([
    ['answers', answering, true],
    ['answers', silent, 'waits'],
    ['answers', closing, 'waits'],
    ['accepts', silent, true],
    ['unknown', answering, true],
    ['unknown', silent, 'waits'],
    ['nothing', silent, true],
  ] as const)('where it was found to do %s', async (before, onSocket, expected) => {
    expect(await serves(onSocket, before)).toBe(expected);
  });

  test('demands no answer of who serves no HTTP', async () => {
    expect(await serves(silent, 'unknown', {})).toBe(true);
  });
});
