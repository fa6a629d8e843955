/** The CA of our tests itself: that it issues what is right, and refuses what a CA must refuse. What it lets through, no test of the engine would find. */
import { X509Certificate, createHash, webcrypto } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { systemClock } from '#clock';
import { startAcmeCa } from '../../support/acme-ca/acme-ca.ts';
import type { AcmeCa } from '../../support/acme-ca/acme-ca.ts';
import type { AcmeCaOptions } from '../../support/acme-ca/ca-state.ts';
import {
  AcmeSubscriber,
  authorizationSchema,
  csrFor,
  newAccountKey,
  orderSchema,
  problemOf,
  renewalIdOf,
} from '../../support/acme-subscriber.ts';
import { startAcmeResponder } from '../../support/acme-responder.ts';
import type { AcmeResponder } from '../../support/acme-responder.ts';
import { SimulatedClock } from '../../support/simulated-clock.ts';

const START_MS = Date.UTC(2027, 0, 1);
const DAY_MS = 86_400_000;
const HOUR_MS = 3_600_000;

interface Scene extends AsyncDisposable {
  readonly ca: AcmeCa;
  readonly clock: SimulatedClock;
  readonly responder: AcmeResponder;
  readonly subscriber: AcmeSubscriber;
}

/** A CA whose time stands still but for `clock`, a host that has every name, and a subscriber with an account. */
async function openScene(options: Partial<AcmeCaOptions> = {}): Promise<Scene> {
  await using stack = new AsyncDisposableStack();
  const clock = stack.use(new SimulatedClock(START_MS));
  const responder = stack.use(await startAcmeResponder());
  const ca = stack.use(await startAcmeCa({ clock, resolver: responder.resolver, ...options }));
  const subscriber = stack.use(new AcmeSubscriber(ca.directoryUrl, ca.serverCaPem, { clock }));
  if (options.externalAccounts === undefined) await subscriber.register();
  const open = stack.move();
  return {
    ca,
    clock,
    responder,
    subscriber,
    [Symbol.asyncDispose]: async () => {
      await open.disposeAsync();
    },
  };
}

async function obtain({ subscriber, responder, clock }: Scene, names: readonly string[], more = {}): Promise<string> {
  const work = subscriber.obtain(names, {
    type: 'http-01',
    answer: (_name, token, text) => {
      responder.http.set(token, text);
    },
    more,
  });
  return (await clock.during(work, DAY_MS)).chainPem;
}

/** An order whose names are all validated. */
async function readyOrder({ subscriber, responder, clock }: Scene, names: readonly string[]): Promise<string> {
  const { authorizations, finalize } = orderSchema.parse((await subscriber.newOrder(names)).json);
  for (const url of authorizations) {
    const challenge = await challengeOf(subscriber, url, 'http-01');
    responder.http.set(challenge.token, subscriber.keyAuthorization(challenge.token));
    await subscriber.post(challenge.url, {});
    await clock.during(subscriber.until(url, ['valid']), HOUR_MS);
  }
  return finalize;
}

async function challengeOf(
  subscriber: AcmeSubscriber,
  url: string,
  type: string,
): Promise<{ readonly url: string; readonly token: string }> {
  const { challenges } = authorizationSchema.parse((await subscriber.post(url, undefined)).json);
  const challenge = challenges.find((one) => one.type === type);
  if (challenge === undefined) throw new Error(`no ${type}`);
  return challenge;
}

/** The status of an authorization after one challenge was looked at. */
async function outcomeOf({ subscriber, clock }: Scene, name: string, type: string): Promise<string> {
  const { authorizations } = orderSchema.parse((await subscriber.newOrder([name])).json);
  const url = authorizations[0] ?? '';
  const challenge = await challengeOf(subscriber, url, type);
  await subscriber.post(challenge.url, {});
  const reply = await clock.during(subscriber.until(url, ['valid', 'invalid']), HOUR_MS);
  return authorizationSchema.parse(reply.json).status;
}

function leafOf(chainPem: string): X509Certificate {
  return new X509Certificate(chainPem);
}

