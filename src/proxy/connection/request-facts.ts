/** What a request head asks of its connection, judged in one place before anything of it goes on. */
import { FRAMING, requestFraming } from '#proxy/http1/body-framing.ts';
import { EXPECTATION, expectationOf, isPersistent, takesTrailers, wantsUpgrade } from '#proxy/http1/connection.ts';
import { FIELD, isIn } from '#proxy/http1/field-names.ts';
import { METHOD, TARGET_FORM } from '#proxy/http1/head-view.ts';
import type { HeadView } from '#proxy/http1/head-view.ts';
import { REFUSED } from '#proxy/http1/refusal.ts';

export interface RequestFacts {
  /** One of `METHOD`. */
  method: number;
  minor: number;
  persistent: boolean;
  /** One of `FRAMING`. */
  framing: number;
  contentLength: number;
  /** Whether `Upgrade` goes on to the endpoint. */
  upgrade: boolean;
  /** Whether the client waits for a 100 before it sends the body. */
  expectsContinue: boolean;
  /** Whether trailers are welcome to the client. */
  trailers: boolean;
}

export function createRequestFacts(): RequestFacts {
  return {
    method: METHOD.other,
    minor: 1,
    persistent: false,
    framing: FRAMING.none,
    contentLength: 0,
    upgrade: false,
    expectsContinue: false,
    trailers: false,
  };
}

/** Forgets what was read: nothing is known of the next request yet. */
export function resetRequestFacts(facts: RequestFacts): void {
  Object.assign(facts, createRequestFacts());
}

/** Reads `facts` from a head. `secure`: over TLS. 0, or why the request is refused. */
export function judgeRequest(bytes: Buffer, view: HeadView, secure: boolean, facts: RequestFacts): number {
  facts.method = view.method;
  facts.minor = view.minor;
  // SECURITY: where a tunnel is not agreed to, what the client sent early must not be read as a request.
  facts.persistent = isPersistent(view) && view.method !== METHOD.connect;
  facts.framing = FRAMING.none;
  facts.upgrade = false;
  facts.trailers = false;
  facts.expectsContinue = false;
  const framing = requestFraming(bytes, view);
  if (framing < 0) return framing;
  facts.framing = framing;
  facts.contentLength = framing === FRAMING.fixed ? view.contentLength : 0;
  // RFC 9110 §7.4: a target that names another scheme than the connection has is not for this server.
  if (view.targetForm === TARGET_FORM.absolute && view.targetSecure !== secure) return REFUSED.misdirected;
  if (isIn(view.seen, FIELD.expect)) {
    const expectation = expectationOf(bytes, view);
    if (expectation < 0) return expectation;
    facts.expectsContinue = expectation === EXPECTATION.continue && framing !== FRAMING.none;
  }
  if (isIn(view.seen, FIELD.upgrade) && wantsUpgrade(bytes, view)) {
    facts.upgrade = true;
    facts.persistent = false; // As with a tunnel.
  }
  if (isIn(view.seen, FIELD.te)) facts.trailers = takesTrailers(bytes, view);
  return 0;
}

/** RFC 9110 §9.2.1: they change nothing. */
const SAFE_METHODS: ReadonlySet<number> = new Set([METHOD.get, METHOD.head, METHOD.options]);

/** Whether an endpoint may get it twice, without a body that is not kept. */
export function isRepeatable({ method, framing }: RequestFacts): boolean {
  return SAFE_METHODS.has(method) && framing === FRAMING.none;
}
