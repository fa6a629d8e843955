import { describe, expect, test } from 'vitest';
import { EDGE_LIMITS } from '#proxy/edge-limits.ts';
import { parseHead } from '#proxy/http1/head.ts';
import { createHeadView } from '#proxy/http1/head-view.ts';
import { eventStreamOf, isWebSocket } from '#proxy/http1/stream-kind.ts';

function read<T>(fields: string, ask: (bytes: Buffer, view: ReturnType<typeof createHeadView>) => T): T {
  const bytes = Buffer.from(`HTTP/1.1 200 OK\r\n${fields}\r\n`);
  const view = createHeadView('response', EDGE_LIMITS);
  expect(parseHead(bytes, 0, bytes.length, view)).toBe(bytes.length);
  return ask(bytes, view);
}

describe('eventStreamOf()', () => {
  test.each([
    ['Content-Type: text/event-stream\r\n', 'plain'],
    ['X: y\r\ncontent-type:Text/Event-Stream; charset=utf-8\r\n', 'plain'],
    ['Content-Type: text/event-stream ; a\r\n', 'plain'],
    ['Content-Type: text/event-stream\r\nContent-Encoding: gzip\r\n', 'encoded'],
    ['Content-Type: text/event-streams\r\n', undefined],
    ['Content-Type: text/event\r\n', undefined],
    ['Content-Type: text/html\r\nX-Content-Type: text/event-stream\r\n', undefined],
    ['', undefined],
  ])('of %j is %s', (fields, expected) => {
    expect(read(fields, eventStreamOf)).toBe(expected);
  });
});

describe('isWebSocket()', () => {
  test.each([
    ['Upgrade: websocket\r\nConnection: Upgrade\r\n', true],
    ['Upgrade: WebSocket\r\nConnection: Upgrade\r\n', true],
    ['Upgrade: h2c\r\nConnection: Upgrade\r\n', false],
    ['', false],
  ])('of %j is %s', (fields, expected) => {
    expect(read(fields, isWebSocket)).toBe(expected);
  });
});