describe('it issues', () => {
  test('over HTTP-01, TLS-ALPN-01 and DNS-01, for 45 days and for 6', async () => {
    await using scene = await openScene();
    const { subscriber, responder, clock, ca } = scene;
    const leaf = leafOf(await obtain(scene, ['a.test', 'www.a.test']));
    expect(leaf.subjectAltName?.replaceAll('"', '')).toBe('DNS:a.test, DNS:www.a.test');
    expect(leaf.validToDate.getTime() - leaf.validFromDate.getTime()).toBe(45 * DAY_MS);
    expect(leaf.validFromDate.getTime()).toBe(clock.nowMs() - (clock.nowMs() % 1_000) - HOUR_MS);
    const answer = async (name: string, _token: string, text: string): Promise<void> => {
      await responder.tls(name, text);
    };
    const more = { profile: 'shortlived' };
    const short = await clock.during(subscriber.obtain(['b.test'], { type: 'tls-alpn-01', answer, more }), DAY_MS);
    const shortLeaf = leafOf(short.chainPem);
    expect(shortLeaf.validToDate.getTime() - shortLeaf.validFromDate.getTime()).toBe(6 * DAY_MS);
    const record = (name: string, _token: string, text: string): void => {
      responder.txt.set(`_acme-challenge.${name}`, [createHash('sha256').update(text).digest('base64url')]);
    };
    const wild = await clock.during(subscriber.obtain(['*.c.test', 'c.test'], { type: 'dns-01', answer: record }), DAY_MS);
    expect(leafOf(wild.chainPem).checkHost('x.c.test')).toBe('*.c.test');
    const [, intermediatePem] = wild.chainPem.split(/(?<=-----END CERTIFICATE-----\n)/);
    const [intermediate, root] = [leafOf(intermediatePem ?? ''), leafOf(ca.rootPem)];
    expect(leafOf(wild.chainPem).verify(intermediate.publicKey) && intermediate.verify(root.publicKey)).toBe(true);
    expect(ca.record.certificates.map(({ names }) => names)).toEqual([
      ['a.test', 'www.a.test'],
      ['b.test'],
      ['*.c.test', 'c.test'],
    ]);
    expect([ca.record.noncesReused, ca.record.noncesUnknown, ca.record.duplicates]).toEqual([0, 0, []]);
  });

  test('uses a valid authorization again, as long as it says', async () => {
    await using scene = await openScene();
    await obtain(scene, ['a.test']);
    const status = async (): Promise<string> => orderSchema.parse((await scene.subscriber.newOrder(['a.test'])).json).status;
    expect(await status()).toBe('ready');
    await scene.clock.advance(7 * HOUR_MS);
    expect(await status()).toBe('pending');
  });

  test('with an external account where it wants one', async () => {
    const key = Buffer.from('a key that was given').toString('base64url');
    await using scene = await openScene({ externalAccounts: new Map([['kid-1', key]]) });
    const { subscriber, ca } = scene;
    expect(problemOf(await subscriber.register())).toBe('externalAccountRequired');
    expect(problemOf(await subscriber.register({ kid: 'kid-1', key: Buffer.from('another').toString('base64url') }))).toBe(
      'unauthorized',
    );
    expect(problemOf(await subscriber.register({ kid: 'kid-2', key }))).toBe('unauthorized');
    expect((await subscriber.register({ kid: 'kid-1', key })).status).toBe(201);
    subscriber.accountUrl = undefined;
    expect((await subscriber.register()).status).toBe(200);
    expect(ca.accounts().map(({ externalId }) => externalId)).toEqual(['kid-1']);
  });

  test('revokes for the account that has it', async () => {
    await using scene = await openScene();
    const { subscriber, ca } = scene;
    const certificate = leafOf(await obtain(scene, ['a.test'])).raw.toString('base64url');
    const { revokeCert } = await subscriber.directory();
    using other = new AcmeSubscriber(ca.directoryUrl, ca.serverCaPem, { clock: scene.clock });
    await other.register();
    expect(problemOf(await other.post(revokeCert, { certificate }))).toBe('unauthorized');
    expect((await subscriber.post(revokeCert, { certificate })).status).toBe(200);
    expect(problemOf(await subscriber.post(revokeCert, { certificate }))).toBe('alreadyRevoked');
  });
});

