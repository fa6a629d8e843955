/** Everything that is tried with one input. */
import { performance } from 'node:perf_hooks';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { FRAMING } from '#proxy/http1/body-framing.ts';
import { compare } from './compare.ts';
import type { Comparison } from './compare.ts';
import type { Input } from './input.ts';
import { NodeClient, NodeServer } from './node-reading.ts';
import { readOurs, unfinishedBytes } from './our-reading.ts';
import type { Message, Reading } from './our-reading.ts';
import { createRandom } from './random.ts';
import type { Random } from './random.ts';
import { isInterim, judgeRewritten, rewriter, rewrittenBytes } from './rewriting.ts';

export interface Fault {
  /** What kind of fault it is: a smaller input is the same fault if it has this kind. */
  readonly kind: string;
  readonly detail: string;
}

export interface Verdict {
  readonly faults: readonly Fault[];
  readonly justified: readonly string[];
  /** Messages that we took whole, and those of them that Node was asked about. */
  readonly accepted: number;
  readonly compared: number;
}

const INPUT_MS_MAX = 1000;
const SPLITS = 3;
const SINGLE_OCTETS_MAX = 600;
const NOTHING: Reading = { messages: [], stop: '' };

/** Octets that Node is to read, and what we make of them. */
interface Question {
  readonly input: Input;
  readonly where: string;
  readonly bytes: Buffer;
  readonly messages: readonly Message[];
  /** Where `messages` begin in what the offsets count from. */
  readonly base: number;
  readonly client: NodeClient | undefined;
}

interface Trial {
  readonly faults: Fault[];
  readonly justified: string[];
  readonly accepted: number;
  readonly questions: readonly Question[];
}

const server = new NodeServer();

/** `begins` is called before each input. */
export async function examine(inputs: readonly Input[], begins: (input: Input) => void): Promise<readonly Verdict[]> {
  const trials = inputs.map((input) => {
    begins(input);
    return tried(input);
  });
  await nextTurn();
  return trials.map(({ faults, justified, accepted, questions }) => {
    let compared = 0;
    for (const each of questions) {
      begins(each.input);
      compared += each.messages.length;
      const answer = answered(each);
      justified.push(...answer.justified);
      const { difference } = answer;
      if (difference !== undefined)
        faults.push({
          kind: `${each.where}: ${difference.what}`,
          detail: `ours ${difference.ours}; Node ${difference.theirs}`,
        });
    }
    return { faults, justified, accepted, compared };
  });
}

function answered({ input, bytes, messages, base, client }: Question): Comparison {
  try {
    const moved = base === 0 ? messages : messages.map((message) => ({ ...message, end: message.end - base }));
    const ends = moved.map(({ end }) => end);
    const closes = messages.at(-1)?.framing === FRAMING.untilClose;
    const theirs = input.kind === 'request' ? server.read(bytes, ends) : client?.read(bytes, ends, closes);
    return theirs === undefined ? { difference: undefined, justified: [] } : compare(moved, theirs);
  } catch (error) {
    return { difference: { what: 'throws', ours: String(error), theirs: '' }, justified: [] };
  }
}

function tried(input: Input): Trial {
  const faults: Fault[] = [];
  const bytes = Buffer.from(input.text, 'latin1');
  const startedMs = performance.now();
  let reading = NOTHING;
  let questions: Question[] = [];
  try {
    reading = readOurs(input, [bytes], rewriter(input.kind, input.context));
    const fault = splitFault(input, bytes, reading);
    if (fault !== undefined) faults.push(fault);
    questions = asked(input, bytes, reading, faults);
  } catch (error) {
    faults.push({ kind: `throws: ${String(error)}`, detail: error instanceof Error ? (error.stack ?? '') : '' });
  }
  const elapsedMs = performance.now() - startedMs;
  if (elapsedMs > INPUT_MS_MAX) faults.push({ kind: 'slow', detail: `${Math.round(elapsedMs)} ms` });
  if (unfinishedBytes() !== 0) faults.push({ kind: 'unfinished heads are not let go', detail: String(unfinishedBytes()) });
  return { faults, justified: [], accepted: reading.messages.length, questions };
}

/** Splits are chosen by the input alone, so that a smaller one can be judged by itself. */
function splitFault(input: Input, bytes: Buffer, whole: Reading): Fault | undefined {
  const random = createRandom(bytes.length * 31 + (bytes[bytes.length >> 1] ?? 0));
  const wanted = summary(whole);
  for (let split = 0; split < SPLITS; split += 1) {
    const octets = split === 0 && bytes.length <= SINGLE_OCTETS_MAX;
    const pieces = octets ? Array.from(bytes, (octet) => Buffer.of(octet)) : piecesOf(bytes, random);
    const other = summary(readOurs(input, pieces));
    if (other !== wanted)
      return {
        kind: 'split',
        detail: `in pieces of ${pieces.map(({ length }) => length).join()}: ${other} instead of ${wanted}`,
      };
  }
  return undefined;
}

function summary({ messages, stop }: Reading): string {
  return JSON.stringify([stop, messages.map((message) => ({ ...message, rewritten: '' }))]);
}

function piecesOf(bytes: Buffer, random: Random): Buffer[] {
  const cuts = random.many([1, 6], () => random.below(bytes.length + 1)).toSorted((one, other) => one - other);
  return [...cuts, bytes.length].map((cut, index) => Buffer.from(bytes.subarray(cuts[index - 1] ?? 0, cut)));
}

/** What Node is asked: about what came, and about what goes on. */
function asked(input: Input, bytes: Buffer, reading: Reading, faults: Fault[]): Question[] {
  const groups = input.kind === 'request' ? [reading.messages] : exchanges(reading.messages, input.context.method);
  let base = 0;
  return groups.flatMap((messages) => {
    const end = messages.at(-1)?.end ?? base;
    const questions =
      messages.length === 0 ? [] : [question(input, { where: 'read', bytes: bytes.subarray(base, end), messages, base })];
    base = end;
    const forwarded = messages.filter((message) => message.method !== 'CONNECT');
    if (forwarded.length === 0) return questions;
    const { reading: went, fault } = judgeRewritten(input.kind, input.context, forwarded);
    if (fault !== '') faults.push({ kind: `rewritten ${fault.replace(/:.*/s, '')}`, detail: fault });
    const written = Buffer.from(forwarded.map((message) => rewrittenBytes(message)).join(''), 'latin1');
    if (fault === '') questions.push(question(input, { where: 'rewritten', bytes: written, messages: went.messages, base: 0 }));
    return questions;
  });
}

function question(input: Input, known: Omit<Question, 'input' | 'client'>): Question {
  if (input.kind === 'request') return { ...known, input, client: undefined };
  const { method } = input.context;
  // RFC 9110 §9.3.6: only 2xx is a tunnel. Node's client takes every response to CONNECT for one; as any other request's, it frames it.
  const ordinary = method === 'CONNECT' && known.messages[0]?.framing !== FRAMING.tunnel;
  return { ...known, input, client: new NodeClient(ordinary ? 'GET' : method) };
}

/** Responses by exchange: each ends with one that is final. To CONNECT: each by itself. */
function exchanges(messages: readonly Message[], method: string): Message[][] {
  const groups: Message[][] = [[]];
  for (const message of messages) {
    groups.at(-1)?.push(message);
    if (!isInterim(message) || method === 'CONNECT') groups.push([]);
  }
  return groups.filter((group) => group.length > 0);
}
