/**
 * Whether a head that we write says what the one said that we read: written here once more from the RFCs, with strings, and compared.
 *
 * Source: RFC 9110 §7.6.1, §7.8, §6.5.1, RFC 9112 §3.2.2, §6.1; what is dropped for reasons of trust: `field-names.ts`.
 */
import { OUTPUT, ResponseWriter } from '#proxy/connection/response-writer.ts';
import { FRAMING } from '#proxy/http1/body-framing.ts';
import {
  createHeadWriter,
  createRequestEdits,
  createResponseEdits,
  writeRequestHead,
  writeResponseHead,
} from '#proxy/http1/rewrite.ts';
import type { HeadKind } from '#proxy/http1/head-view.ts';
import { bodyOf } from './body.ts';
import type { Context } from './input.ts';
import { CHUNK_LIMITS, readOurs } from './our-reading.ts';
import type { Head, Message, OnHead, Reading } from './our-reading.ts';

const ADDRESS = '203.0.113.7';
const DEFAULT_HOST = Buffer.from('default.test');
const WALL_MS = 1_760_000_000_000;
const EMPTY = Buffer.alloc(0);
const writer = createHeadWriter(Buffer.alloc(256 * 1024));
const responses = new ResponseWriter(CHUNK_LIMITS);
const HOP_BY_HOP = [
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'proxy-authorization',
  'te',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
];
const NEVER_NOMINATED = [
  'host',
  'content-length',
  'transfer-encoding',
  'authorization',
  'cookie',
  'set-cookie',
  'expect',
  'trailer',
  'connection',
  'forwarded',
  'x-real-ip',
  'x-forwarded-for',
  'x-forwarded-proto',
  'x-forwarded-host',
];
const OWN = new Set([
  'host',
  'x-forwarded-for',
  'x-forwarded-proto',
  'x-forwarded-host',
  'x-ecluse-host',
  'forwarded',
  'x-request-id',
  'transfer-encoding',
  'connection',
  'upgrade',
  'te',
  'date',
]);
/** At most one of each leaves, whatever came: of messages, and of requests. */
const ONCE = ['content-length', 'transfer-encoding', 'connection', 'te', 'upgrade'];
const ONCE_IN_REQUESTS = [...ONCE, 'host', 'x-request-id', 'x-ecluse-host', 'forwarded', 'x-forwarded-for'];
const BETWEEN_HOPS: ReadonlyMap<string, RegExp> = new Map([
  ['transfer-encoding', /^chunked$/],
  ['connection', /^(?:close|keep-alive|TE|Upgrade|close, Upgrade)$/],
  ['te', /^trailers$/],
  ['upgrade', /^/],
]);

export function rewriter(kind: HeadKind, context: Context): OnHead {
  return kind === 'request' ? requestRewriter(context) : responseRewriter(context);
}

function requestRewriter(context: Context): OnHead {
  const proto = context.secure ? 'https' : 'http';
  const edits = createRequestEdits({ clientAddress: ADDRESS, proto, hostName: 'node-a', trusted: context.trusted });
  edits.requestId = Buffer.from('id-1');
  return (bytes, view, head) => {
    if (head.method === 'CONNECT') return '';
    edits.host = head.authority === '' ? DEFAULT_HOST : EMPTY;
    edits.upgrade = head.upgrade;
    edits.trailers = head.trailers;
    writer.at = 0;
    return writer.out.toString('latin1', 0, writeRequestHead(bytes, view, edits, writer));
  };
}

function responseRewriter(context: Context): OnHead {
  const client = { minor: context.clientMinor, persistent: context.clientPersistent, wallMs: WALL_MS };
  return (bytes, view, head) => {
    if (!isInterim(head))
      return OUTPUT.out.toString('latin1', 0, responses.head(bytes, view, head.framing, { client, fields: undefined }));
    writer.at = 0;
    return writer.out.toString('latin1', 0, writeResponseHead(bytes, view, createResponseEdits(), writer));
  };
}

export function isInterim(head: Head): boolean {
  return head.status > 0 && head.status < 200 && head.status !== 101;
}

