/** One order, at a CA that does what no CA should. */
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { systemClock } from '#clock';
import { acmeFailure, failureFactsOf } from '#tls/acme/acme-failure.ts';
import { obtainCertificate } from '#tls/acme/issuance.ts';
import type { BegunOrder, IssuanceRequest, Proof } from '#tls/acme/issuance.ts';
import { makeChain } from '../../../support/certificate-maker.ts';
import { containing } from '../../../support/matchers.ts';
import { problem, startScriptedCa } from '../../../support/scripted-ca.ts';
import type { CaReply, ScriptedCa } from '../../../support/scripted-ca.ts';

const TOKEN = 'a-token-of-128-bits-in-base64url';

let ca: ScriptedCa;
let noted: (BegunOrder | undefined)[] = [];
let shown: Proof[] = [];
let hidden: Proof[] = [];
/** How much the CA had been asked when another order was paid for. */
let paid: number[] = [];

beforeAll(async () => {
  await import('acme-client');
});

beforeEach(async () => {
  ca = await startScriptedCa();
  noted = [];
  shown = [];
  hidden = [];
  paid = [];
});

afterEach(async () => {
  await ca[Symbol.asyncDispose]();
});

async function obtain(
  request: Partial<IssuanceRequest> = {},
  payAgain: () => Promise<void> = async () => void (await Promise.resolve(paid.push(ca.signed.length))),
): Promise<readonly string[]> {
  const { certificate } = await obtainCertificate(
    {
      clock: systemClock,
      client: await ca.client(),
      proofs: {
        show: async (proof) => void (await Promise.resolve(shown.push(proof))),
        hide: async (proof) => void (await Promise.resolve(hidden.push(proof))),
      },
      payAgain,
      note: async (begun) => void (await Promise.resolve(noted.push(begun))),
      signal: new AbortController().signal,
    },
    {
      account: `${ca.origin}/account/1`,
      names: ['a.test'],
      profile: undefined,
      replaces: undefined,
      challenges: ['http-01'],
      begun: undefined,
      ...request,
    },
  );
  return certificate.hosts;
}

async function failureOf(work: Promise<unknown>): Promise<{ readonly kind: string; readonly message: string }> {
  const error: unknown = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  return { kind: failureFactsOf(error).kind, message: error instanceof Error ? error.message : '' };
}

function order(status: string, more: object = {}): CaReply {
  const identifiers = [{ type: 'dns', value: 'a.test' }];
  const body = {
    status,
    identifiers,
    authorizations: [`${ca.origin}/authorization/1`],
    finalize: `${ca.origin}/finalize`,
    ...more,
  };
  return { status: 201, body, headers: { location: `${ca.origin}/order/1` } };
}

function authorization(status: string, kinds: readonly string[], more: object = {}): CaReply {
  const challenges = kinds.map((type) => ({ type, url: `${ca.origin}/challenge`, status: 'pending', token: TOKEN }));
  return { status: 200, body: { status, identifier: { type: 'dns', value: 'a.test' }, challenges, ...more } };
}

const CHALLENGE: CaReply = {
  status: 200,
  body: { type: 'http-01', url: 'http://127.0.0.1/c', status: 'processing', token: TOKEN },
};

describe('a certificate that comes back', () => {
  const issued = async (certPem: string): Promise<{ readonly kind: string; readonly message: string }> => {
    const certificate = `${ca.origin}/certificate`;
    ca.replies = [order('ready'), order('ready'), order('valid', { certificate }), { status: 200, body: certPem }];
    return await failureOf(obtain());
  };

  test('for another key is refused, and the order is over', async () => {
    const { leaf } = await makeChain(['a.test']);
    const { kind, message } = await issued(leaf.certPem);
    expect(kind).toBe('internal');
    expect(message).toContain('the key does not belong to the certificate');
    expect(noted.at(-1)).toBeUndefined();
  });

  test('that is none is refused', async () => {
    expect((await issued('<html></html>')).message).toContain('there is no certificate in it');
  });
});

