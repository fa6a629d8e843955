/** What is said to a CA and what is made of its answers. */
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { systemClock } from '#clock';
import { failureFactsOf } from '#tls/acme/acme-failure.ts';
import { ORDER } from '#tls/acme/acme-messages.ts';
import { CaClient } from '#tls/acme/ca-client.ts';
import { newCertificateRequest } from '#tls/acme/certificate-request.ts';
import { openTransport } from '#tls/acme/ca-transport.ts';
import { containing } from '../../../support/matchers.ts';
import { problem, startScriptedCa } from '../../../support/scripted-ca.ts';
import type { CaReply, ScriptedCa } from '../../../support/scripted-ca.ts';

const EAB = { keyId: 'kid', hmacKey: Buffer.from('a key of the CA that has 32 octet').toString('base64url') };

let ca: ScriptedCa;

beforeAll(async () => {
  await import('acme-client'); // A third of a second, which no test is to be charged for.
});

beforeEach(async () => {
  ca = await startScriptedCa();
});

afterEach(async () => {
  await ca[Symbol.asyncDispose]();
});

async function newOrder(by: CaClient): Promise<unknown> {
  return await by.post(ORDER, { url: `${ca.origin}/order`, account: `${ca.origin}/account/1`, payload: { identifiers: [] } });
}

async function failureOf(work: Promise<unknown>): Promise<ReturnType<typeof failureFactsOf> & { readonly message: string }> {
  const error: unknown = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  return { ...failureFactsOf(error), message: error instanceof Error ? error.message : '' };
}

describe('nonces', () => {
  test('none is used twice, whatever the CA answers: 5xx, 429, refused nonces', async () => {
    const by = await ca.client();
    const faults: CaReply[] = [
      { status: 500, body: problem('serverInternal') },
      { status: 503 },
      { status: 429, body: problem('rateLimited'), headers: { 'retry-after': '1' } },
      { status: 400, body: problem('badNonce') },
      { status: 400, body: problem('malformed') },
    ];
    for (let round = 0; round < 60; round += 1) {
      ca.replies = Array.from({ length: round % 3 }, (_, index) => faults[(round + index) % faults.length] ?? { status: 500 });
      await newOrder(by).catch(() => undefined);
    }
    expect(ca.signed.length).toBeGreaterThan(60);
    expect(new Set(ca.signed.map(({ nonce }) => nonce)).size).toBe(ca.signed.length);
  });

  test('what failed is not sent again by itself', async () => {
    const by = await ca.client();
    for (const status of [500, 503, 429]) {
      ca.signed = [];
      ca.replies = [{ status }];
      expect((await failureOf(newOrder(by))).message).toContain(String(status));
      expect(ca.signed.length).toBe(1);
    }
  });

  test('a refused nonce is answered with the fresh one, a bounded number of times', async () => {
    const by = await ca.client();
    ca.replies = Array.from({ length: 5 }, () => ({ status: 400, body: problem('badNonce') }));
    await newOrder(by);
    expect(ca.signed.length).toBe(6);
    ca.signed = [];
    ca.replies = Array.from({ length: 100 }, () => ({ status: 400, body: problem('badNonce') }));
    expect(await failureOf(newOrder(by))).toMatchObject({ kind: 'ca', problem: 'badNonce' });
    expect(ca.signed.length).toBe(21);
    expect(new Set(ca.signed.map(({ nonce }) => nonce)).size).toBe(21);
  });
});

describe('the account', () => {
  test('is made with its key, the contact, and the binding that the CA wants', async () => {
    expect(await (await ca.client(EAB)).openAccount()).toBe(`${ca.origin}/account/1`);
    expect(ca.signed[0]).toMatchObject({ isByKey: true, path: '/account' });
    const sent = ca.signed[0]?.payload ?? '';
    expect(JSON.parse(sent)).toMatchObject({ termsOfServiceAgreed: true, contact: ['mailto:ops@example.com'] });
    expect(sent).toMatch(/"externalAccountBinding":\{"payload":"ey[^"]+","protected":"ey[^"]+","signature":"[^"]+"\}/);
  });

  test('without a binding that the CA wants nothing is sent', async () => {
    ca.directory = { ...Object(ca.directory), meta: { externalAccountRequired: true } };
    expect(await failureOf((await ca.client()).openAccount())).toMatchObject({ kind: 'refused' });
    expect(ca.signed).toEqual([]);
  });
});

describe('a CA that is wrong, or lies', () => {
  test.each([
    ['is a page of HTML', '<html>Welcome</html>', 'sent as directory what is none'],
    ['has no newOrder', { newNonce: 'x', newAccount: 'y' }, 'sent as directory what is none'],
    ['is too long', `"${'x'.repeat(300_000)}"`, 'more than 256 KiB'],
  ])('a directory that %s', async (_, text, message) => {
    ca.directory = text;
    expect(await failureOf((await ca.client()).directory())).toMatchObject({
      kind: 'ca',
      message: containing(message),
    });
  });

  test('a directory that leads to somebody else is not followed', async () => {
    ca.directory = { ...Object(ca.directory), newOrder: 'https://169.254.169.254/order' };
    const { kind, message } = await failureOf(newOrder(await ca.client()));
    expect(kind).toBe('ca');
    expect(message).toContain('not of its own origin');
    expect(ca.signed).toEqual([]);
  });

  test('an order that leads elsewhere is not followed either', async () => {
    const by = await ca.client();
    expect((await failureOf(by.download('http://127.0.0.1:1/cert', `${ca.origin}/account/1`))).message).toContain('own origin');
    expect(ca.signed).toEqual([]);
  });

  test('an order that is none, and a problem with what could move a terminal', async () => {
    const by = await ca.client();
    ca.replies = [
      { status: 201, body: { status: 'fine' } },
      { status: 403, body: problem('unauthorized', 'a\u001b[2Jb') },
    ];
    expect(await failureOf(newOrder(by))).toMatchObject({ kind: 'ca' });
    const { kind, message } = await failureOf(newOrder(by));
    expect(kind).toBe('refused');
    expect(message).not.toContain('\u001b');
  });

  test('one that is not there', async () => {
    const { send } = openTransport('http://127.0.0.1:1/directory', undefined);
    const by = await CaClient.open(
      { clock: systemClock, send },
      { directory: 'http://127.0.0.1:1/directory', email: undefined, eab: undefined },
      (await newCertificateRequest(['a.test'])).keyPem,
    );
    expect(await failureOf(by.directory())).toMatchObject({ kind: 'ca', message: containing('ECONNREFUSED') });
  });
});

test('what a CA says of waiting is known', async () => {
  const by = await ca.client();
  ca.replies = [{ status: 429, body: problem('rateLimited'), headers: { 'retry-after': '120' } }];
  expect(await failureOf(newOrder(by))).toMatchObject({ kind: 'rate-limit', retryAfterMs: 120_000, problem: 'rateLimited' });
});
