/** Actors that speak for themselves on sockets: pipelining, WebSockets, events, and what is no request. */
import { createConnection } from 'node:net';
import type { Socket } from 'node:net';
import type { Actor, Fault, Where } from './outcome.ts';

const LIMIT_MS = 30_000;
const PIPELINED = 8;
const FRAME_BYTES = 131;
const PINGS = 100;
const EVENTS = 20;

interface Talk {
  readonly send: (text: string | Buffer) => void;
  /** Ends the talk: undefined, or what was wrong. */
  readonly over: (fault: Fault) => void;
}

/** A connection until `over`. `take` gets all that came so far, and says how much of it is not needed any more. */
async function talk(where: Where, open: string, take: (text: string, talk: Talk) => number): Promise<Fault> {
  return await new Promise((resolve) => {
    const socket: Socket = createConnection({ port: where.httpPort, host: '127.0.0.1', noDelay: true });
    let text = '';
    const over = (fault: Fault): void => {
      resolve(fault);
      socket.destroy();
    };
    socket.setTimeout(LIMIT_MS, () => {
      over('nothing came for long');
    });
    const side: Talk = { send: (what) => socket.write(what), over };
    socket.on('connect', () => socket.write(open));
    socket.setEncoding('latin1').on('data', (piece: string) => {
      text += piece;
      text = text.slice(take(text, side));
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      over(error.code ?? error.message);
    });
    socket.on('close', () => {
      resolve('closed too early');
    });
  });
}

function headOf(where: Where, path: string, fields = ''): string {
  return `GET ${path} HTTP/1.1\r\nHost: ${where.host}\r\n${fields}\r\n`;
}

/** Requests for long and short answers in one write: the answers come whole and in turn. */
async function pipeline(where: Where): Promise<Fault> {
  const requests = Array.from({ length: PIPELINED }, (_, index) => headOf(where, index % 2 === 0 ? '/odd/16k' : '/odd/'));
  let answers = 0;
  return await talk(where, requests.join(''), (text, { over }) => {
    let at = 0;
    for (;;) {
      const end = text.indexOf('\r\n\r\n', at);
      if (end === -1) return at;
      const head = text.slice(at, end);
      const length = answers % 2 === 0 ? 16_384 : 200;
      if (!head.startsWith('HTTP/1.1 200') || !head.toLowerCase().includes(`content-length: ${String(length)}`))
        over(`answer ${String(answers)}: ${head.slice(0, 60)}`);
      if (text.length < end + 4 + length) return at;
      at = end + 4 + length;
      answers += 1;
      if (answers === PIPELINED) over(undefined);
    }
  });
}

/** Sends a frame, and the next one when it came back. The origin does not unmask it: its mask is zero. */
async function pingPong(where: Where): Promise<Fault> {
  const fields =
    'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n';
  const frame = Buffer.alloc(FRAME_BYTES, 'm');
  frame.set([0x82, 0x80 | (FRAME_BYTES - 6), 0, 0, 0, 0]);
  const echo = frame.toString('latin1');
  let [isOpen, pings] = [false, 0];
  return await talk(where, headOf(where, '/odd/ws', fields), (text, { send, over }) => {
    let at = 0;
    if (!isOpen) {
      const end = text.indexOf('\r\n\r\n');
      if (end === -1) return 0;
      if (!text.startsWith('HTTP/1.1 101')) over(text.slice(0, 60));
      isOpen = true;
      at = end + 4;
      send(frame);
    }
    if (text.length - at < FRAME_BYTES) return at;
    if (text.slice(at, at + FRAME_BYTES) !== echo) over('another frame came back');
    pings += 1;
    if (pings === PINGS) over(undefined);
    else setTimeout(send, 10, frame);
    return at + FRAME_BYTES;
  });
}

/** Events come one by one, without a gap. `leaveAt`: the client goes after so many. */
async function events(where: Where, path: string, leaveAt: number | undefined): Promise<Fault> {
  let next = 0;
  return await talk(where, headOf(where, `${path}?n=${String(EVENTS)}`), (text, { over }) => {
    let at = 0;
    if (next === 0 && text.includes('\r\n\r\n') && !text.startsWith('HTTP/1.1 200')) over(text.slice(0, 60));
    for (const { 1: id, index, 0: all } of text.matchAll(/id: (\d+)\n/g)) {
      if (Number(id) !== next) over(`event ${id ?? ''} instead of ${String(next)}`);
      next += 1;
      at = index + all.length;
    }
    if (next === leaveAt) over(undefined);
    if (next === EVENTS && text.slice(at).includes('\r\n0\r\n\r\n')) over(undefined);
    return at;
  });
}

async function nonsense(where: Where): Promise<Fault> {
  return await talk(where, 'GET /planned/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n', (text, { over }) => {
    if (text.includes('\r\n\r\n')) over(text.startsWith('HTTP/1.1 400') ? undefined : text.slice(0, 60));
    return 0;
  });
}

export const SOCKET_ACTORS: readonly Actor[] = [
  { name: 'pipelining', count: 2, pauseMs: 20, act: pipeline },
  { name: 'websocket', count: 8, pauseMs: 10, act: pingPong },
  { name: 'events', count: 4, pauseMs: 10, act: async (where) => await events(where, '/odd/sse', undefined) },
  { name: 'events-left', count: 2, pauseMs: 100, act: async (where) => await events(where, '/planned/sse', 5) },
  { name: 'nonsense', count: 1, pauseMs: 200, act: nonsense },
];