describe('it refuses requests', () => {
  test('whose signature, key, url or kind is wrong', async () => {
    await using scene = await openScene();
    const { subscriber } = scene;
    const { newOrder } = await subscriber.directory();
    const payload = { identifiers: [{ type: 'dns', value: 'a.test' }] };
    const crooked = async (...[how]: [Parameters<AcmeSubscriber['postOnce']>[2]]): Promise<string | undefined> =>
      problemOf(await subscriber.postOnce(newOrder, payload, how));
    expect(await crooked({ signedBy: newAccountKey() })).toBe('malformed');
    expect(await crooked({ alg: 'none' })).toBe('badSignatureAlgorithm');
    expect(await crooked({ alg: 'RS256' })).toBe('malformed');
    expect(await crooked({ url: newOrder.replace('new-order', 'new-account') })).toBe('unauthorized');
    expect(await crooked({ withJwk: true })).toBe('malformed');
    expect((await subscriber.postOnce(newOrder, payload, { contentType: 'application/json' })).status).toBe(415);
    expect(await crooked({})).toBeUndefined();
    expect(scene.ca.record.orders.length).toBe(1);
  });

  test('with a nonce that was used, also where the first one failed, and counts it', async () => {
    await using scene = await openScene();
    const { subscriber, ca } = scene;
    const { newOrder } = await subscriber.directory();
    const payload = { identifiers: [{ type: 'dns', value: 'a.test' }] };
    const nonce = await subscriber.newNonce();
    expect((await subscriber.postOnce(newOrder, payload, { nonce })).status).toBe(201);
    expect(problemOf(await subscriber.postOnce(newOrder, payload, { nonce }))).toBe('badNonce');
    expect(problemOf(await subscriber.postOnce(newOrder, payload, { nonce: 'bm9uZQ' }))).toBe('badNonce');
    expect([ca.record.noncesReused, ca.record.noncesUnknown]).toEqual([1, 1]);
    ca.faults.serverErrorRate = 1;
    const another = await subscriber.newNonce();
    expect((await subscriber.postOnce(newOrder, payload, { nonce: another })).status).toBe(500);
    ca.faults.serverErrorRate = 0;
    expect(problemOf(await subscriber.postOnce(newOrder, payload, { nonce: another }))).toBe('badNonce');
    expect(ca.record.noncesReused).toBe(2);
  });

  test('for what is of another account', async () => {
    await using scene = await openScene();
    const { subscriber, ca } = scene;
    const order = await subscriber.newOrder(['a.test']);
    using other = new AcmeSubscriber(ca.directoryUrl, ca.serverCaPem, { clock: scene.clock });
    await other.register();
    expect(problemOf(await other.post(order.headers.location ?? '', undefined))).toBe('unauthorized');
    expect(problemOf(await other.post(orderSchema.parse(order.json).authorizations[0] ?? '', undefined))).toBe('unauthorized');
  });

  test('for names that it does not know or does not like, and for profiles that it does not have', async () => {
    await using scene = await openScene({ refusedNames: ['evil.test'] });
    const problem = async (names: readonly string[], more = {}): Promise<string | undefined> =>
      problemOf(await scene.subscriber.newOrder(names, more));
    expect(await problem(['www.evil.test'])).toBe('rejectedIdentifier');
    expect(await problem(['local'])).toBe('rejectedIdentifier');
    expect(await problem(['a b.test'])).toBe('rejectedIdentifier');
    expect(await problem(['192.0.2.1'])).toBe('unsupportedIdentifier');
    expect(await problem([])).toBe('malformed');
    expect(await problem(['a.test', 'A.test'])).toBe('malformed');
    expect(await problem(['a.test'], { profile: 'none' })).toBe('invalidProfile');
    expect(await problem(['a.test'], { notAfter: '2027-02-01T00:00:00Z' })).toBe('malformed');
  });
});