/** The octets that go on for a message. */
export function rewrittenBytes(message: Message): string {
  if (message.status === 0) return message.rewritten + message.raw;
  const [framing, came] = [outFraming(message), message.framing];
  if (framing === came) return message.rewritten + message.raw;
  const { payload } = bodyOf(message);
  if (framing !== FRAMING.chunked) return message.rewritten + payload;
  const chunk = payload === '' ? '' : `${payload.length.toString(16)}\r\n${payload}\r\n`;
  return `${message.rewritten}${chunk}0\r\n\r\n`;
}

/** As the head that was written frames, read by a plain look at it: `Following` reads it by the codec. */
function outFraming(message: Message): number {
  const chunked = message.rewritten.includes('\r\nTransfer-Encoding: chunked\r\n');
  if (message.framing === FRAMING.untilClose && chunked) return FRAMING.chunked;
  return message.framing === FRAMING.chunked && !chunked ? FRAMING.untilClose : message.framing;
}

/** Reads what was written for `messages`, and says what is wrong with it; empty: nothing. */
export function judgeRewritten(
  kind: HeadKind,
  context: Context,
  messages: readonly Message[],
): { readonly reading: Reading; readonly fault: string } {
  const bytes = Buffer.from(messages.map((message) => rewrittenBytes(message)).join(''), 'latin1');
  const reading = readOurs({ kind, context: { ...context, secure: false }, ample: true }, [bytes]);
  const count = reading.messages.length;
  if (count !== messages.length)
    return { reading, fault: `count: ${messages.length} messages went on as ${count}, ${reading.stop}` };
  for (const [index, came] of messages.entries()) {
    const went = reading.messages[index];
    if (went === undefined) continue;
    const fault = kind === 'request' ? faultOfRequest(came, went, context) : faultOfResponse(came, went, context);
    if (fault !== '') return { reading, fault };
  }
  return { reading, fault: '' };
}

function faultOfRequest(came: Message, went: Message, context: Context): string {
  const absolute = /^https?:/i.test(came.target);
  const kept = keptFields(came, (name) => dropsOfRequest(name, came, context) || (absolute && name === 'host'));
  const host = came.authority === '' ? DEFAULT_HOST.toString() : came.authority;
  const pairs: readonly Pair[] = [
    ['method', came.method, went.method],
    ['target', absolute ? originForm(came) : came.target, went.target],
    ['version', 1, went.minor],
    ['framing', came.framing, went.framing],
    ['length', came.contentLength, went.contentLength],
    ['body', came.raw, went.raw],
    ['upgrade', came.upgrade, went.upgrade],
    ['trailers', !came.upgrade && came.trailers, went.trailers],
    ['persistent', !came.upgrade, went.persistent],
    ['authority', host, went.authority],
    ['chain', chain(came, 'x-forwarded-for', context, ADDRESS), valueOf(went, 'x-forwarded-for')],
    ['request id', 'id-1', valueOf(went, 'x-request-id')],
  ];
  return firstOf(pairs) || faultOfFields(kept, went);
}

function faultOfResponse(came: Message, went: Message, context: Context): string {
  const framing = outFraming(came);
  const wanted = isInterim(came)
    ? went.persistent
    : context.clientPersistent && framing !== FRAMING.untilClose && came.status !== 101;
  const pairs: readonly Pair[] = [
    ['status', came.status, went.status],
    ['reason', came.reason, went.reason],
    ['version', 1, went.minor],
    ['framing', expectedFraming(came, context), went.framing],
    ['length', came.contentLength, went.contentLength],
    ['body', bodyOf(came).payload, bodyOf(went).payload],
    ['trailers', framing === FRAMING.chunked ? bodyOf(came).trailers.join() : '', bodyOf(went).trailers.join()],
    ['persistent', came.framing === FRAMING.tunnel ? went.persistent : wanted, went.persistent],
  ];
  return (
    firstOf(pairs) ||
    faultOfFields(
      keptFields(came, (name) => dropsOfResponse(name, came, framing)),
      went,
    )
  );
}

type Pair = readonly [what: string, expected: string | number | boolean, actual: string | number | boolean];

function firstOf(pairs: readonly Pair[]): string {
  const pair = pairs.find(([, expected, actual]) => expected !== actual);
  return pair === undefined ? '' : `${pair[0]}: ${String(pair[2])} instead of ${String(pair[1])}`;
}

function expectedFraming(came: Message, context: Context): number {
  if (came.framing === FRAMING.untilClose && context.clientMinor === 1) return FRAMING.chunked;
  return came.framing === FRAMING.chunked && context.clientMinor === 0 ? FRAMING.untilClose : came.framing;
}

