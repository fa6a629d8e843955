/** Sends one hostile request through the edge and says everything that is wrong with what came of it. */
import { setTimeout as sleep } from 'node:timers/promises';
import { RawClient } from './raw-client.ts';
import type { Step } from './raw-client.ts';
import type { Faithful, HostileRequest } from './hostile-case.ts';
import { caseOf, echoOf, leftoverOf } from './raw-endpoint.ts';
import type { RawEndpoint } from './raw-endpoint.ts';
import { isBetween, valuesOf } from './raw-message.ts';
import type { RawMessage } from './raw-message.ts';
import { inLane } from './raw-lanes.ts';
import { piecesOf } from './raw-pieces.ts';
import type { Lane, Lanes } from './raw-lanes.ts';

/**
 * How the bytes come: in one write; in many, split where readers begin anew; with a pause between head and body; after a good request on the same
 * connection.
 */
export const VARIANTS = ['whole', 'split', 'paused', 'second'] as const;
export type Variant = (typeof VARIANTS)[number];

const GAP_MS = 1;
const PAUSE_MS = 15;
/** What is to close at once may take that long. */
const CLOSE_MS = 1_500;

interface Run {
  readonly row: HostileRequest;
  readonly variant: Variant;
  readonly lane: Lane;
  readonly client: RawClient;
  readonly faults: string[];
  /** How many requests the endpoints had seen. */
  readonly before: { readonly a: number; readonly b: number };
}

export interface JudgeOptions {
  readonly lanes: Lanes;
  readonly dueMs: number;
}

export async function judgeRequest(row: HostileRequest, variant: Variant, options: JudgeOptions): Promise<string[]> {
  return await options.lanes.take(async (lane) => {
    using client = await RawClient.open(clientTo(options.lanes, row));
    const before = { a: lane.a.seen.length, b: lane.b.seen.length };
    const run: Run = { row, variant, lane, client, faults: [], before };
    if (variant === 'second') await good(run, client, 'first');
    const earlier = client.finals.length;
    client.expect(...row.passes.map(({ method }) => method));
    await client.perform(stepsOf(inLane(row.bytes, lane), row, variant));
    const due = row.passes.length + (row.refusal.length > 0 ? 1 : 0);
    if (row.ends) await client.closed(options.dueMs);
    else await client.answers(earlier + due, options.dueMs);
    judgeAnswers(run, client.finals.slice(earlier));
    await judgeEnd(run, earlier + due);
    await upstreamSettled(run);
    judgeUpstream(run);
    using fresh = await RawClient.open({ port: options.lanes.httpPort });
    await good(run, fresh, 'fresh canary');
    return run.faults.map((fault) => `${variant}: ${fault}`);
  });
}

function clientTo(lanes: Lanes, row: HostileRequest): { port: number; serverName?: string } {
  return row.secure ? { port: lanes.httpsPort, serverName: 'default.test' } : { port: lanes.httpPort };
}