describe('it refuses to validate', () => {
  test('another key authorization, a missing one, and a name that is nowhere', async () => {
    await using scene = await openScene();
    const { responder, subscriber, clock, ca } = scene;
    const { authorizations } = orderSchema.parse((await subscriber.newOrder(['a.test'])).json);
    const { token, url } = await challengeOf(subscriber, authorizations[0] ?? '', 'http-01');
    responder.http.set(token, `${token}.of-another-key`);
    await subscriber.post(url, {});
    const reply = await clock.during(subscriber.until(authorizations[0] ?? '', ['valid', 'invalid']), HOUR_MS);
    expect(reply.json).toHaveProperty('status', 'invalid');
    expect(reply.text).toContain('a.test answers with another key authorization');
    expect(await outcomeOf(scene, 'b.test', 'http-01')).toBe('invalid');
    expect(await outcomeOf(scene, 'c.test', 'dns-01')).toBe('invalid');
    expect(ca.record.failedValidations).toBe(3);
  });

  test('certificates of challenges with other names, without the mark, and with that of another key', async () => {
    await using scene = await openScene();
    const { responder, subscriber, clock } = scene;
    const outcome = async (name: string, answer: (text: string) => Promise<void>): Promise<string> => {
      const { authorizations } = orderSchema.parse((await subscriber.newOrder([name])).json);
      const { token, url } = await challengeOf(subscriber, authorizations[0] ?? '', 'tls-alpn-01');
      await answer(subscriber.keyAuthorization(token));
      await subscriber.post(url, {});
      const reply = await clock.during(subscriber.until(authorizations[0] ?? '', ['valid', 'invalid']), HOUR_MS);
      return authorizationSchema.parse(reply.json).status;
    };
    expect(await outcome('a.test', (text) => responder.tls('a.test', text, { names: ['a.test', 'b.test'] }))).toBe('invalid');
    expect(await outcome('b.test', (text) => responder.tls('b.test', text, { names: ['x.test'] }))).toBe('invalid');
    expect(await outcome('c.test', (text) => responder.tls('c.test', text, { isCritical: false }))).toBe('invalid');
    expect(await outcome('d.test', () => responder.tls('d.test', 'another'))).toBe('invalid');
    expect(await outcome('e.test', async () => undefined)).toBe('invalid');
    expect(await outcome('f.test', (text) => responder.tls('f.test', text))).toBe('valid');
  });

  test('a wildcard over anything but the DNS', async () => {
    await using scene = await openScene();
    const { authorizations } = orderSchema.parse((await scene.subscriber.newOrder(['*.a.test'])).json);
    const { challenges, wildcard } = authorizationSchema.parse(
      (await scene.subscriber.post(authorizations[0] ?? '', undefined)).json,
    );
    expect([challenges.map(({ type }) => type), wildcard]).toEqual([['dns-01'], true]);
  });
});

describe('it refuses to finalize', () => {
  test('before the names are validated, and certificate requests that are not of the order', async () => {
    await using scene = await openScene();
    const { subscriber } = scene;
    const early = orderSchema.parse((await subscriber.newOrder(['early.test'])).json).finalize;
    const csr = async (names: readonly string[], keys?: webcrypto.CryptoKeyPair): Promise<{ csr: string }> => ({
      csr: (await csrFor(names, keys)).toString('base64url'),
    });
    expect(problemOf(await subscriber.post(early, await csr(['early.test'])))).toBe('orderNotReady');
    const finalize = await readyOrder(scene, ['a.test', 'b.test']);
    const refused = async (body: unknown): Promise<string | undefined> => problemOf(await subscriber.post(finalize, body));
    expect(await refused(await csr(['a.test']))).toBe('badCSR');
    expect(await refused(await csr(['a.test', 'b.test', 'c.test']))).toBe('badCSR');
    const broken = await csrFor(['a.test', 'b.test']);
    broken.writeUInt8(broken.readUInt8(broken.length - 1) ^ 1, broken.length - 1);
    expect(await refused({ csr: broken.toString('base64url') })).toBe('badCSR');
    expect(await refused({ csr: 'AAAA' })).toBe('badCSR');
    const privateKey = subscriber.key.toCryptoKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign']);
    const { x, y } = subscriber.key.export({ format: 'jwk' });
    const jwk = { kty: 'EC', crv: 'P-256', x: x ?? '', y: y ?? '' };
    const publicKey = await webcrypto.subtle.importKey('jwk', jwk, { name: 'ECDSA', namedCurve: 'P-256' }, true, ['verify']);
    expect(await refused(await csr(['a.test', 'b.test'], { privateKey, publicKey }))).toBe('badCSR');
    expect(await refused(await csr(['b.test', 'a.test']))).toBeUndefined();
    expect(await refused(await csr(['b.test', 'a.test']))).toBe('orderNotReady');
    expect(scene.ca.record.certificates.length).toBe(1);
  });
});

