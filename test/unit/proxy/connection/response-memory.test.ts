import { describe, expect, test } from 'vitest';
import { ResponseMemory } from '#proxy/connection/response-memory.ts';
import { EDGE_LIMITS } from '#proxy/edge-limits.ts';
import { FRAMING, responseFraming } from '#proxy/http1/body-framing.ts';
import { METHOD, createHeadView } from '#proxy/http1/head-view.ts';
import { parseHead } from '#proxy/http1/head.ts';

const DATE = 'Date: Sat, 21 Nov 2026 06:00:00 GMT\r\n';
const OK = `HTTP/1.1 200 OK\r\n${DATE}Content-Length: 2\r\n\r\n`;

function remembered(text: string, method: number = METHOD.get): ResponseMemory {
  const bytes = Buffer.from(text);
  const view = createHeadView('response', EDGE_LIMITS);
  const after = parseHead(bytes, 0, bytes.length, view);
  const memory = new ResponseMemory();
  memory.note(bytes, view, after, { framing: responseFraming(bytes, view, { method, upgrade: false }), method });
  return memory;
}

function again(memory: ResponseMemory, text: string, method: number = METHOD.get): boolean {
  const bytes = Buffer.from(text);
  return memory.isRepeatedBy(bytes, 0, bytes.length, method);
}

describe('ResponseMemory', () => {
  test('says of the same head again what it said first', () => {
    const memory = remembered(OK);
    expect(again(memory, `${OK}no`)).toBe(true);
    expect([memory.status, memory.framing, memory.contentLength, memory.persistent, memory.length]).toEqual([
      200,
      FRAMING.fixed,
      2,
      true,
      OK.length,
    ]);
    const view = createHeadView('response', EDGE_LIMITS);
    expect(memory.read(view).toString('latin1', 0, memory.length)).toBe(OK);
    expect([view.status, view.fieldCount]).toEqual([200, 2]);
  });

  test('not in answer to another method, which frames it otherwise', () => {
    const memory = remembered(OK, METHOD.head);
    expect(memory.framing).toBe(FRAMING.none);
    expect(again(memory, OK, METHOD.get)).toBe(false);
    expect(memory.repeated).toBe(false);
  });

  test.each([
    ['has no Date, which is ours to add', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n'],
    ['ends with its connection', `HTTP/1.1 200 OK\r\n${DATE}\r\n`],
    ['offers another protocol', `HTTP/1.1 426 Upgrade\r\n${DATE}Content-Length: 0\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n`],
  ])('not a head that %s', (_title, text) => {
    expect(again(remembered(text), text)).toBe(false);
  });

  test('gives what was written for one kind of client to that kind only, and forgets it with the head', () => {
    const memory = remembered(OK);
    memory.rewrote(3, undefined, Buffer.from('first'));
    expect(memory.rewrittenFor(3, undefined)).toBeUndefined(); // It was not repeated yet.
    expect(again(memory, OK)).toBe(true);
    memory.rewrote(3, undefined, Buffer.from('sent'));
    expect([memory.rewrittenFor(3, undefined)?.toString(), memory.rewrittenFor(2, undefined)]).toEqual(['sent', undefined]);
    expect(again(memory, OK.replace('200', '201'))).toBe(false);
    expect(memory.rewrittenFor(3, undefined)).toBeUndefined();
  });

  test('gives what was written with the changes of one route to that route only', () => {
    const fields = { drops: [], lines: Buffer.from('X: 1\r\n') };
    const memory = remembered(OK);
    expect(again(memory, OK)).toBe(true);
    memory.rewrote(3, fields, Buffer.from('changed'));
    expect([memory.rewrittenFor(3, fields)?.toString(), memory.rewrittenFor(3, undefined)]).toEqual(['changed', undefined]);
    expect(memory.rewrittenFor(3, { ...fields })).toBeUndefined();
  });
});
