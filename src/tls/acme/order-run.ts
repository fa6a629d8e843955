/**
 * One order for one host: by one node at a time, paid from the ledger, proved, and served. What is there already stays whatever goes wrong.
 *
 * LIFECYCLE   lease taken → looked at again (somebody may have done it) → account → spent → issued → served → lease given back, with what came of it.
 * A run that ends in between leaves its order and its key, and the next run goes on with them.
 */
import type { Clock } from '#clock';
import { errorLine, reasonOf } from '#errors';
import type { Log } from '#log';
import type { CheckedCertificate } from '#tls/certificate-check.ts';
import type { KeySeal } from '#tls/key-seal.ts';
import { acmeFailure, failureFactsOf } from './acme-failure.ts';
import type { FailureFacts } from './acme-failure.ts';
import type { AcmeStore, StoreChange, StoredHost } from './acme-store.ts';
import { nameFailed } from './back-off.ts';
import type { CaAccess } from './ca-access.ts';
import { certificateIdOf } from './certificate-request.ts';
import { failed, issued, parseHostState, textOfState } from './host-state.ts';
import type { HostState } from './host-state.ts';
import { isToGoOn, obtainCertificate } from './issuance.ts';
import type { BegunOrder, ProofPort } from './issuance.ts';
import type { PlannedOrder } from './order-queue.ts';
import type { Verdict } from './rate-ledger.ts';
import { registeredDomainOf } from './registered-domain.ts';
import type { Spending, SpentOrder } from './spending.ts';

export interface OrderRunDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly store: AcmeStore;
  readonly seal: Pick<KeySeal, 'seal' | 'unseal'>;
  readonly spending: Spending;
  readonly proofs: ProofPort;
  /** Whose the leases are: of one node, and the same after its restart. */
  readonly owner: string;
  /** Serves a certificate, on all workers. Where it throws, the one before is served on. */
  readonly install: (host: string, certificate: CheckedCertificate) => Promise<void>;
  readonly signal: AbortSignal;
}

export type RunOutcome =
  | { readonly kind: 'issued'; readonly state: HostState }
  /** Another node works at it; not before then. */
  | { readonly kind: 'busy'; readonly untilMs: number }
  /** It is not as it was when the order was planned: there is nothing to do, or something else. */
  | { readonly kind: 'changed'; readonly state: HostState }
  | { readonly kind: 'wait'; readonly verdict: Verdict & { readonly kind: 'wait' }; readonly state: HostState }
  | { readonly kind: 'failed'; readonly facts: FailureFacts; readonly message: string; readonly state: HostState }
  /** The node stops, or the lease was lost. */
  | { readonly kind: 'stopped'; readonly state: HostState };

/** Longer than a node is away when it is replaced; a host of one that died waits so long. */
const LEASE_MS = 120_000;
const LEASE_RENEW_MS = LEASE_MS / 3;

/** `seen`: the host as it was planned with. */
export async function runOrder(
  deps: OrderRunDeps,
  access: CaAccess,
  planned: PlannedOrder,
  seen: HostState,
): Promise<RunOutcome> {
  const { store, clock, owner } = deps;
  const lease = { host: planned.host, owner };
  const nowMs = clock.nowMs();
  if (!(await store.takeLease({ ...lease, untilMs: nowMs + LEASE_MS }, nowMs))) {
    const row = await store.host(planned.host);
    return { kind: 'busy', untilMs: Math.max(nowMs + 1000, row?.leaseUntilMs ?? 0) };
  }
  const row = await store.host(planned.host);
  if (row === undefined) throw new Error(`${planned.host} has no row, though its lease was taken`);
  const state = parseHostState(row.state);
  if (state.current?.fingerprint !== seen.current?.fingerprint) {
    await store.releaseLease(lease, row.state, undefined);
    return { kind: 'changed', state };
  }
  const work = new AbortController();
  const keeping = keepLease(deps, planned.host, work);
  try {
    return await runLeased(deps, access, { planned, row, state, signal: AbortSignal.any([deps.signal, work.signal]) });
  } finally {
    work.abort();
    await keeping;
  }
}

async function keepLease({ store, clock, owner, log }: OrderRunDeps, host: string, work: AbortController): Promise<void> {
  const { signal } = work;
  for (;;) {
    try {
      await clock.sleep(LEASE_RENEW_MS, signal);
    } catch {
      return; // The run is over.
    }
    if (signal.aborted) return;
    if (await store.renewLease({ host, owner, untilMs: clock.nowMs() + LEASE_MS }).catch(() => true)) continue;
    log.warn({ host }, 'another node has taken over an order');
    work.abort();
    return;
  }
}

interface Leased {
  readonly planned: PlannedOrder;
  readonly row: StoredHost;
  readonly state: HostState;
  readonly signal: AbortSignal;
}

async function runLeased(deps: OrderRunDeps, access: CaAccess, leased: Leased): Promise<RunOutcome> {
  const { store, owner, clock } = deps;
  const { planned, state, signal } = leased;
  const { host, ca } = planned;
  const end = async (outcome: RunOutcome & { readonly state: HostState }, change?: StoreChange): Promise<RunOutcome> => {
    await store.releaseLease({ host, owner }, textOfState(outcome.state), change);
    return outcome;
  };
  try {
    const bought = await buy(deps, access, leased);
    if (bought.kind === 'wait') return await end({ ...bought, state });
    const { certificate, replaced } = bought;
    await deps.install(host, certificate);
    await store.setOrder({ host, owner }, { ca: '', url: '', sealedKey: '' });
    const { notAfterMs, fingerprint } = certificate;
    const after = issued(state, ca, certificate, { id: certificateIdOf(certificate.leafPem), nowMs: clock.nowMs() });
    const data = { ca, notAfterMs, fingerprint, replaced };
    return await end({ kind: 'issued', state: after }, { kind: 'acme.issued', data, atMs: clock.nowMs() });
  } catch (error) {
    if (signal.aborted) return await end({ kind: 'stopped', state });
    await access.accountLost(error);
    const facts = failureFactsOf(error);
    const message = errorLine(error);
    const after = stateAfter(state, planned, { facts, message, nowMs: clock.nowMs() });
    const data = { ca, kind: facts.kind, reason: reasonOf(error).slice(0, 500) };
    return await end({ kind: 'failed', facts, message, state: after }, { kind: 'acme.failed', data, atMs: clock.nowMs() });
  }
}

