/** What we take, Node's own parser takes as well, and reads the same. A bounded set: each case is a connection of a server without sockets. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { duplexPair } from 'node:stream';
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { FRAMING, requestFraming } from '#proxy/http1/body-framing.ts';
import { abandonHead, parseHead } from '#proxy/http1/head.ts';
import { FIELD_STRIDE, METHOD, createHeadView } from '#proxy/http1/head-view.ts';
import { EDGE_LIMITS } from '#proxy/edge-limits.ts';
import { HOSTILE_REQUESTS, VALID_REQUESTS } from '../../../support/http1-cases.ts';

interface Reading {
  readonly method: string;
  readonly target: string;
  readonly minor: number;
  readonly fields: readonly string[];
  readonly body: string;
}

const view = createHeadView('request', EDGE_LIMITS);
const BODIES = new Map<number, string>([
  [FRAMING.none, ''],
  [FRAMING.fixed, 'abc'],
  [FRAMING.chunked, '3\r\nabc\r\n0\r\n\r\n'],
]);

/** What we read, and the bytes with a body as we take it; undefined where we refuse. */
function ourReading(head: Buffer): { readonly reading: Reading; readonly bytes: Buffer } | undefined {
  abandonHead(view);
  if (parseHead(head, 0, head.length, view) !== head.length) return undefined;
  const framing = requestFraming(head, view);
  const body = BODIES.get(framing);
  if (body === undefined || (framing === FRAMING.fixed && view.contentLength !== 3)) return undefined;
  const text = (start: number, end: number): string => head.toString('latin1', start, end);
  const fields = Array.from({ length: view.fieldCount }, (_, index) => {
    const [a = 0, b = 0, c = 0, d = 0] = view.fields.subarray(index * FIELD_STRIDE, index * FIELD_STRIDE + 4);
    return [text(a, b), text(c, d)];
  }).flat();
  const reading = {
    method: text(view.start, view.methodEnd),
    target: text(view.targetStart, view.targetEnd),
    minor: view.minor,
    fields,
    body: body === '' || view.method === METHOD.connect ? '' : 'abc',
  };
  return { reading, bytes: Buffer.concat([head, Buffer.from(body)]) };
}

async function theirReading(bytes: Buffer): Promise<Reading | string> {
  const server = createServer({ maxHeaderSize: 64 * 1024 });
  const [ours, theirs] = duplexPair();
  try {
    const result = new Promise<Reading | string>((resolve, reject) => {
      const read = async (request: IncomingMessage): Promise<void> => {
        let body = '';
        if (request.method !== 'CONNECT') for await (const piece of request) body += String(piece);
        resolve({
          method: request.method ?? '',
          target: request.url ?? '',
          minor: request.httpVersionMinor,
          fields: request.rawHeaders,
          body,
        });
      };
      const onRequest = (request: IncomingMessage): void => void read(request).catch(reject);
      server.on('request', onRequest).on('connect', onRequest).on('checkContinue', onRequest).on('checkExpectation', onRequest);
      server.on('clientError', (error) => resolve(error.message));
    });
    server.emit('connection', theirs);
    ours.write(bytes);
    return await result;
  } finally {
    ours.destroy();
    theirs.destroy();
    server.close();
    await once(server, 'close').catch(() => undefined);
  }
}

async function compare(head: Buffer): Promise<boolean> {
  const ours = ourReading(head);
  if (ours === undefined) return false;
  expect(await theirReading(ours.bytes), JSON.stringify(head.toString('latin1'))).toEqual(ours.reading);
  return true;
}

test.each(VALID_REQUESTS.filter(([, text]) => !text.includes('9007')))('Node reads as we do: %s', async (_, text) => {
  expect(await compare(Buffer.from(text, 'latin1'))).toBe(true);
});

test('Node takes whatever is left after mutation, and reads the same', async () => {
  const texts = VALID_REQUESTS.map(([, text]) => text).filter((text) => text.length < 300 && !text.includes('9007'));
  const odd = [...Buffer.from(' \t\r\n\0:,;abAB1-_/\\"\x7f\xe9', 'latin1')];
  let taken = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...texts),
      fc.array(fc.tuple(fc.integer({ min: 8, max: 300 }), fc.constantFrom(...odd)), { minLength: 1, maxLength: 2 }),
      async (text, edits) => {
        const bytes = Buffer.from(text, 'latin1');
        const first = text.indexOf(' ') + 1;
        // Methods are left alone: llhttp has a list of them.
        for (const [at, octet] of edits) bytes[first + (at % (bytes.length - first))] = octet;
        if (await compare(bytes)) taken += 1;
      },
    ),
    { numRuns: 3000 },
  );
  expect(taken).toBeGreaterThan(100);
}, 100_000);

test('none of the hostile requests is taken', () => {
  for (const [clause, text] of HOSTILE_REQUESTS) expect(ourReading(Buffer.from(text, 'latin1')), clause).toBeUndefined();
});
