/**
 * A certificate authority for tests: a small, honest ACME server (RFC 8555, RFC 8737, RFC 9773) on the loopback whose time is a `Clock`. It verifies what a CA
 * verifies, keeps the limits that Let's Encrypt publishes, does wrong what a test asks it to, and remembers what it was asked.
 */
import { createServer as createHttpServer } from 'node:http';
import type { IncomingMessage, RequestListener, Server, ServerResponse } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { once } from 'node:events';
import { issueSelfSignedCa, issueServerLeaf, issuerOf } from '#tls/issue.ts';
import { createPrivateKey } from 'node:crypto';
import { changeKey, newAccount, updateAccount } from './accounts.ts';
import type { Answer } from './answer.ts';
import { CaRecord, urlOf } from './ca-state.ts';
import type { AcmeCaOptions, CaState, RenewalWindow } from './ca-state.ts';
import { noFaults, outageAt, randomOf } from './faults.ts';
import type { Faults, Lie } from './faults.ts';
import { answerCertificate, finalize, revoke } from './finalize.ts';
import { IssuingCa } from './issuing.ts';
import { LETS_ENCRYPT_RULES, RateLimiter } from './limits.ts';
import { answerAuthorization, answerChallenge, answerOrder, newOrder } from './orders.ts';
import { Problem, malformed, problemDocument } from './problem.ts';
import { Nonces, authenticate } from './protocol.ts';
import type { SignedRequest } from './protocol.ts';
import { answerRenewalInfo } from './renewal-info.ts';
import { Resources } from './resources.ts';
import type { Account, Certificate } from './resources.ts';

export interface AcmeCa extends AsyncDisposable {
  readonly directoryUrl: string;
  /** What the server's own certificate is signed by, and what those that it issues are. */
  readonly serverCaPem: string;
  readonly rootPem: string;
  readonly faults: Faults;
  readonly record: CaRecord;
  readonly limiter: RateLimiter;
  readonly accounts: () => readonly Account[];
  /** A request is being answered, or a challenge looked at. */
  readonly isBusy: () => boolean;
  /** From now on these certificates are to be renewed then; undefined: as before. */
  readonly moveWindows: (move: (certificate: Certificate) => RenewalWindow | undefined) => void;
}

const DAY_MS = 86_400_000;

function fullOptions(options: AcmeCaOptions): CaState['options'] {
  return {
    resolver: {},
    profiles: {
      classic: { description: '45 days', lifetimeMs: 45 * DAY_MS },
      shortlived: { description: '6 days', lifetimeMs: 6 * DAY_MS },
    },
    externalAccounts: new Map(),
    authorizationReuseMs: 7 * 3_600_000,
    rules: LETS_ENCRYPT_RULES,
    pollSeconds: 1,
    renewalInfoPollSeconds: 21_600,
    refusedNames: [],
    challengeTypes: ['http-01', 'tls-alpn-01', 'dns-01'],
    ...options,
  };
}

