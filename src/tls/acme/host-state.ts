/** What is known of a host that is to have a certificate, as the store keeps it; what becomes of that is pure. */
import * as z from 'zod';
import type { CheckedCertificate } from '#tls/certificate-check.ts';
import type { Failures } from './back-off.ts';
import type { Candidate } from './order-queue.ts';
import { planInfoCheck, planRenewal, safetyPointMs } from './renewal-plan.ts';
import type { RenewalPlan, RenewalWindow } from './renewal-plan.ts';

const failures = z.object({ count: z.int(), lastMs: z.number(), untilMs: z.number() });
const stateSchema = z.object({
  /** What it has; null: nothing. */
  current: z
    .object({
      ca: z.string(),
      notBeforeMs: z.number(),
      notAfterMs: z.number(),
      fingerprint: z.string(),
      /** Its name for ARI; null: it has none, or the CA has refused to have it replaced. */
      id: z.string().nullable(),
    })
    .nullable(),
  /** What the CA suggested last. */
  window: z.object({ startMs: z.number(), endMs: z.number() }).nullable(),
  /** When it is asked again; null: never, because it has no ARI. */
  infoAtMs: z.number().nullable(),
  /** By CA. */
  failures: z.record(z.string(), failures),
  lastError: z.object({ atMs: z.number(), ca: z.string(), message: z.string() }).nullable(),
  /** An operator, or a handshake, wants it now. */
  askedMs: z.number().nullable(),
  /** When a client's call had it ordered; null: it is there for another reason. */
  calledMs: z.number().nullable(),
});
export type HostState = Readonly<z.infer<typeof stateSchema>>;

export const NEW_HOST: HostState = {
  current: null,
  window: null,
  infoAtMs: null,
  failures: {},
  lastError: null,
  askedMs: null,
  calledMs: null,
};

export function parseHostState(text: string): HostState {
  return stateSchema.parse(JSON.parse(text));
}

export function textOfState(state: HostState): string {
  return JSON.stringify(state);
}

/** A certificate has come. */
export function issued(
  { calledMs }: HostState,
  ca: string,
  { notBeforeMs, notAfterMs, fingerprint }: Pick<CheckedCertificate, 'notBeforeMs' | 'notAfterMs' | 'fingerprint'>,
  { id, nowMs }: { readonly id: string | undefined; readonly nowMs: number },
): HostState {
  const current = { ca, notBeforeMs, notAfterMs, fingerprint, id: id ?? null };
  return { ...NEW_HOST, calledMs, current, infoAtMs: id === undefined ? null : nowMs };
}

/** The CA has suggested a window, or has nothing to say. */
export function informed(
  state: HostState,
  {
    window,
    retryAfterMs,
    nowMs,
  }: { readonly window: RenewalWindow | undefined; readonly retryAfterMs: number | undefined; readonly nowMs: number },
): HostState {
  if (state.current === null) return { ...state, infoAtMs: null };
  const infoAtMs = planInfoCheck(state.current.fingerprint, nowMs, retryAfterMs);
  // One that does not answer has not taken back what it said before.
  return { ...state, window: window ?? state.window, infoAtMs };
}

export function failed(
  state: HostState,
  {
    ca,
    after,
    message,
    nowMs,
  }: { readonly ca: string; readonly after: Failures; readonly message: string; readonly nowMs: number },
): HostState {
  return {
    ...state,
    failures: { ...state.failures, [ca]: after },
    lastError: { atMs: nowMs, ca, message },
    askedMs: null,
  };
}

/** When it is to be renewed; undefined: it has none. */
export function renewalOf({ current, window }: HostState): RenewalPlan | undefined {
  return current === null ? undefined : planRenewal(current.fingerprint, current, window ?? undefined);
}

/** For the queue. `isServed`: what it has is served, and not only written down. */
export function candidateOf(host: string, wantedMs: number, state: HostState, isServed: boolean): Candidate {
  const { current, failures: byCa, askedMs } = state;
  const renewal = renewalOf(state);
  return {
    host,
    wantedMs: askedMs ?? wantedMs,
    isAskedFor: askedMs !== null,
    failures: new Map(Object.entries(byCa)),
    current:
      current === null || renewal === undefined || !isServed
        ? undefined
        : {
            notAfterMs: current.notAfterMs,
            renewAtMs: renewal.atMs,
            safetyMs: safetyPointMs(current),
            ca: current.ca,
            isReplaceable: current.id !== null,
          },
  };
}
