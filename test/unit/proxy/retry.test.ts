import { describe, expect, test } from 'vitest';
import { mayRetry } from '#proxy/retry.ts';

const REUSED_DIED = {
  error: 'upstream-reset',
  method: 'GET',
  connected: true,
  reusedConnection: true,
  responseBytes: false,
  bodyBytesSent: 0,
} as const;

describe('mayRetry()', () => {
  test.each([
    ['an idle connection died under a GET', {}, true],
    ['it died under a POST', { method: 'POST' }, false],
    ['a new connection died', { reusedConnection: false }, false],
    ['a response had begun', { responseBytes: true }, false],
    ['a body byte was sent', { method: 'PUT', bodyBytesSent: 1 }, false],
    ['a POST was never sent', { method: 'POST', connected: false, error: 'connect-failed' }, true],
    ['it took too long', { error: 'first-byte-timeout' }, false],
    ['a freeze cut it', { error: 'cut-by-freeze' }, false],
  ] as const)('when %s', (_title, change, expected) => {
    expect(mayRetry({ ...REUSED_DIED, ...change })).toBe(expected);
  });
});
