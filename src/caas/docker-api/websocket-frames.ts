/** WebSocket frames (RFC 6455 §5) as a server reads and writes them. Payloads stream: no frame is collected. Pure. */

const OPCODES = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;
export type FrameKind = keyof typeof OPCODES;

/** Of a control frame (§5.5). */
const CONTROL_BYTES_MAX = 125;
const NORMAL_CLOSURE = 1000;

/** What bytes of a client meant, in order. */
export type FrameNews =
  | { readonly kind: 'payload'; readonly bytes: Buffer }
  | { readonly kind: 'ping'; readonly bytes: Buffer }
  | { readonly kind: 'close' }
  /** No WebSocket client sends this. */
  | { readonly kind: 'broken'; readonly reason: string };

interface OpenFrame {
  readonly opcode: number;
  readonly mask: Buffer;
  left: number;
  maskAt: number;
}

type Head =
  | { readonly kind: 'more' }
  | { readonly kind: 'broken'; readonly reason: string }
  | { readonly kind: 'head'; readonly opcode: number; readonly length: number; readonly bytes: number };

/** Why the first two bytes of a frame are none that a client may send. */
function faultOf(first: number, second: number): string | undefined {
  const opcode = first & 0x0f;
  const isControl = opcode >= OPCODES.close;
  if ((first & 0x70) !== 0) return 'a reserved bit is set';
  if ((second & 0x80) === 0) return 'a frame of a client is not masked';
  if (opcode > OPCODES.pong || (opcode > OPCODES.binary && !isControl)) return 'an unknown opcode';
  const isWhole = (first & 0x80) !== 0;
  return isControl && ((second & 0x7f) > CONTROL_BYTES_MAX || !isWhole) ? 'a control frame is too long or in pieces' : undefined;
}

function readHead(bytes: Buffer): Head {
  const [first, second] = bytes;
  if (first === undefined || second === undefined) return { kind: 'more' };
  const reason = faultOf(first, second);
  if (reason !== undefined) return { kind: 'broken', reason };
  const opcode = first & 0x0f;
  const short = second & 0x7f;
  const lengthBytes = short === 126 ? 2 : short === 127 ? 8 : 0;
  const head = 2 + lengthBytes + 4;
  if (bytes.length < head) return { kind: 'more' };
  const length = lengthBytes === 0 ? short : lengthBytes === 2 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2));
  if (!Number.isSafeInteger(length)) return { kind: 'broken', reason: 'a frame is too long' };
  return { kind: 'head', opcode, length, bytes: head };
}

/** Reads what a client sends, in any pieces. */
export class FrameReader {
  #pending: Buffer = Buffer.alloc(0);
  #frame: OpenFrame | undefined;
  #control: Buffer[] = [];

  push(chunk: Buffer): readonly FrameNews[] {
    let bytes = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    const news: FrameNews[] = [];
    for (;;) {
      if (this.#frame === undefined) {
        const head = readHead(bytes);
        if (head.kind === 'more') break;
        if (head.kind === 'broken') return [...news, head];
        const mask = Buffer.from(bytes.subarray(head.bytes - 4, head.bytes));
        this.#frame = { opcode: head.opcode, mask, left: head.length, maskAt: 0 };
        bytes = bytes.subarray(head.bytes);
      }
      const taken = bytes.subarray(0, this.#frame.left);
      if (taken.length === 0 && this.#frame.left > 0) break;
      bytes = bytes.subarray(taken.length);
      this.#take(this.#frame, taken, news);
      if (news.at(-1)?.kind === 'close') return news;
    }
    this.#pending = Buffer.from(bytes);
    return news;
  }

  #take(frame: OpenFrame, masked: Buffer, news: FrameNews[]): void {
    const bytes = Buffer.allocUnsafe(masked.length);
    for (let at = 0; at < masked.length; at += 1) bytes[at] = (masked[at] ?? 0) ^ (frame.mask[(frame.maskAt + at) & 3] ?? 0);
    frame.maskAt += masked.length;
    frame.left -= masked.length;
    const isOver = frame.left === 0;
    if (isOver) this.#frame = undefined;
    if (frame.opcode <= OPCODES.binary) {
      if (bytes.length > 0) news.push({ kind: 'payload', bytes });
      return;
    }
    this.#control.push(bytes);
    if (!isOver) return;
    const whole = Buffer.concat(this.#control);
    this.#control = [];
    if (frame.opcode === OPCODES.close) news.push({ kind: 'close' });
    else if (frame.opcode === OPCODES.ping) news.push({ kind: 'ping', bytes: whole });
  }
}

/** One whole frame of a server: never masked. */
export function encodeFrame(kind: FrameKind, payload: Buffer): Buffer {
  const long = payload.length > 0xffff ? 8 : payload.length > 125 ? 2 : 0;
  const head = Buffer.alloc(2 + long);
  head[0] = 0x80 | OPCODES[kind];
  head[1] = long === 8 ? 127 : long === 2 ? 126 : payload.length;
  if (long === 2) head.writeUInt16BE(payload.length, 2);
  if (long === 8) head.writeBigUInt64BE(BigInt(payload.length), 2);
  return Buffer.concat([head, payload]);
}

export function encodeClose(code: number = NORMAL_CLOSURE): Buffer {
  const payload = Buffer.alloc(2);
  payload.writeUInt16BE(code);
  return encodeFrame('close', payload);
}
