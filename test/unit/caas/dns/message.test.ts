/** DNS messages: well-formed, malformed, hostile. A client library judges what we write in responder.test.ts. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { addressRecord, forwardOf, isAnswerTo, nameRecord, parseQuery, passedOn, replyTo } from '#caas/dns/message.ts';
import type { DnsQuery } from '#caas/dns/message.ts';

/** A query by hand: header, one question, what follows. */
function queryBytes(
  options: { name?: Buffer; flags?: number; counts?: readonly number[]; rest?: Buffer; type?: number } = {},
): Buffer {
  const header = Buffer.alloc(12);
  header.writeUInt16BE(0xbeef, 0);
  header.writeUInt16BE(options.flags ?? 0x0100, 2);
  for (const [index, count] of (options.counts ?? [1, 0, 0, 0]).entries()) header.writeUInt16BE(count, 4 + index * 2);
  const tail = Buffer.from([0, options.type ?? 1, 0, 1]);
  return Buffer.concat([header, options.name ?? wire('Web.Test'), tail, options.rest ?? Buffer.alloc(0)]);
}

function wire(name: string): Buffer {
  const labels = name.split('.').map((label) => Buffer.from(label, 'latin1'));
  return Buffer.concat([...labels.flatMap((label) => [Buffer.from([label.length]), label]), Buffer.from([0])]);
}

/** OPT with the size that the client takes, version and flags. */
function opt(size: number, ttl = 0): Buffer {
  const bytes = Buffer.alloc(11);
  bytes.writeUInt16BE(41, 1);
  bytes.writeUInt16BE(size, 3);
  bytes.writeUInt32BE(ttl, 5);
  return bytes;
}

function parsed(message: Buffer): DnsQuery {
  const result = parseQuery(message);
  if (result.kind !== 'query') throw new Error(`it is ${result.kind}`);
  return result.query;
}

/** The code of a refusal, or what became of the message. */
function outcome(message: Buffer): number | string {
  const result = parseQuery(message);
  if (result.kind !== 'refused') return result.kind;
  expect(result.reply.readUInt16BE(0)).toBe(message.readUInt16BE(0));
  expect(result.reply.readUInt16BE(2) & 0x8000).toBe(0x8000);
  return result.reply.readUInt16BE(2) & 15;
}

describe('parseQuery()', () => {
  test('reads name, type, and what the client takes', () => {
    expect(parsed(queryBytes())).toMatchObject({
      id: 0xbeef,
      name: 'web.test',
      type: 1,
      isInternet: true,
      hasOptions: false,
      udpBytesMax: 512,
    });
    const withOptions = queryBytes({ counts: [1, 0, 0, 1], rest: opt(65_535, 0x8000) });
    expect(parsed(withOptions)).toMatchObject({ hasOptions: true, wantsDnssec: true, udpBytesMax: 1232 });
    expect(parsed(queryBytes({ counts: [1, 0, 0, 1], rest: opt(1) })).udpBytesMax).toBe(512);
    expect(parsed(queryBytes({ name: Buffer.from([0]) })).name).toBe('');
  });

  test('has no name for a label that could be taken for something else', () => {
    expect(
      parsed(queryBytes({ name: Buffer.concat([Buffer.from([8]), Buffer.from('web.test'), Buffer.from([0])]) })).name,
    ).toBeUndefined();
    expect(parsed(queryBytes({ name: wire('a\0b') })).name).toBeUndefined();
    expect(parsed(queryBytes({ name: wire('caf\xe9') })).name).toBeUndefined();
  });

  test.each([
    ['shorter than a header', queryBytes().subarray(0, 11), 'noise'],
    ['nothing', Buffer.alloc(0), 'noise'],
    ['an answer', queryBytes({ flags: 0x8180 }), 'noise'],
    ['another operation', queryBytes({ flags: 0x2800 }), 4],
    ['no question', queryBytes({ counts: [0, 0, 0, 0] }), 1],
    ['two questions', queryBytes({ counts: [2, 0, 0, 0] }), 1],
    ['an answer section', queryBytes({ counts: [1, 1, 0, 0] }), 1],
    ['a name that points to itself', queryBytes({ name: Buffer.from([0xc0, 12]) }), 1],
    ['a label that is longer than the message', queryBytes({ name: Buffer.from([63, 97]) }), 1],
    ['a label length that does not exist', queryBytes({ name: Buffer.from([0x40, 97, 0]) }), 1],
    ['a name of 256 bytes', queryBytes({ name: wire(Array.from({ length: 127 }, () => 'a').join('.') + 'b') }), 1],
    ['bytes behind its end', queryBytes({ rest: Buffer.from([1]) }), 1],
    ['a record that is not there', queryBytes({ counts: [1, 0, 0, 9] }), 1],
    ['two sets of options', queryBytes({ counts: [1, 0, 0, 2], rest: Buffer.concat([opt(512), opt(512)]) }), 1],
    ['a version of options to come', queryBytes({ counts: [1, 0, 0, 1], rest: opt(512, 0x0001_0000) }), 0],
  ])('refuses %s', (_what, message, expected) => {
    expect(outcome(message)).toBe(expected);
  });

  test('says of a version to come that it is that', () => {
    const result = parseQuery(queryBytes({ counts: [1, 0, 0, 1], rest: opt(512, 0x0001_0000) }));
    // The upper bits of the code are in the answer's own options.
    expect(result.kind === 'refused' && result.reply.at(-6)).toBe(1);
  });

  test('takes a name of 255 bytes', () => {
    const name = wire(Array.from({ length: 127 }, () => 'a').join('.'));
    expect(name).toHaveLength(255);
    expect(parsed(queryBytes({ name })).question).toHaveLength(259);
  });

  test('never throws, whatever the bytes, and answers with an answer', () => {
    const whole = queryBytes({ counts: [1, 0, 0, 1], rest: opt(1232) });
    const broken = fc
      .tuple(
        fc.nat(whole.length),
        fc.array(fc.tuple(fc.nat(whole.length - 1), fc.integer({ min: 0, max: 255 })), { maxLength: 4 }),
      )
      .map(([length, changes]) => {
        const bytes = Buffer.from(whole);
        for (const [at, value] of changes) bytes[at] = value;
        return bytes.subarray(0, length);
      });
    const noise = fc.uint8Array({ maxLength: 600 }).map((bytes) => Buffer.from(bytes));
    fc.assert(
      fc.property(fc.oneof(broken, noise), (message) => {
        const result = parseQuery(message);
        expect(result.kind !== 'refused' || (result.reply.readUInt16BE(2) & 0x8000) !== 0).toBe(true);
        expect(result.kind !== 'query' || result.query.question.length <= 259).toBe(true);
        expect(isAnswerTo(parsed(queryBytes()), 0xbeef, message)).toBe(false);
      }),
    );
  });
});