describe('renewal information', () => {
  test('has a window that moves, and orders that replace are checked and free of limits within it', async () => {
    await using scene = await openScene();
    const { subscriber, ca, clock } = scene;
    const renewalId = renewalIdOf(await obtain(scene, ['a.test']));
    const [certificate] = ca.record.certificates;
    expect(certificate?.renewalId).toBe(renewalId);
    const window = await subscriber.renewalWindow(renewalId);
    expect([(window.startMs - START_MS) / DAY_MS, window.retryAfter]).toEqual([expect.closeTo(29, 0), '21600']);
    ca.moveWindows(() => ({ startMs: clock.nowMs(), endMs: clock.nowMs() + DAY_MS }));
    expect((await subscriber.renewalWindow(renewalId)).startMs).toBe(clock.nowMs());
    expect((await subscriber.send('GET', `${(await subscriber.directory()).renewalInfo}/AAAA.AAAA`)).status).toBe(404);
    const replaces = { replaces: renewalId };
    expect(problemOf(await subscriber.newOrder(['b.test'], replaces))).toBe('malformed');
    expect(problemOf(await subscriber.newOrder(['a.test'], { replaces: 'AAAA.AAAA' }))).toBe('malformed');
    using other = new AcmeSubscriber(ca.directoryUrl, ca.serverCaPem, { clock });
    await other.register();
    expect(problemOf(await other.newOrder(['a.test'], replaces))).toBe('unauthorized');
    await obtain(scene, ['a.test'], replaces);
    expect(ca.record.orders.at(-1)?.renewal).toBe('ari');
    const conflict = await subscriber.newOrder(['a.test'], replaces);
    expect([conflict.status, problemOf(conflict)]).toEqual([409, 'alreadyReplaced']);
  });

  test('an order outside of the window is no renewal that is free of all limits', async () => {
    await using scene = await openScene();
    const renewalId = renewalIdOf(await obtain(scene, ['a.test']));
    await scene.clock.advance(40 * DAY_MS);
    await obtain(scene, ['a.test'], { replaces: renewalId });
    expect(scene.ca.record.orders.map(({ renewal }) => renewal)).toEqual(['none', 'same-names']);
  });
});

describe('limits', () => {
  test('300 orders, 5 of the same names, 5 failed validations and 10 accounts; each breach is counted', async () => {
    await using scene = await openScene();
    const { subscriber, ca, clock } = scene;
    for (let index = 0; index < 5; index += 1) await obtain(scene, ['same.test']);
    const sixth = await subscriber.newOrder(['same.test']);
    expect([sixth.status, problemOf(sixth), sixth.headers['retry-after']]).toEqual([
      429,
      'rateLimited',
      expect.stringMatching(/^1209\d\d$/),
    ]);
    for (let index = 0; index < 5; index += 1) await outcomeOf(scene, 'failing.test', 'http-01');
    expect(problemOf(await subscriber.newOrder(['failing.test']))).toBe('rateLimited');
    await clock.advance(4 * HOUR_MS);
    for (let index = 0; index < 300; index += 1)
      expect((await subscriber.newOrder([`h.d${String(index)}.test`])).status).toBe(201);
    expect(problemOf(await subscriber.newOrder(['h.d300.test']))).toBe('rateLimited');
    for (let index = 0; index < 11; index += 1) {
      using other = new AcmeSubscriber(ca.directoryUrl, ca.serverCaPem, { clock });
      expect((await other.register()).status).toBe(index < 10 ? 201 : 429);
    }
    expect(ca.record.overLimit).toEqual({
      newOrders: 1,
      domainCertificates: 0,
      sameNames: 1,
      failedValidations: 1,
      newAccounts: 1,
    });
  });

  test('50 certificates of a registered domain in a week', async () => {
    await using scene = await openScene();
    for (let index = 0; index < 50; index += 1) await obtain(scene, [`h${String(index)}.many.test`]);
    const reply = await scene.subscriber.newOrder(['h50.many.test']);
    expect([reply.status, scene.ca.record.overLimit.domainCertificates]).toEqual([429, 1]);
    await scene.clock.advance(Number(reply.headers['retry-after']) * 1_000);
    await obtain(scene, ['h50.many.test']);
    expect(scene.ca.limiter.mostOf('domainCertificates')).toBe(51); // A bucket: within a week that began before it was full.
  });
});

