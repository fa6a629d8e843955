/** What a request has to pass before it goes to its service, or what answers it instead: rate limits, authentication, redirects and fixed responses. */
import { locationOf, sentPath } from '#routing/rewritten-path.ts';
import type { Redirect } from '#routing/actions.ts';
import type { Endpoint } from '#routing/route-table.ts';
import type { Log } from '#log';
import type { EndpointSecurities } from '#proxy/endpoint-security.ts';
import type { ExchangeError, OwnResponse } from '#proxy/error-response.ts';
import type { ExchangeRecord } from '#proxy/record.ts';
import { pathOf, queryOf } from '#proxy/request-target.ts';
import { Complaints } from '#proxy/complaints.ts';
import { ForwardAuthority } from './forward-auth.ts';
import { Passwords } from './password.ts';
import type { PreparedActions } from './prepared.ts';
import { USER_FIELD } from './prepared.ts';
import type { RateLimits } from './rate-limits.ts';
import { keyOf } from './request-key.ts';

export type Verdict =
  /** `passed`: lines about who was let through. */
  | { readonly kind: 'go'; readonly passed: string }
  | { readonly kind: 'respond'; readonly response: OwnResponse }
  | { readonly kind: 'refuse'; readonly error: ExchangeError; readonly refusal: Refusal };

export interface Refusal {
  readonly detail?: string;
  readonly retryAfterSeconds?: number;
  readonly fields?: OwnResponse['fields'];
}

export interface GateDeps {
  readonly log: Log;
  readonly rateLimits: RateLimits;
  /** An endpoint of a service that can be asked now. */
  readonly endpointOf: (serviceId: string) => Endpoint | undefined;
  readonly securities: Pick<EndpointSecurities, 'of'>;
}

/** The request at hand. */
export interface GatedRequest {
  readonly record: ExchangeRecord;
  readonly requestField: (name: string) => string | undefined;
  readonly requestMethod: () => string;
}

const GO: Verdict = { kind: 'go', passed: '' };

export class Gates implements Disposable {
  readonly #deps: GateDeps;
  readonly #passwords = new Passwords();
  readonly #authority: ForwardAuthority;
  readonly #complaints = new Complaints();

  constructor(deps: GateDeps) {
    this.#deps = deps;
    this.#authority = new ForwardAuthority(deps.securities);
  }

  /** What becomes of a request. A promise only where somebody has to be asked first. */
  check(prepared: PreparedActions, request: GatedRequest): Verdict | Promise<Verdict> {
    const { actions, limiterId } = prepared;
    const { record } = request;
    if (actions.rateLimit !== undefined) {
      const waitMs = this.#deps.rateLimits.take(`${limiterId} ${keyOf(actions.rateLimit.by, record)}`, actions.rateLimit);
      if (waitMs > 0) return { kind: 'refuse', error: 'rate-limited', refusal: { retryAfterSeconds: Math.ceil(waitMs / 1000) } };
    }
    if (actions.auth === undefined) return afterAuth(prepared, record, '');
    return actions.auth.kind === 'basic' ? this.#basic(prepared, request) : this.#forward(prepared, request);
  }

  [Symbol.dispose](): void {
    this.#authority[Symbol.dispose]();
  }

  #basic(prepared: PreparedActions, { record, requestField }: GatedRequest): Verdict | Promise<Verdict> {
    const { auth } = prepared.actions;
    if (auth?.kind !== 'basic') return GO;
    const field = requestField('authorization');
    const known = this.#passwords.known(auth.users, field);
    if (known !== undefined) return afterAuth(prepared, record, `${USER_FIELD}: ${known}\r\n`);
    const refused: Verdict = {
      kind: 'refuse',
      error: 'unauthenticated',
      refusal: { fields: [['WWW-Authenticate', `Basic realm="${auth.realm}", charset="UTF-8"`]] },
    };
    if (field === undefined) return refused;
    return this.#passwords.verify(auth.users, field).then((found) => {
      if (found.kind === 'user') return afterAuth(prepared, record, `${USER_FIELD}: ${found.name}\r\n`);
      return found.kind === 'busy' ? unavailable('too many passwords wait to be looked at') : refused;
    });
  }

  async #forward(prepared: PreparedActions, { record, requestMethod }: GatedRequest): Promise<Verdict> {
    const { auth } = prepared.actions;
    if (auth?.kind !== 'forward') return GO;
    const endpoint = this.#deps.endpointOf(auth.serviceId);
    const answer =
      endpoint === undefined
        ? ({ kind: 'failed', reason: 'it has no endpoint that can be asked' } as const)
        : await this.#authority.ask(auth, endpoint, {
            head: record.head.toString('latin1', 0, record.headBytes),
            identity: record.identity.toString('latin1'),
            method: requestMethod(),
            host: record.host,
            uri: pathOf(record) + queryOf(record),
            proto: record.tls === undefined ? 'http' : 'https',
            client: record.client,
            requestId: record.requestId.toString('latin1'),
          });
    switch (answer.kind) {
      case 'pass':
        return afterAuth(prepared, record, answer.lines);
      case 'answer':
        return { kind: 'respond', response: answer.response };
      case 'failed':
        this.#logFailure(auth.serviceId, answer.reason);
        return unavailable();
    }
  }

  #logFailure(service: string, reason: string): void {
    this.#complaints.of(service, () => {
      this.#deps.log.warn({ service, reason }, 'a service that is asked about requests does not answer; they are refused');
    });
  }
}

function unavailable(detail?: string): Verdict {
  return { kind: 'refuse', error: 'auth-unavailable', refusal: detail === undefined ? {} : { detail } };
}

/** What is left to do for a request that may pass. */
function afterAuth({ actions, response }: PreparedActions, record: ExchangeRecord, passed: string): Verdict {
  if (response !== undefined) return { kind: 'respond', response };
  if (actions.redirect !== undefined) return redirected(actions.redirect, record, actions.stripPrefix);
  return passed === '' ? GO : { kind: 'go', passed };
}

function redirected({ to, status }: Redirect, record: ExchangeRecord, prefix: string | undefined): Verdict {
  if (record.host === '') return { kind: 'refuse', error: 'bad-request', refusal: { detail: 'the request names no host' } };
  const facts = { host: record.host, path: sentPath(pathOf(record), prefix), query: queryOf(record) };
  return { kind: 'respond', response: { status, fields: [['Location', locationOf(to, facts)]], body: '' } };
}
