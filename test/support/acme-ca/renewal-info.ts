/** When a certificate is to be renewed (RFC 9773). */
import type { Answer } from './answer.ts';
import type { CaState, RenewalWindow } from './ca-state.ts';
import { Problem, malformed } from './problem.ts';
import type { Account, Certificate } from './resources.ts';
import { statusOf } from './resources.ts';

const DAY_MS = 86_400_000;
const SHORT_LIFETIME_MS = 10 * DAY_MS;

/** As Let's Encrypt: two days around two thirds of the lifetime; for short-lived ones a tenth of it around the middle. */
export function windowOf({ movedWindows }: CaState, certificate: Certificate): RenewalWindow {
  const moved = movedWindows.reduce<RenewalWindow | undefined>((last, move) => move(certificate) ?? last, undefined);
  if (moved !== undefined) return moved;
  const lifetimeMs = certificate.notAfterMs - certificate.notBeforeMs;
  const isShort = lifetimeMs < SHORT_LIFETIME_MS;
  const idealMs = isShort ? certificate.notBeforeMs + lifetimeMs / 2 : certificate.notAfterMs - lifetimeMs / 3;
  const aroundMs = isShort ? lifetimeMs / 20 : DAY_MS;
  return { startMs: Math.round(idealMs - aroundMs), endMs: Math.round(idealMs + aroundMs) };
}

const RENEWAL_ID = /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/;

export function answerRenewalInfo(state: CaState, renewalId: string): Answer {
  if (!RENEWAL_ID.test(renewalId)) throw malformed('this is no identifier of a certificate');
  const certificate = state.resources.byRenewalId.get(renewalId);
  if (certificate === undefined) throw new Problem('malformed', 404, 'there is no such certificate');
  const { startMs, endMs } = windowOf(state, certificate);
  return {
    status: 200,
    headers: { 'retry-after': String(state.options.renewalInfoPollSeconds) },
    body: { suggestedWindow: { start: new Date(startMs).toISOString(), end: new Date(endMs).toISOString() } },
  };
}

/** What a new order replaces: checked as RFC 9773 §5 asks. */
export function readReplaces(state: CaState, renewalId: string, account: Account, names: readonly string[]): Certificate {
  const certificate = state.resources.byRenewalId.get(renewalId);
  if (certificate === undefined) throw malformed('what the order replaces is no certificate of this CA');
  if (certificate.account !== account) throw new Problem('unauthorized', 403, 'what the order replaces is of another account');
  if (!certificate.names.some((name) => names.includes(name))) throw malformed('the order has no name of what it replaces');
  const earlier = state.resources.replacement.get(certificate);
  if (earlier !== undefined && statusOf(earlier, state.options.clock.nowMs()) !== 'invalid') {
    throw new Problem('alreadyReplaced', 409, `the certificate is replaced by the order ${earlier.id}`);
  }
  return certificate;
}