describe('faults', () => {
  test('nonces that it does not like, errors, and slow orders are got over', async () => {
    await using scene = await openScene({ pollSeconds: 60 });
    const { ca, clock } = scene;
    Object.assign(ca.faults, { nonceRejectionRate: 0.5, serverErrorRate: 0.2, processingMs: 30 * 60_000 });
    const before = clock.nowMs();
    for (let index = 0; index < 5; index += 1) await obtain(scene, [`h${String(index)}.test`]);
    expect(clock.nowMs() - before).toBeGreaterThanOrEqual(5 * 30 * 60_000);
    expect([ca.record.madeUp.badNonces > 5, ca.record.madeUp.serverErrors > 2, ca.record.noncesReused]).toEqual([true, true, 0]);
  });

  test('an outage, and orders that it has enough of', async () => {
    await using scene = await openScene();
    const { ca, clock, subscriber } = scene;
    const { newOrder } = await subscriber.directory();
    const nowMs = clock.nowMs();
    ca.faults.outages = [
      { fromMs: nowMs, untilMs: nowMs + HOUR_MS, kind: 'unavailable' },
      { fromMs: nowMs + HOUR_MS, untilMs: nowMs + 2 * HOUR_MS, kind: 'cut' },
    ];
    expect((await subscriber.send('GET', newOrder)).status).toBe(503);
    await clock.advance(HOUR_MS);
    await expect(subscriber.send('GET', newOrder)).rejects.toThrow('socket hang up');
    await clock.advance(HOUR_MS);
    ca.faults.tooManyRate = 1;
    const reply = await subscriber.newOrder(['a.test']);
    expect([reply.status, reply.headers['retry-after'], ca.record.overLimit.newOrders]).toEqual([429, '60', 0]);
  });

  test('a directory that leads elsewhere, lacks something, or is none', async () => {
    await using scene = await openScene();
    const { ca, subscriber } = scene;
    const directory = async (): Promise<unknown> => (await subscriber.send('GET', ca.directoryUrl)).json;
    ca.faults.lie = { kind: 'directory-with-foreign-urls', origin: 'https://elsewhere.test' };
    expect(await directory()).toMatchObject({ newOrder: 'https://elsewhere.test/acme/new-order' });
    ca.faults.lie = { kind: 'directory-without', key: 'newNonce' };
    expect(await directory()).not.toHaveProperty('newNonce');
    ca.faults.lie = { kind: 'directory-is-html' };
    expect(await directory()).toBeNull();
  });

  test('certificates that are not what was ordered', async () => {
    await using scene = await openScene();
    const { ca, clock } = scene;
    const leafWith = async (lie: AcmeCa['faults']['lie'], name: string): Promise<string> => {
      ca.faults.lie = lie;
      return await obtain(scene, [name]);
    };
    const others = leafOf(await leafWith({ kind: 'certificate-of-other-names', names: ['evil.test'] }, 'a.test'));
    expect(others.checkHost('a.test')).toBeUndefined();
    expect(leafOf(await leafWith({ kind: 'certificate-expired' }, 'b.test')).validToDate.getTime()).toBeLessThan(clock.nowMs());
    expect(leafOf(await leafWith({ kind: 'certificate-not-yet-valid' }, 'c.test')).validFromDate.getTime()).toBeGreaterThan(
      clock.nowMs(),
    );
    const cut = await leafWith({ kind: 'certificate-cut-off' }, 'd.test');
    expect(() => leafOf(cut)).toThrow(/PEM|asn1|bad/i);
    const alone = await leafWith({ kind: 'certificate-without-intermediate' }, 'e.test');
    expect(alone.split('BEGIN CERTIFICATE').length).toBe(2);
    expect(leafOf(await leafWith({ kind: 'certificate-of-other-key' }, 'f.test')).checkHost('f.test')).toBe('f.test');
  });

  test('bodies that are huge, and that never end', async () => {
    await using scene = await openScene();
    const { ca, subscriber } = scene;
    ca.faults.lie = { kind: 'huge-body', path: '/acme/directory', bytes: 5_000_000 };
    expect((await subscriber.send('GET', ca.directoryUrl)).text.length).toBe(5_000_000);
    ca.faults.lie = { kind: 'endless-body', path: '/acme/directory' };
    const endless = subscriber.send('GET', ca.directoryUrl).catch(() => 'cut');
    expect(await Promise.race([endless, systemClock.sleep(200)])).toBeUndefined();
    expect(ca.isBusy()).toBe(true);
    subscriber[Symbol.dispose]();
    expect(await endless).toBe('cut');
  });
});

describe('what is not to be ordered', () => {
  test('names whose order is open, and whose certificate is fresh, are noted', async () => {
    await using scene = await openScene();
    const { subscriber, ca, clock } = scene;
    await subscriber.newOrder(['a.test']);
    await subscriber.newOrder(['a.test']);
    await obtain(scene, ['b.test']);
    await subscriber.newOrder(['b.test']);
    expect(ca.record.duplicates.map(({ order, because }) => [order.names, because])).toEqual([
      [['a.test'], 'open-order'],
      [['b.test'], 'fresh-certificate'],
    ]);
    await obtain(scene, ['c.test']);
    await clock.advance(30 * DAY_MS);
    await obtain(scene, ['c.test']);
    expect(ca.record.duplicates.length).toBe(2);
  });
});
