/** Lets an endpoint answer with hostile bytes and says everything that is wrong with what clients see of it. */
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { HostileResponse } from './hostile-responses.ts';
import { RawClient } from './raw-client.ts';
import { caseOf, echo } from './raw-endpoint.ts';
import type { EndpointBehaviour, EndpointConnection } from './raw-endpoint.ts';
import { isBetween, valuesOf } from './raw-message.ts';
import type { RawMessage } from './raw-message.ts';
import type { Lane, Lanes } from './raw-lanes.ts';
import { piecesOf } from './raw-pieces.ts';

/** How the endpoint's bytes come: in one write; in many; what does not belong to the response 20 ms after it. */
export const RESPONSE_VARIANTS = ['whole', 'split', 'late'] as const;
export type ResponseVariant = (typeof RESPONSE_VARIANTS)[number];

const GAP_MS = 1;
const LATE_MS = 20;
const CLOSE_MS = 1_500;

interface Script {
  readonly row: HostileResponse;
  readonly variant: ResponseVariant;
  /** What the endpoint wrote it to; more than one where the edge tried again. */
  readonly played: EndpointConnection[];
  readonly running: Promise<void>[];
}

export interface Scripts {
  readonly behaviour: EndpointBehaviour;
  readonly byCase: Map<string, Script>;
}

/** Endpoints that play the script of a case where there is one, and echo all other requests. */
export function createScripts(): Scripts {
  const byCase = new Map<string, Script>();
  const begin = (script: Script, connection: EndpointConnection): void => {
    script.played.push(connection);
    script.running.push(play(script, connection.socket));
  };
  return {
    byCase,
    behaviour: {
      onHead: (head, connection) => {
        const script = byCase.get(caseOf(head));
        if (script?.row.early === true) begin(script, connection);
      },
      onRequest: (seen) => {
        const script = byCase.get(caseOf(seen.message));
        if (script === undefined) echo(seen);
        else if (!script.row.early) begin(script, seen.connection);
      },
    },
  };
}

async function play(script: Script, socket: Socket): Promise<void> {
  const { row, variant } = script;
  const write = (text: string): void => {
    if (text !== '' && socket.writable) socket.write(text, 'latin1');
  };
  if (variant === 'split') {
    for (const piece of piecesOf(row.bytes)) {
      write(piece);
      await sleep(GAP_MS);
    }
    write(row.surplus);
  } else if (variant === 'late') {
    write(row.bytes);
    await sleep(LATE_MS);
    write(row.surplus);
  } else write(row.bytes + row.surplus);
  if (row.leaves === 'end') socket.end();
  else if (row.leaves === 'reset') {
    // Written bytes go first, so that it is the response that is cut and not the request.
    await sleep(GAP_MS);
    socket.resetAndDestroy();
  }
}

interface Run {
  readonly script: Script;
  readonly lane: Lane;
  readonly client: RawClient;
  readonly faults: string[];
}

export async function judgeResponse(
  row: HostileResponse,
  variant: ResponseVariant,
  options: { readonly lanes: Lanes; readonly scripts: Scripts; readonly dueMs: number },
): Promise<string[]> {
  const { lanes, scripts, dueMs } = options;
  return await lanes.take(async (lane) => {
    using client = await RawClient.open({ port: lanes.httpPort });
    const id = lane.nextId();
    const script: Script = { row, variant, played: [], running: [] };
    scripts.byCase.set(id, script);
    const run: Run = { script, lane, client, faults: [] };
    client.expect(row.method);
    const [head, body] = requestOf(row, lane, id);
    client.send(head + (row.early ? '' : body));
    if (row.early) {
      await sleep(LATE_MS);
      client.send(body);
    }
    await client.answers(1, dueMs);
    await Promise.all(script.running);
    judgeAnswer(run);
    // What comes after the response can cross the next request, and then nobody can tell: the edge has to have seen it first.
    if (variant === 'whole') await judgeConnection(run);
    await judgeEndpoint(run);
    if (variant !== 'whole') await judgeConnection(run);
    using fresh = await RawClient.open({ port: lanes.httpPort });
    await canary(run, fresh, 'fresh canary');
    scripts.byCase.delete(id);
    return run.faults.map((fault) => `${variant}: ${fault}`);
  });
}