/** Fields that stay come first and as they were; behind them there are ours alone. */
function faultOfFields(kept: readonly string[], went: Message): string {
  const [stayed, own] = [went.fields.slice(0, kept.length), went.fields.slice(kept.length)];
  if (JSON.stringify(stayed) !== JSON.stringify(kept))
    return `fields: ${JSON.stringify(went.fields)} instead of ${JSON.stringify(kept)}`;
  const alien = own.find((name, index) => index % 2 === 0 && !OWN.has(name.toLowerCase()));
  if (alien !== undefined) return `alien field: ${alien}`;
  const names = namesOf(went);
  const twice = (went.status === 0 ? ONCE_IN_REQUESTS : ONCE).find((name) => names.filter((other) => other === name).length > 1);
  if (twice !== undefined) return `repeated field: ${twice}`;
  if (names.includes('content-length') && names.includes('transfer-encoding')) return 'both framings';
  for (const [index, name] of names.entries()) {
    const form = BETWEEN_HOPS.get(name);
    if (form !== undefined && !form.test(went.fields[index * 2 + 1] ?? '')) return `field of another hop: ${name}`;
    if (HOP_BY_HOP.includes(name) && form === undefined) return `field of another hop: ${name}`;
  }
  return '';
}

function namesOf(message: Head): string[] {
  return message.fields.filter((_, index) => index % 2 === 0).map((name) => name.toLowerCase());
}

function valueOf(message: Head, name: string): string {
  const index = namesOf(message).indexOf(name);
  return index < 0 ? '' : (message.fields[index * 2 + 1] ?? '');
}

/** What stays of the fields, if those that `drops` names by their lower-case names go. */
function keptFields(message: Message, drops: (name: string) => boolean): string[] {
  const nominated = nominatedBy(message);
  return message.fields.filter((_, index) => {
    const name = (message.fields[index - (index % 2)] ?? '').toLowerCase();
    return !HOP_BY_HOP.includes(name) && !nominated.has(name) && !drops(name);
  });
}

/** RFC 9110 §7.6.1: every field of the name of an option goes; but for those that a sender may not take away. */
function nominatedBy(message: Head): Set<string> {
  const options = message.fields.flatMap((name, index) =>
    index % 2 === 0 && name.toLowerCase() === 'connection' ? (message.fields[index + 1] ?? '').split(',') : [],
  );
  const names = options.map((option) => option.replace(/^[ \t]+|[ \t]+$/g, '').toLowerCase());
  return new Set(
    names.filter(
      (name) => !NEVER_NOMINATED.includes(name) && !/^x[-_]forwarded[-_]./.test(name) && !/^x[-_]real[-_]ip$/.test(name),
    ),
  );
}

function dropsOfRequest(name: string, came: Message, context: Context): boolean {
  const folded = name.replaceAll('_', '-');
  if (folded === 'x-request-id' || /^x-ecluse-./.test(folded)) return true;
  if (folded === 'client-cert' || folded === 'client-cert-chain') return true;
  if (folded === 'x-forwarded-for' || name === 'forwarded') return true;
  if (!context.trusted && (/^x-forwarded-./.test(folded) || folded === 'x-real-ip')) return true;
  return (name === 'trailer' && came.framing !== FRAMING.chunked) || (name === 'expect' && came.minor === 0);
}

function dropsOfResponse(name: string, came: Message, framing: number): boolean {
  if (name === 'trailer') return framing !== FRAMING.chunked || came.framing !== FRAMING.chunked;
  if (name !== 'content-length') return false;
  const described = framing === FRAMING.none && came.status >= 200 && came.status !== 204;
  return framing !== FRAMING.fixed && !described;
}

function chain(came: Message, name: string, context: Context, own: string): string {
  const values = context.trusted
    ? came.fields.filter(
        (_, index) => index % 2 === 1 && (came.fields[index - 1] ?? '').toLowerCase().replaceAll('_', '-') === name,
      )
    : [];
  return [...values.filter((value) => value !== ''), own].join(', ');
}

/** RFC 9112 §3.2.1, §3.2.4. */
function originForm(came: Message): string {
  const path = came.target.replace(/^https?:\/\/[^/?]*/i, '');
  if (path === '') return came.method === 'OPTIONS' ? '*' : '/';
  return path.startsWith('/') ? path : `/${path}`;
}
