import { describe, expect, test } from 'vitest';
import { HeadFacts } from '#proxy/head-facts.ts';

const HEAD = 'BREW / HTTP/1.1\r\nHost: a.test\r\nX-One:  1 \r\nx-one:\t2\r\nX-Empty:\r\nX-One-More: 3\r\n\r\nX-Body: 4\r\n';

describe('HeadFacts', () => {
  const headBytes = HEAD.indexOf('X-Body');
  const facts = new HeadFacts({ head: Buffer.from(HEAD), headBytes, methodEnd: 4 });

  test('tells the method as it was sent', () => {
    expect(facts.requestMethod()).toBe('BREW');
  });

  test.each([
    ['host', 'a.test'],
    ['x-one', '1, 2'],
    ['x-empty', ''],
    ['x-one-more', '3'],
    ['x-body', undefined],
    ['x', undefined],
    ['brew / http/1.1', undefined],
  ])('tells the value of %s', (name, value) => {
    expect(facts.requestField(name)).toBe(value);
  });
});