function requestOf(row: HostileResponse, lane: Lane, id: string): [head: string, body: string] {
  const body = row.method === 'POST' ? 'the body' : '';
  const length = row.method === 'POST' ? `Content-Length: ${String(body.length)}\r\n` : '';
  return [`${row.method} /r/${id} HTTP/1.1\r\nHost: ${lane.hostA}\r\nX-Case: ${id}\r\n${row.fields}${length}\r\n`, body];
}

async function canary(run: Run, client: RawClient, what: string): Promise<void> {
  const id = run.lane.nextId();
  try {
    const answer = await client.ask(`GET /canary/${id} HTTP/1.1\r\nHost: ${run.lane.hostA}\r\nX-Case: ${id}\r\n\r\n`);
    const wanted = `${id} GET /canary/${id} 0`;
    if (answer.status !== 200 || answer.body !== wanted)
      run.faults.push(`${what} got ${answer.startLine} ${JSON.stringify(answer.body)} in place of ${wanted}`);
    if (!isBetween(client.reader)) run.faults.push(`${what}: surplus: ${client.state}`);
  } catch (error) {
    run.faults.push(`${what}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

const OWN_ERROR = /^ecluse; error=(?:http_protocol_error|http_response_[a-z_]+|http_upgrade_failed|connection_terminated)$/;

function isOwn(answer: RawMessage): boolean {
  return answer.status === 502 && OWN_ERROR.test(valuesOf(answer, 'proxy-status').join(' and '));
}

function judgeAnswer(run: Run): void {
  const { client, faults } = run;
  const { wanted } = run.script.row;
  const [answer, ...more] = client.finals;
  if (client.reader.fault !== undefined) faults.push(`the client got malformed bytes: ${client.state}`);
  if (more.length > 0) faults.push(`${String(more.length)} answers too many: ${client.state}`);
  if (answer === undefined) {
    if (client.ended === 'no') faults.push(`neither an answer nor an end: ${client.state}`);
    else if (wanted.kind !== 'cut') faults.push(`cut in place of an answer: ${client.state}`);
    return;
  }
  if (isOwn(answer)) {
    if (wanted.kind === 'whole') faults.push(`502 in place of ${String(wanted.status)}: ${client.state}`);
    return;
  }
  if (wanted.kind === 'bad' || wanted.kind === 'cut') {
    faults.push(`passed off as whole: ${client.state}`);
    return;
  }
  if (answer.status !== wanted.status) faults.push(`${answer.startLine} in place of ${String(wanted.status)}`);
  if (answer.body !== wanted.body) faults.push(`body ${JSON.stringify(answer.body)} in place of ${JSON.stringify(wanted.body)}`);
}

/** A connection that stays serves the next request. */
async function judgeConnection(run: Run): Promise<void> {
  const { client, faults } = run;
  const answer = client.finals.at(-1);
  if (answer === undefined || client.reader.fault !== undefined) return;
  const saysClose = valuesOf(answer, 'connection').some((value) => value.toLowerCase() === 'close');
  if (saysClose) {
    if (!(await client.closed(CLOSE_MS))) faults.push(`the connection stays open: ${client.state}`);
  } else if (client.ended === 'no') {
    // An early answer may have gone out before it was known that the connection cannot stay.
    if (!run.script.row.early) await canary(run, client, 'canary');
  } else if (!run.script.row.early) faults.push(`closed without saying so: ${client.state}`);
  if (!isBetween(client.reader)) faults.push(`surplus bytes for the client: ${client.state}`);
}

/** What holds octets that belong to no response, or a response that is not whole, is closed and never used again. */
async function judgeEndpoint(run: Run): Promise<void> {
  const { row, played } = run.script;
  if (played.length === 0) run.faults.push('the request did not reach the endpoint');
  const spoiled = row.surplus !== '' || row.wanted.kind === 'bad' || row.wanted.kind === 'cut';
  if (!spoiled || row.leaves !== 'stay') return;
  const limit = performance.now() + CLOSE_MS;
  while (played.some(({ closed }) => !closed) && performance.now() < limit) await sleep(4);
  if (played.some(({ closed }) => !closed)) run.faults.push('the connection to the endpoint stays open');
}