export async function startAcmeCa(given: AcmeCaOptions): Promise<AcmeCa> {
  const options = fullOptions(given);
  const state: CaState = {
    options,
    resources: new Resources(),
    limiter: new RateLimiter(options.rules),
    issuing: await IssuingCa.open(options.clock.nowMs()),
    faults: noFaults(),
    record: new CaRecord(),
    random: randomOf(given.seed ?? 1),
    background: new Set(),
    movedWindows: [],
    origin: '',
  };
  const underWay = new Set<ServerResponse>();
  const nonces = new Nonces();
  const scheme = given.scheme ?? 'https';
  const { server, caPem } = await listen(scheme, (request, response) => {
    underWay.add(response);
    response.on('close', () => underWay.delete(response));
    void serve(state, nonces, request, response);
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the CA has no port');
  state.origin = `${scheme}://127.0.0.1:${String(address.port)}`;
  return {
    directoryUrl: urlOf(state, 'directory'),
    serverCaPem: caPem,
    rootPem: state.issuing.rootPem,
    faults: state.faults,
    record: state.record,
    limiter: state.limiter,
    accounts: () => [...state.resources.accounts.values()],
    isBusy: () => underWay.size > 0 || state.background.size > 0,
    moveWindows: (move) => state.movedWindows.push(move),
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
      await Promise.all(state.background);
    },
  };
}

/** The server's own certificate is of real time: its clients have no other. */
async function listen(
  scheme: 'https' | 'http',
  listener: RequestListener,
): Promise<{ readonly server: Server; readonly caPem: string }> {
  const validity = { notBefore: new Date(Date.now() - DAY_MS), notAfter: new Date(Date.now() + 7 * DAY_MS) };
  const ca = await issueSelfSignedCa('Test ACME server', validity);
  const issuer = await issuerOf(ca.certPem, createPrivateKey(ca.keyPem));
  const leaf = await issueServerLeaf(issuer, validity, { names: ['localhost', '127.0.0.1'] });
  const options = { key: leaf.keyPem, cert: leaf.certPem, keepAliveTimeout: 60_000 };
  const server = scheme === 'https' ? createHttpsServer(options, listener) : createHttpServer(options, listener);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { server, caPem: ca.certPem };
}

async function serve(state: CaState, nonces: Nonces, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { faults, record } = state;
  const outage = outageAt(faults, state.options.clock.nowMs());
  if (outage !== undefined) record.madeUp.unavailable += 1;
  if (outage?.kind === 'cut') {
    request.socket.destroy();
    return;
  }
  let answer: Answer;
  try {
    if (outage !== undefined) throw new Problem('serverInternal', 503, 'this CA is down for maintenance');
    if (lieInstead(faults.lie, request, response)) return;
    answer = await answerOf(state, nonces, request);
  } catch (error) {
    const problem =
      error instanceof Problem ? error : new Problem('serverInternal', 500, `a fault of the test's CA: ${String(error)}`);
    record.count(record.problems, problem.type);
    const headers = {
      'content-type': 'application/problem+json',
      ...(problem.retryAfter === undefined ? {} : { 'retry-after': String(problem.retryAfter) }),
    };
    answer = { status: problem.status, headers, body: problemDocument(problem) };
  }
  request.resume();
  const { status, headers = {}, body } = answer;
  // A client that gets no nonce with an answer has to ask for one: those that fail give none during an outage.
  const nonce = outage === undefined && request.method !== 'GET' ? { 'replay-nonce': nonces.issue() } : {};
  const text = body === undefined ? '' : typeof body === 'string' ? body : JSON.stringify(body);
  response.writeHead(status, {
    'content-type': 'application/json',
    'cache-control': 'no-store',
    link: `<${urlOf(state, 'directory')}>;rel="index"`,
    ...nonce,
    ...headers,
  });
  response.end(request.method === 'HEAD' ? '' : text);
}

const PIECE = Buffer.alloc(65_536, 'x');

/** True: it answers by something else than it was asked. */
function lieInstead(lie: Lie | undefined, request: IncomingMessage, response: ServerResponse): boolean {
  if (lie?.kind !== 'huge-body' && lie?.kind !== 'endless-body') return false;
  if (request.url?.startsWith(lie.path) !== true) return false;
  request.resume();
  response.writeHead(200, { 'content-type': 'application/json' });
  let left = lie.kind === 'huge-body' ? lie.bytes : Infinity;
  const more = (): void => {
    while (left > 0) {
      const piece = PIECE.subarray(0, Math.min(left, PIECE.length));
      left -= piece.length;
      if (!response.write(piece)) return;
    }
    response.end();
  };
  response.on('drain', more);
  response.on('error', () => undefined);
  more();
  return true;
}

const PATH = /^\/acme\/(?<what>[a-z-]+)(?:\/(?<id>[A-Za-z0-9_.-]+))?(?<finalize>\/finalize)?$/;

async function answerOf(state: CaState, nonces: Nonces, request: IncomingMessage): Promise<Answer> {
  const { what, id, finalize: isFinalize } = PATH.exec(request.url ?? '')?.groups ?? {};
  if (what === undefined) throw new Problem('malformed', 404, 'there is nothing here');
  const kind = isFinalize === undefined ? what : 'finalize';
  state.record.count(state.record.requests, kind);
  if (request.method !== 'POST') return answerGet(state, what, id);
  const signed = await authenticate(
    state,
    nonces,
    request,
    what === 'new-account' ? 'jwk' : what === 'revoke-cert' ? 'either' : 'kid',
  );
  if (state.random() < state.faults.serverErrorRate) {
    state.record.madeUp.serverErrors += 1;
    throw new Problem('serverInternal', 500, 'something broke');
  }
  const { account, payload } = signed;
  if (what === 'new-account') return newAccount(state, signed.jwk, payload, request.socket.remoteAddress ?? '');
  if (what === 'revoke-cert')
    return revoke(state, { account, keyDer: signed.key.export({ type: 'spki', format: 'der' }) }, payload);
  if (account === undefined) throw malformed('an account is needed');
  return await answerPost(state, kind, id, { account, payload });
}

function answerGet(state: CaState, what: string, id: string | undefined): Answer {
  if (what === 'directory') return directory(state);
  if (what === 'new-nonce') return { status: 204 };
  if (what === 'renewal-info' && id !== undefined) return answerRenewalInfo(state, id);
  throw new Problem('malformed', 405, 'this is asked by POST');
}

function directory(state: CaState): Answer {
  const { lie } = state.faults;
  if (lie?.kind === 'directory-is-html')
    return { status: 200, headers: { 'content-type': 'text/html' }, body: '<h1>It works!</h1>' };
  const url = (path: string): string =>
    lie?.kind === 'directory-with-foreign-urls' ? `${lie.origin}/acme/${path}` : urlOf(state, path);
  const entries = {
    newNonce: url('new-nonce'),
    newAccount: url('new-account'),
    newOrder: url('new-order'),
    revokeCert: url('revoke-cert'),
    keyChange: url('key-change'),
    renewalInfo: url('renewal-info'),
    meta: {
      termsOfService: url('terms'),
      externalAccountRequired: state.options.externalAccounts.size > 0,
      profiles: Object.fromEntries(Object.entries(state.options.profiles).map(([name, { description }]) => [name, description])),
    },
  };
  const left = Object.entries(entries).filter(([key]) => lie?.kind !== 'directory-without' || key !== lie.key);
  return { status: 200, body: Object.fromEntries(left) };
}

/** What is of an account is there for it alone. */
function own<T>(thing: T | undefined, ownerOf: (thing: T) => Account, account: Account): T {
  if (thing === undefined) throw new Problem('malformed', 404, 'there is no such thing');
  if (ownerOf(thing) !== account) throw new Problem('unauthorized', 403, 'this is of another account');
  return thing;
}

async function answerPost(
  state: CaState,
  kind: string,
  id: string | undefined,
  { account, payload }: { readonly account: Account; readonly payload: SignedRequest['payload'] },
): Promise<Answer> {
  const { resources } = state;
  const order = (): Parameters<typeof answerOrder>[1] => own(resources.orders.get(id ?? ''), (found) => found.account, account);
  switch (kind) {
    case 'new-nonce':
    case 'directory':
    case 'renewal-info':
      return answerGet(state, kind, id);
    case 'account':
      return updateAccount(
        state,
        own(resources.accounts.get(id ?? ''), (found) => found, account),
        payload,
      );
    case 'key-change':
      return changeKey(state, account, payload);
    case 'new-order':
      return newOrder(state, account, payload);
    case 'order':
      return answerOrder(state, order());
    case 'finalize':
      return await finalize(state, order(), payload);
    case 'authz':
      return answerAuthorization(
        state,
        own(resources.authorizations.get(id ?? ''), (found) => found.account, account),
        payload,
      );
    case 'chall': {
      const challenge = own(resources.challenges.get(id ?? ''), (found) => found.authorization.account, account);
      return answerChallenge(state, challenge, payload);
    }
    case 'cert':
      return answerCertificate(
        state,
        own(resources.certificates.get(id ?? ''), (found) => found.account, account),
      );
    default:
      throw new Problem('malformed', 404, 'there is nothing here');
  }
}