/** A request that nothing is wrong with, which has to get its own answer. */
async function good(run: Run, client: RawClient, what: string): Promise<void> {
  const id = run.lane.nextId();
  const scheme = run.row.secure && what !== 'fresh canary' ? 'https' : 'http';
  const text = `GET /canary/${id} HTTP/1.1\r\nHost: ${run.lane.hostA}\r\nX-Case: ${id}\r\nX-Scheme: ${scheme}\r\n\r\n`;
  try {
    const answer = await client.ask(text);
    const wanted = `${id} GET /canary/${id} 0`;
    if (answer.status !== 200 || answer.body !== wanted)
      run.faults.push(`${what} got ${answer.startLine} ${JSON.stringify(answer.body)} in place of ${wanted}`);
    if (client.reader.fault !== undefined || client.reader.rest !== '') run.faults.push(`${what}: surplus: ${client.state}`);
  } catch (error) {
    run.faults.push(`${what}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function stepsOf(text: string, row: HostileRequest, variant: Variant): Step[] {
  const end: Step[] = row.ends ? [{ waitMs: PAUSE_MS }, { end: true }] : [];
  if (variant === 'split') return [...piecesOf(text).flatMap((piece): Step[] => [{ write: piece }, { waitMs: GAP_MS }]), ...end];
  if (variant !== 'paused') return [{ write: text }, ...end];
  const headEnd = text.indexOf('\r\n\r\n') + 4;
  const at = headEnd > 3 && headEnd < text.length ? headEnd : Math.ceil(text.length / 2);
  return [{ write: text.slice(0, at) }, { waitMs: PAUSE_MS }, { write: text.slice(at) }, ...end];
}

/** One answer for each request that went on, the endpoint's; then at most one of the edge, its refusal. */
function judgeAnswers(run: Run, answers: readonly RawMessage[]): void {
  const { row, faults, client } = run;
  for (const [index, wanted] of row.passes.entries()) {
    const answer = answers[index];
    if (answer === undefined) faults.push(`no answer ${String(index)} to ${wanted.method} ${wanted.target}: ${client.state}`);
    else if (answer.status !== 200 || (wanted.method !== 'HEAD' && answer.body !== bodyFor(wanted, run.lane)))
      faults.push(`answer ${String(index)} is ${answer.startLine} ${JSON.stringify(answer.body)}`);
  }
  const [own, ...more] = answers.slice(row.passes.length);
  if (more.length > 0) faults.push(`${String(more.length)} answers too many: ${client.state}`);
  if (row.refusal.length > 0) judgeRefusal(run, own);
  else if (own !== undefined && !(row.ends && UNFINISHED.has(own.status))) faults.push(`unasked answer: ${client.state}`);
}

/** What a client may be told that ends in the middle: it is malformed, too slow, or longer than any body may be. */
const UNFINISHED: ReadonlySet<number> = new Set([400, 408, 413]);

/** What an endpoint answers to it (`echoOf`). */
function bodyFor(wanted: Faithful, lane: Lane): string {
  return ` ${wanted.method} ${inLane(wanted.target, lane)} ${String(inLane(wanted.body, lane).length)}`;
}

const ERRORS: Readonly<Record<number, string>> = { 404: 'destination_not_found', 405: 'http_request_denied' };

function judgeRefusal(run: Run, own: RawMessage | undefined): void {
  const { row, faults, client } = run;
  if (own === undefined) {
    faults.push(`not refused: ${client.state}`);
    return;
  }
  if (!row.refusal.includes(own.status)) faults.push(`refused with ${own.startLine} in place of ${row.refusal.join(' or ')}`);
  const wanted = `ecluse; error=${ERRORS[own.status] ?? 'http_request_error'}`;
  const said = valuesOf(own, 'proxy-status').join(' and ');
  if (said !== wanted) faults.push(`Proxy-Status of ${own.startLine} is ${JSON.stringify(said)} in place of ${wanted}`);
  if (own.status !== 404 && !saysClose(own)) faults.push(`${own.startLine} does not say Connection: close`);
}

function saysClose(message: RawMessage): boolean {
  return valuesOf(message, 'connection').some((value) => value.toLowerCase() === 'close');
}

/** A connection that was refused or is to close does so without another octet; any other serves the canary next. */
async function judgeEnd(run: Run, due: number): Promise<void> {
  const { client, faults } = run;
  const last = client.finals.at(-1);
  if (client.finals.length < due || client.reader.fault !== undefined) {
    if (client.reader.fault !== undefined) faults.push(`the answer is malformed: ${client.state}`);
    return;
  }
  if (run.row.ends || (last !== undefined && saysClose(last))) {
    if (!(await client.closed(CLOSE_MS))) faults.push(`the connection stays open: ${client.state}`);
  } else if (client.ended === 'no') await good(run, client, 'canary');
  else faults.push(`closed without saying so: ${client.state}`);
  const between = isBetween(client.reader);
  if (!between && !run.row.ends) faults.push(`surplus bytes for the client: ${client.state}`);
}

/** Waits until the edge has given up what will not become whole. */
async function upstreamSettled(run: Run): Promise<void> {
  const limit = performance.now() + CLOSE_MS;
  while (performance.now() < limit && connectionsSince(run).some((one) => leftoverOf(one) !== undefined && !one.closed))
    await sleep(5);
}

function connectionsSince(run: Run): RawEndpoint['each'] {
  const { lane } = run;
  return [...lane.a.each, ...lane.b.each].filter(({ reported }) => !reported.done);
}

/** Endpoints saw what was to pass, canaries, and nothing else; not even the beginning of a request, unless the fault came later. */
function judgeUpstream(run: Run): void {
  const { row, lane, before, faults } = run;
  const seen = { a: requestsSince(lane.a, before.a), b: requestsSince(lane.b, before.b) };
  const next = { a: 0, b: 0 };
  for (const wanted of row.passes) {
    const got = seen[wanted.host][next[wanted.host]];
    next[wanted.host] += 1;
    if (got === undefined) faults.push(`${wanted.method} ${wanted.target} did not reach endpoint ${wanted.host}`);
    else faults.push(...unfaithful(got, wanted, run));
  }
  const surplus = [...seen.a.slice(next.a), ...seen.b.slice(next.b)];
  for (const message of surplus) faults.push(`an endpoint got ${message.startLine} ${JSON.stringify(message.body)}`);
  for (const connection of connectionsSince(run)) {
    const leftover = leftoverOf(connection);
    if (leftover !== undefined) {
      const allowed = row.late && connection.reader.fault === undefined && connection.closed;
      if (!allowed) faults.push(`an endpoint got a part${connection.closed ? '' : ' and waits'}: ${leftover}`);
      connection.reported.done = true;
    }
  }
}

/** What an endpoint saw of the row itself. */
function requestsSince(endpoint: RawEndpoint, before: number): RawMessage[] {
  return endpoint.seen
    .slice(before)
    .map(({ message }) => message)
    .filter((message) => caseOf(message) === '');
}

const HOP_BY_HOP = ['keep-alive', 'proxy-connection', 'upgrade', 'http2-settings'];
/** What a Connection of the edge's own may say. */
const OWN_OPTIONS: ReadonlySet<string> = new Set(['keep-alive', 'close', 'te']);

function unfaithful(got: RawMessage, wanted: Faithful, run: Run): string[] {
  const { lane } = run;
  const faults: string[] = [];
  const body = inLane(wanted.body, lane);
  const host = wanted.host === 'a' ? lane.hostA : lane.hostB;
  const differ = (what: string, is: string, was: string): void => {
    if (is !== was)
      faults.push(`the endpoint got ${what} ${JSON.stringify(is)} in place of ${JSON.stringify(was)}: ${echoOf(got)}`);
  };
  differ('method', got.method, wanted.method);
  differ('target', got.target, inLane(wanted.target, lane));
  differ('body', got.body, body);
  differ('host', (valuesOf(got, 'host')[0] ?? '').toLowerCase().replace(/\.?(?::\d*)?$/, ''), host);
  // A length of 0 says no more than no length (RFC 9110 §8.6).
  const empty = body === '' && (wanted.framing === 'none' || wanted.framing === 'fixed') && got.framing !== 'chunked';
  if (!empty) differ('framing', got.framing, wanted.framing);
  for (const name of wanted.has) if (valuesOf(got, name).length !== 1) faults.push(`the endpoint did not get ${name}`);
  const lacks = new Set([...wanted.lacks, ...HOP_BY_HOP]);
  for (const name of lacks) if (valuesOf(got, name).length > 0) faults.push(`the endpoint got ${name}`);
  const options = valuesOf(got, 'connection').flatMap((value) => value.toLowerCase().split(/ *, */));
  for (const option of options) if (!OWN_OPTIONS.has(option)) faults.push(`the endpoint got Connection: ${option}`);
  for (const value of valuesOf(got, 'te')) differ('TE', value, 'trailers');
  return faults;
}