describe('replyTo()', () => {
  test('says where it had to stop', () => {
    const query = parsed(queryBytes());
    const records = Array.from({ length: 40 }, (_, index) => addressRecord(`10.90.4.${String(index)}`, 2));
    const reply = replyTo(query, 0, records);
    expect(reply.length).toBeLessThanOrEqual(512);
    expect(reply.readUInt16BE(2) & 0x0200).toBe(0x0200);
    expect(reply.readUInt16BE(6)).toBe(Math.floor((512 - 12 - query.question.length) / 16));
    expect(replyTo(query, 0, records, 65_535).readUInt16BE(6)).toBe(40);
    expect(replyTo(query, 0, records, 65_535).readUInt16BE(2) & 0x0200).toBe(0);
  });

  test('repeats the question as it was spelt', () => {
    expect(replyTo(parsed(queryBytes()), 0, []).toString('latin1')).toContain('\u0003Web\u0004Test\0');
  });
});

test('nameRecord() writes what DNS can write, and nothing else', () => {
  expect(nameRecord('web.front', 2)?.toString('latin1')).toContain('\u0003web\u0005front\0');
  for (const name of ['', 'a..b', 'a'.repeat(64), 'a.'.repeat(127) + 'aa']) expect(nameRecord(name, 2), name).toBeUndefined();
});

describe('isAnswerTo()', () => {
  const query = parsed(queryBytes());
  const good = (): Buffer => {
    const answer = replyTo(query, 0, [addressRecord('192.0.2.7', 60)]);
    answer.writeUInt16BE(77, 0);
    return answer;
  };

  test('believes the answer to its own question, spelt as you like', () => {
    expect(isAnswerTo(query, 77, good())).toBe(true);
    expect(isAnswerTo(query, 77, Buffer.from(good().toString('latin1').replace('Web', 'wEB'), 'latin1'))).toBe(true);
  });

  test.each([
    ['another id', (answer: Buffer) => answer.writeUInt16BE(78, 0)],
    ['a question', (answer: Buffer) => answer.writeUInt16BE(0x0100, 2)],
    ['another name', (answer: Buffer) => answer.write('Wob', 13)],
    ['another type', (answer: Buffer) => answer.writeUInt16BE(28, 22)],
    ['no question', (answer: Buffer) => answer.writeUInt16BE(0, 4)],
    ['more records than there are', (answer: Buffer) => answer.writeUInt16BE(2, 6)],
    ['fewer records than there are', (answer: Buffer) => answer.writeUInt16BE(0, 6)],
  ])('does not believe %s', (_what, change) => {
    const answer = good();
    change(answer);
    expect(isAnswerTo(query, 77, answer)).toBe(false);
  });

  test('does not believe a part of an answer', () => {
    for (let length = 0; length < good().length; length += 1)
      expect(isAnswerTo(query, 77, good().subarray(0, length))).toBe(false);
  });
});

test('passedOn() gives the client’s own id and question back, and cuts what it cannot take', () => {
  const query = parsed(queryBytes());
  const records = Array.from({ length: 60 }, (_, index) => addressRecord(`192.0.2.${String(index)}`, 60));
  const long = replyTo(query, 0, records, 65_535);
  long.writeUInt16BE(77, 0);
  expect(passedOn(query, long, 65_535).readUInt16BE(0)).toBe(0xbeef);
  const cut = passedOn(query, long);
  expect(cut.length).toBeLessThanOrEqual(512);
  expect([cut.readUInt16BE(0), cut.readUInt16BE(2) & 0x0200, cut.readUInt16BE(6)]).toEqual([0xbeef, 0x0200, 0]);
});

test('forwardOf() asks the question and nothing else of the client’s', () => {
  const secret = Buffer.concat([opt(4096, 0x8000).subarray(0, 9), Buffer.from([0, 6]), Buffer.from('secret')]);
  const query = parsed(queryBytes({ flags: 0x0130, counts: [1, 0, 0, 1], rest: secret }));
  const forward = forwardOf(query, 5);
  expect(forward.toString('latin1')).not.toContain('secret');
  expect(parsed(forward)).toMatchObject({ id: 5, flags: 0x0110, name: 'web.test', wantsDnssec: true, udpBytesMax: 1232 });
});
