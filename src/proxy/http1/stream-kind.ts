/** Whether a response is a stream without an end of its own. Pure. */
import { FIELD, isIn } from './field-names.ts';
import { FIELD_STRIDE, valueEnd, valueStart } from './head-view.ts';
import type { HeadView } from './head-view.ts';

const CONTENT_TYPE = 'content-type';
const CONTENT_ENCODING = 'content-encoding';
const EVENT_STREAM = 'text/event-stream';
const LOWER = 0x20;

/** RFC 6455 §4.1: whether a 101 switches to WebSocket. */
export function isWebSocket(bytes: Buffer, view: HeadView): boolean {
  if (!isIn(view.seen, FIELD.upgrade)) return false;
  const start = valueStart(view, FIELD.upgrade);
  return hasText(bytes, start, valueEnd(view, FIELD.upgrade), 'websocket');
}

/** Whether a response carries server-sent events; `encoded`: in a coding, into which nothing can be put. */
export function eventStreamOf(bytes: Buffer, view: HeadView): 'plain' | 'encoded' | undefined {
  const type = fieldNamed(bytes, view, CONTENT_TYPE);
  if (type === -1) return undefined;
  const start = view.fields[type + 2] ?? 0;
  const end = view.fields[type + 3] ?? 0;
  const typeEnd = start + EVENT_STREAM.length;
  if (!hasText(bytes, start, Math.min(end, typeEnd), EVENT_STREAM)) return undefined;
  const after = typeEnd < end ? String.fromCharCode(bytes[typeEnd] ?? 0) : ';';
  if (after !== ';' && after !== ' ' && after !== '\t') return undefined;
  return fieldNamed(bytes, view, CONTENT_ENCODING) === -1 ? 'plain' : 'encoded';
}

/** Index into `view.fields` of the first field of a name, in lower case; -1: there is none. */
function fieldNamed(bytes: Buffer, view: HeadView, name: string): number {
  const used = view.fieldCount * FIELD_STRIDE;
  for (let at = 0; at < used; at += FIELD_STRIDE) {
    const start = view.fields[at] ?? 0;
    if (hasText(bytes, start, view.fields[at + 1] ?? 0, name)) return at;
  }
  return -1;
}

/** Whether `[start, end)` is `text`, which is in lower case, in any case. */
function hasText(bytes: Buffer, start: number, end: number, text: string): boolean {
  if (end - start !== text.length) return false;
  for (let index = 0; index < text.length; index += 1) {
    const octet = bytes[start + index] ?? 0;
    const lower = octet >= 65 && octet <= 90 ? octet | LOWER : octet;
    if (lower !== text.charCodeAt(index)) return false;
  }
  return true;
}
