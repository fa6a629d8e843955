/** Whether Node reads what we take as we do; where it does not, whether there is a reason that was thought about. */
import { METHODS } from 'node:http';
import { FRAMING } from '#proxy/http1/body-framing.ts';
import { bodyOf } from './body.ts';
import type { Message } from './our-reading.ts';
import type { NodeMessage, NodeReading } from './node-reading.ts';

export interface Difference {
  /** `refused`, or what is read differently. */
  readonly what: string;
  readonly ours: string;
  readonly theirs: string;
}

export interface Comparison {
  readonly difference: Difference | undefined;
  /** Names of `JUSTIFIED` that applied; nothing behind the message at hand is compared then. */
  readonly justified: readonly string[];
}

interface Justification {
  readonly name: string;
  readonly reason: string;
  readonly applies: (ours: Message, difference: Difference, before: Message | undefined) => boolean;
}

/** Where a difference is known and ours is the reading that the RFC asks for. Everything else is a fault. */
export const JUSTIFIED: readonly Justification[] = [
  {
    name: 'unknown-method',
    reason: 'RFC 9110 §9.1: a method is any token; llhttp has a list',
    // Behind an Upgrade that was not agreed to, Node does not say why it stops.
    applies: (ours, { what, theirs }) =>
      what === 'refused' &&
      (theirs === '' || theirs.includes('INVALID_METHOD')) &&
      ours.method !== '' &&
      !METHODS.includes(ours.method),
  },
  {
    name: 'proxy-connection',
    reason: 'RFC 9112 App. C.2.2: Proxy-Connection says nothing about this connection; llhttp reads it as Connection',
    applies: (ours, difference) => isAboutConnection(difference) && hasField(ours, 'proxy-connection'),
  },
  {
    name: 'close-beside-keep-alive',
    reason: 'RFC 9112 §9.3: close counts before keep-alive; llhttp looks for keep-alive alone in HTTP/1.0',
    applies: (ours, { what }) => what === 'keep-alive' && ours.minor === 0 && !ours.persistent,
  },
  {
    name: 'interim-closes',
    reason:
      'RFC 9110 §15.2: a final response follows every 1xx; llhttp takes its version and Connection for the end of the connection',
    applies: (_ours, difference, before) =>
      isAboutConnection(difference) &&
      difference.what === 'refused' &&
      before !== undefined &&
      before.status >= 100 &&
      before.status < 200,
  },
  {
    name: 'switch-without-option',
    reason:
      'RFC 9110 §15.2.2: behind the head of a 101 there is the other protocol; llhttp wants `Connection: upgrade` there as well',
    applies: (ours, { what }) => what === 'tunnel' && ours.status === 101,
  },
  {
    name: 'head-without-length',
    reason:
      'RFC 9112 §6.3: a response to HEAD ends with its head, length or not; Node decides on persistence as if its body went until close',
    applies: (ours, { what }) =>
      what === 'keep-alive' &&
      ours.persistent &&
      ours.status >= 200 &&
      ours.framing === FRAMING.none &&
      !hasField(ours, 'content-length'),
  },
];

function hasField(message: Message, name: string): boolean {
  return message.fields.some((text, index) => index % 2 === 0 && text.toLowerCase() === name);
}

/** Whether Node has another opinion on whether anything may follow. */
function isAboutConnection({ what, theirs }: Difference): boolean {
  return what === 'keep-alive' || (what === 'refused' && theirs.includes('Data after'));
}

/** `ours` are whole; `theirs` is what Node made of the same octets. */
export function compare(ours: readonly Message[], theirs: NodeReading): Comparison {
  for (const [index, message] of ours.entries()) {
    const difference = differenceOf(message, theirs.messages[index], theirs.error);
    if (difference === undefined) continue;
    const known = JUSTIFIED.find(({ applies }) => applies(message, difference, ours[index - 1]));
    return known === undefined ? { difference, justified: [] } : { difference: undefined, justified: [known.name] };
  }
  const difference =
    theirs.messages.length > ours.length
      ? { what: 'count', ours: String(ours.length), theirs: String(theirs.messages.length) }
      : undefined;
  return { difference, justified: [] };
}

function differenceOf(ours: Message, theirs: NodeMessage | undefined, error: string): Difference | undefined {
  if (theirs === undefined) return { what: 'refused', ours: `${ours.method} ${ours.status}`, theirs: error };
  const body = bodyOf(ours);
  const interim = ours.status > 0 && ours.status < 200;
  const keeps =
    ours.upgrade || interim || ours.framing === FRAMING.tunnel || ours.method === 'CONNECT' ? theirs.persistent : ours.persistent;
  const pairs: readonly (readonly [what: string, ours: unknown, theirs: unknown])[] = [
    ['method', ours.method, theirs.method],
    ['target', ours.target, theirs.target],
    ['status', ours.status, theirs.status],
    ['reason', ours.reason, theirs.reason],
    ['version', ours.minor, theirs.minor],
    ['fields', JSON.stringify(ours.fields), JSON.stringify(theirs.fields)],
    ['body', body.payload, theirs.body],
    ['trailers', JSON.stringify(body.trailers), JSON.stringify(theirs.trailers)],
    ['end', ours.end, theirs.end],
    ['keep-alive', keeps, theirs.persistent],
    ['tunnel', ours.framing === FRAMING.tunnel || ours.method === 'CONNECT', theirs.tunnel],
  ];
  const pair = pairs.find(([, one, other]) => one !== other);
  if (pair === undefined) return undefined;
  const [what] = pair;
  // A body that Node refuses is no other reading of it.
  const late = theirs.end < 0 && error !== '';
  return { what: late ? 'refused' : what, ours: String(pair[1]), theirs: late ? error : String(pair[2]) };
}