describe('an order', () => {
  test('for other names than those that were asked for is refused', async () => {
    ca.replies = [order('pending', { identifiers: [{ type: 'dns', value: 'b.test' }] })];
    expect(await failureOf(obtain())).toMatchObject({ kind: 'ca', message: containing('other names') });
  });

  test('for a profile that the CA does not have is not made', async () => {
    expect(await failureOf(obtain({ profile: 'short' }))).toMatchObject({
      kind: 'refused',
      message: containing('no profile'),
    });
    expect(ca.signed).toEqual([]);
  });

  test('that the CA does not end is gone on with, and what it refused is over', async () => {
    ca.replies = [order('pending'), { status: 503 }];
    expect(await failureOf(obtain())).toMatchObject({ kind: 'ca' });
    expect(noted).toMatchObject([{ url: `${ca.origin}/order/1` }]);
    ca.replies = [order('pending'), { status: 403, body: problem('caa') }];
    expect(await failureOf(obtain())).toMatchObject({ kind: 'refused' });
    expect(noted.at(-1)).toBeUndefined();
  });

  test('that was begun is gone on with, without another one', async () => {
    ca.replies = [order('invalid'), order('pending'), { status: 500 }];
    await failureOf(obtain({ begun: { url: `${ca.origin}/order/0`, keyPem: 'key' } }));
    expect(ca.signed.map(({ path }) => path)).toEqual(['/order/0', '/order', '/authorization/1']);
    ca.signed = [];
    ca.replies = [order('pending'), { status: 500 }];
    await failureOf(obtain({ begun: { url: `${ca.origin}/order/0`, keyPem: 'key' } }));
    expect(ca.signed.map(({ path }) => path)).toEqual(['/order/0', '/authorization/1']);
    // For the one that was lost alone, before the next was asked for.
    expect(paid).toEqual([1]);
  });

  test('that is lost is followed by none that cannot be paid', async () => {
    ca.replies = [{ status: 404, body: problem('malformed') }];
    const unpaid = async (): Promise<void> => await Promise.reject(acmeFailure('rate-limit', 'no room'));
    const begun = { url: `${ca.origin}/order/0`, keyPem: 'key' };
    expect(await failureOf(obtain({ begun }, unpaid))).toMatchObject({ kind: 'rate-limit', message: 'no room' });
    expect(ca.signed.map(({ path }) => path)).toEqual(['/order/0']);
    expect(noted).toEqual([undefined]);
  });
});

describe('a proof', () => {
  test('is shown before the CA is told, and hidden whatever comes of it', async () => {
    const failed = [
      {
        type: 'http-01',
        url: `${ca.origin}/c`,
        status: 'invalid',
        token: TOKEN,
        error: problem('connection', 'refused by a.test'),
      },
    ];
    ca.replies = [
      order('pending'),
      authorization('pending', ['dns-01', 'http-01']),
      CHALLENGE,
      authorization('invalid', [], { challenges: failed }),
    ];
    const { kind, message } = await failureOf(obtain());
    expect(kind).toBe('validation');
    expect(message).toContain('refused by a.test');
    expect(shown).toMatchObject([{ kind: 'http-01', host: 'a.test', token: TOKEN }]);
    expect(hidden).toEqual(shown);
  });

  test('of a wildcard is by the DNS only, and that is said', async () => {
    ca.replies = [
      order('pending', { identifiers: [{ type: 'dns', value: '*.a.test' }] }),
      authorization('pending', ['dns-01', 'http-01'], { wildcard: true }),
    ];
    expect(await failureOf(obtain({ names: ['*.a.test'] }))).toMatchObject({
      kind: 'refused',
      message: containing('*.a.test none of the challenges that can be met: dns-01, http-01'),
    });
    expect(shown).toEqual([]);
  });

  test('for a host that was not asked for is not made', async () => {
    ca.replies = [order('pending'), authorization('pending', ['http-01'], { identifier: { type: 'dns', value: 'evil.test' } })];
    expect(await failureOf(obtain())).toMatchObject({ kind: 'ca', message: containing('not asked for') });
    expect(shown).toEqual([]);
  });

  test('with a token that is none is not made', async () => {
    const challenges = [{ type: 'http-01', url: `${ca.origin}/c`, status: 'pending', token: '../../etc/passwd' }];
    ca.replies = [order('pending'), authorization('pending', [], { challenges })];
    expect(await failureOf(obtain())).toMatchObject({ kind: 'ca' });
    expect(shown).toEqual([]);
  });
});
