/**
 * One exchange: a request and what became of it.
 *
 * Knows phases, not HTTP: route → admit → hold and pick → carry (again where that is safe) → finish. How bytes move is the carrier's affair,
 * behind `Carrier`; this seam is where the engine can be exchanged. `finish` always runs, once, and writes the access log.
 */
import { normaliseRequestHost } from '#routing/host-name.ts';
import { matchRoute } from '#routing/match.ts';
import { pathOf } from '#routing/path-prefix.ts';
import type { Endpoint, Service } from '#routing/route-table.ts';
import { reasonOf } from '#errors';
import type { AttemptOutcome, Carrier } from './carrier.ts';
import { errorAnswer, statusOf } from './error-response.ts';
import type { ExchangeError } from './error-response.ts';
import { accessLogLine, count, moveToAccount, openRecord } from './exchange-record.ts';
import type { ExchangeRecord } from './exchange-record.ts';
import type { HoldOutcome } from './hold.ts';
import type { Visit } from './in-flight.ts';
import { ATTEMPTS_MAX, UPSTREAM_CONNECTIONS_MAX } from './limits.ts';
import type { DataPlane } from './data-plane.ts';
import type { RequestHead } from './request-head.ts';
import { mayRetry } from './retry.ts';

/** Runs an exchange to its end. Never rejects. */
export async function runExchange(plane: DataPlane, carrier: Carrier): Promise<void> {
  const record = openRecord(plane.clock, carrier.head, plane.version);
  plane.exchangeBegins();
  try {
    const error = await runPhases(plane, carrier, record);
    if (error !== undefined) await answerError(plane, carrier, { record, error });
  } catch (fault) {
    plane.log.error({ requestId: record.requestId, reason: reasonOf(fault) }, 'exchange failed');
    record.error = 'internal';
    carrier.cut('internal');
  } finally {
    finish(plane, record);
  }
}

/** The phases; returns the error that is still to be answered. */
async function runPhases(plane: DataPlane, carrier: Carrier, record: ExchangeRecord): Promise<ExchangeError | undefined> {
  const { head } = carrier;
  if (head.refusal !== undefined) return head.refusal;
  const service = route(plane, head, record);
  if (typeof service === 'string') return service;
  const avoid = new Set<string>();
  for (let attempt = 1; ; attempt += 1) {
    const place = await holdAndPick(plane, carrier, { record, service, avoid });
    if (place.kind === 'refused') return place.error;
    const { endpoint } = place;
    const outcome = await carryTo(plane, carrier, { record, place });
    if (outcome.kind === 'done') return undefined;
    if (outcome.kind === 'broken') {
      record.error = outcome.error;
      if (record.status === 0) record.status = statusOf(outcome.error);
      return undefined;
    }
    if (attempt >= ATTEMPTS_MAX || !mayRetry({ method: head.method, ...outcome })) return outcome.error;
    if (outcome.connected) {
      plane.upstreams.retire(new Set([endpoint.id])); // One idle connection was dead; its siblings are as old.
    } else {
      avoid.add(endpoint.id);
      if (!plane.hasOther(service.id, avoid)) return outcome.error;
    }
  }
}

/** Route: a pure lookup in the current table. Gives the error where nothing matches. */
function route(plane: DataPlane, head: RequestHead, record: ExchangeRecord): Service | ExchangeError {
  const host = normaliseRequestHost(head.authority);
  if (host === undefined) return 'bad-request';
  record.host = host;
  const matched = matchRoute(plane.table, host, pathOf(head.target));
  if (matched.kind === 'no-route') return matched.reason;
  record.route = `${matched.route.host}${matched.route.pathPrefix}`;
  record.service = matched.service.id;
  record.tenant = matched.service.tenant;
  return matched.service;
}

type Place =
  | { readonly kind: 'place'; readonly endpoint: Endpoint; readonly visit: Visit }
  | { readonly kind: 'refused'; readonly error: ExchangeError };

/** Hold and pick, as one step: an endpoint is entered in the same turn in which it is picked, so that a freeze sees it. */
async function holdAndPick(
  plane: DataPlane,
  carrier: Carrier,
  wish: { readonly record: ExchangeRecord; readonly service: Service; readonly avoid: ReadonlySet<string> },
): Promise<Place> {
  const { record, service, avoid } = wish;
  const { promise, resolve } = Promise.withResolvers<Place>();
  const startMs = plane.clock.monotonicMs();
  let settled = false;
  const settle = (outcome: HoldOutcome, held: boolean): void => {
    if (settled) return;
    settled = true;
    if (held) record.holdMs += plane.clock.monotonicMs() - startMs;
    if (outcome.kind === 'refused') {
      resolve(outcome);
      return;
    }
    const { endpoint } = outcome;
    if (plane.inFlight.countOf(endpoint.id) >= UPSTREAM_CONNECTIONS_MAX) {
      resolve({ kind: 'refused', error: 'endpoint-busy' });
      return;
    }
    const visit: Visit = {
      endpointId: endpoint.id,
      cut: () => {
        carrier.cut(plane.draining ? 'cut-by-drain' : 'cut-by-freeze');
      },
    };
    plane.inFlight.enter(visit);
    resolve({ kind: 'place', endpoint, visit });
  };
  const cancel = plane.holds.acquire({ serviceId: service.id, tenant: service.tenant, avoid, settle });
  carrier.onGone(() => {
    cancel();
    settle({ kind: 'refused', error: 'client-aborted' }, true);
  });
  return await promise;
}

async function carryTo(
  plane: DataPlane,
  carrier: Carrier,
  work: { readonly record: ExchangeRecord; readonly place: Place & { readonly kind: 'place' } },
): Promise<AttemptOutcome> {
  const { record, place } = work;
  const { endpoint, visit } = place;
  record.endpoint = endpoint;
  moveToAccount(plane.traffic, record);
  try {
    return await carrier.carry({ endpoint, agent: plane.upstreams.agentFor(endpoint), record });
  } finally {
    plane.inFlight.leave(visit);
  }
}

async function answerError(
  plane: DataPlane,
  carrier: Carrier,
  refusal: { readonly record: ExchangeRecord; readonly error: ExchangeError },
): Promise<void> {
  const { record, error } = refusal;
  record.error = error;
  record.status = statusOf(error);
  if (record.account === undefined) moveToAccount(plane.traffic, record);
  if (error === 'client-aborted') return;
  const answer = errorAnswer(error, record.requestId);
  count(record, 'downstreamOutBytes', answer.text.length);
  await carrier.answer(answer);
}

function finish(plane: DataPlane, record: ExchangeRecord): void {
  const totalMs = plane.clock.monotonicMs() - record.startMs;
  if (record.account !== undefined) {
    record.account.requests += 1;
    record.account.heldMs += Math.round(record.holdMs);
    plane.traffic.close(record.account);
  }
  if (record.holdMs > 0) plane.metrics.held(record.holdMs / 1000);
  plane.metrics.exchangeEnded(record.tenant ?? '', record.status, totalMs / 1000);
  plane.accessLog.write(accessLogLine(record, totalMs));
  plane.exchangeEnds();
}