type Bought =
  | { readonly kind: 'wait'; readonly verdict: Verdict & { readonly kind: 'wait' } }
  | { readonly kind: 'bought'; readonly certificate: CheckedCertificate; readonly replaced: boolean };

async function buy(deps: OrderRunDeps, access: CaAccess, { planned, row, state, signal }: Leased): Promise<Bought> {
  const { store, owner, clock, seal, spending, proofs } = deps;
  const { host, ca } = planned;
  const client = await access.client();
  const account = await access.account();
  const names = [host];
  const replaces = planned.renewal === 'replaces' ? (state.current?.id ?? undefined) : undefined;
  const intent = intentOf(planned, account, replaces);
  // The same for all runs that go on with one order: what the first has paid is the last one's to move or to give back.
  const id = `order ${ca} ${host}`;
  const begun: BegunOrder | undefined =
    row.orderUrl !== '' && row.orderCa === ca
      ? { url: row.orderUrl, keyPem: seal.unseal(row.orderKey, keyOf(host, row.orderUrl)) }
      : undefined;
  const { challenges, profile } = access.settings;
  if (begun === undefined) {
    const verdict = await spending.spend(intent, id, clock.nowMs());
    if (verdict.kind === 'wait') return { kind: 'wait', verdict };
  }
  let isBegun = begun !== undefined;
  const note = async (order: BegunOrder | undefined): Promise<void> => {
    isBegun = order !== undefined;
    const sealedKey = order === undefined ? '' : seal.seal(order.keyPem, keyOf(host, order.url));
    const kept = await store.setOrder({ host, owner }, { ca: order === undefined ? '' : ca, url: order?.url ?? '', sealedKey });
    if (!kept) throw new Error(`another node has taken over the order for ${host}`);
  };
  const payAgain = async (): Promise<void> => {
    await payForLost(spending, { id, intent }, clock.nowMs());
  };
  try {
    const { certificate } = await obtainCertificate(
      { clock, client, proofs, note, payAgain, signal },
      { account, names, profile, replaces, challenges: turned(challenges, state.failures[ca]?.count ?? 0), begun },
    );
    await spending.issued({ id, intent }, clock.nowMs());
    return { kind: 'bought', certificate, replaced: replaces !== undefined };
  } catch (error) {
    const { kind } = failureFactsOf(error);
    // One that goes on later is still to become a certificate; one that the CA has not taken is none.
    if ((!isToGoOn(error) || !isBegun) && !signal.aborted)
      await spending.failed({ id, intent }, kind === 'validation' ? host : undefined, clock.nowMs());
    throw error;
  }
}

function intentOf({ host, ca, renewal }: PlannedOrder, account: string, replaces: string | undefined): SpentOrder['intent'] {
  return {
    kind: 'order',
    ca,
    account,
    names: [host],
    domains: [registeredDomainOf(host)],
    renewal: renewal === 'replaces' && replaces === undefined ? 'same-names' : renewal,
  };
}

/** The order that was paid for is gone: it is given back, and another one is paid for. Throws where a limit holds that. */
async function payForLost(spending: Spending, lost: SpentOrder, nowMs: number): Promise<void> {
  const { id, intent } = lost;
  await spending.failed(lost, undefined, nowMs);
  const verdict = await spending.spend(intent, id, nowMs);
  if (verdict.kind === 'go') return;
  const { limit, untilMs } = verdict;
  const message = `the order for ${intent.names.join(', ')} that was begun is gone, and the limit ${limit} of ${intent.ca} holds another one`;
  throw acmeFailure('rate-limit', message, { retryAfterMs: untilMs - nowMs });
}

/** The challenge that comes first is another one after each failure: what one CA cannot reach by one way it may by another. */
function turned<T>(list: readonly T[], by: number): readonly T[] {
  const at = list.length === 0 ? 0 : by % list.length;
  return [...list.slice(at), ...list.slice(0, at)];
}

function stateAfter(
  state: HostState,
  { ca, host, renewal }: PlannedOrder,
  { facts, message, nowMs }: { readonly facts: FailureFacts; readonly message: string; readonly nowMs: number },
): HostState {
  const { kind, retryAfterMs, problem } = facts;
  // The CA does not know what is to be replaced, or that it has not been: it is asked for one that replaces nothing.
  const isUnreplaceable = renewal === 'replaces' && (problem === 'alreadyReplaced' || problem === 'malformed');
  const current = isUnreplaceable && state.current !== null ? { ...state.current, id: null } : state.current;
  const after = nameFailed(state.failures[ca], {
    seed: `${host} ${ca}`,
    kind: isUnreplaceable ? 'internal' : kind,
    nowMs,
    retryAfterMs,
  });
  const next = failed({ ...state, current }, { ca, after, message: message.slice(0, 1000), nowMs });
  // What an operator asked for is to come, now that it replaces nothing.
  return isUnreplaceable ? { ...next, askedMs: state.askedMs } : next;
}

function keyOf(host: string, url: string): string {
  return `ecluse acme order ${host} ${url}`;
}
