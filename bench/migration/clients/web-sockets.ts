/**
 * WebSocket clients (RFC 6455, as much of it as short messages need): each sends numbered messages, waits for their echoes, and comes back when its
 * connection ends, at once where it was told to (1012, the service restarts).
 */
import { randomBytes } from 'node:crypto';
import type { ClientRequest } from 'node:http';
import type { Socket } from 'node:net';
import type { Way } from './origin.ts';
import { beginWindow, emptyCounts, noteEnd, seenIn } from './streams.ts';
import type { StreamClients, StreamCounts } from './streams.ts';

const MESSAGE_PERIOD_MS = 50;
const SERVICE_RESTART = 1012;
const COME_BACK_MS = 20;
const COME_BACK_LATER_MS = 500;
const [TEXT, CLOSE] = [0x1, 0x8];

interface Speaker {
  readonly index: number;
  number: number;
  /** Sent over this connection, and no echo yet. */
  readonly pending: Set<number>;
  readonly answered: Set<number>;
  request: ClientRequest | undefined;
  socket: Socket | undefined;
}

export function startWebSocketClients(way: Way, clients: number): StreamClients {
  const counts = emptyCounts(clients);
  const state = { stopped: false };
  const speakers = Array.from({ length: clients }, (_, index): Speaker => ({
    index,
    number: 0,
    pending: new Set(),
    answered: new Set(),
    request: undefined,
    socket: undefined,
  }));
  const connect = (speaker: Speaker): void => {
    if (state.stopped) return;
    let isOver = false;
    const over = (what: string, comeBackMs: number): void => {
      if (isOver) return;
      isOver = true;
      noteEnd(counts, what);
      counts.missed += speaker.pending.size;
      speaker.pending.clear();
      setTimeout(connect, comeBackMs, speaker);
    };
    const headers = {
      connection: 'Upgrade',
      upgrade: 'websocket',
      'sec-websocket-version': '13',
      'sec-websocket-key': randomBytes(16).toString('base64'),
    };
    const request = way.request({ connection: 'own', path: '/ws', headers }, (response) => {
      response.resume();
      over(`status ${String(response.statusCode)}`, COME_BACK_LATER_MS);
    });
    speaker.request = request;
    request.on('error', (error: NodeJS.ErrnoException) => {
      over(error.code ?? error.message, COME_BACK_LATER_MS);
    });
    request.on('upgrade', (_response, socket: Socket, first: Buffer) => {
      speak(speaker, { socket, first }, { counts, over });
    });
    request.end();
  };
  for (const speaker of speakers) connect(speaker);
  return {
    begin: () => {
      beginWindow(counts);
    },
    end: () => seenIn(counts),
    stop: () => {
      state.stopped = true;
      for (const { request, socket } of speakers) {
        socket?.destroy();
        request?.destroy();
      }
    },
  };
}

interface Notes {
  readonly counts: StreamCounts;
  readonly over: (what: string, comeBackMs: number) => void;
}

function speak(speaker: Speaker, connection: { readonly socket: Socket; readonly first: Buffer }, notes: Notes): void {
  const { socket } = connection;
  speaker.socket = socket;
  const timer = setInterval(() => {
    socket.write(textFrame(String(speaker.number)));
    speaker.pending.add(speaker.number);
    speaker.number += 1;
  }, MESSAGE_PERIOD_MS);
  let bytes = connection.first;
  let closeCode: number | undefined;
  socket.on('data', (piece: Buffer) => {
    bytes = Buffer.concat([bytes, piece]);
    for (let frame = frameOf(bytes); frame !== undefined; frame = frameOf(bytes)) {
      bytes = bytes.subarray(frame.end);
      if (frame.opcode === TEXT) takeEcho(speaker, Number(frame.body.toString()), notes.counts);
      if (frame.opcode !== CLOSE) continue;
      closeCode = frame.body.length >= 2 ? frame.body.readUInt16BE(0) : 1005;
      clearInterval(timer);
      socket.end(closeFrame(closeCode));
    }
  });
  socket.on('end', () => {
    clearInterval(timer);
    socket.end();
  });
  socket.on('error', () => undefined); // `close` follows.
  socket.on('close', () => {
    clearInterval(timer);
    const what = closeCode === undefined ? 'cut' : `closed ${String(closeCode)}`;
    notes.over(what, closeCode === SERVICE_RESTART ? COME_BACK_MS : COME_BACK_LATER_MS);
  });
}

function takeEcho(speaker: Speaker, number: number, counts: StreamCounts): void {
  counts.messages += 1;
  counts.gaps[speaker.index]?.note();
  speaker.pending.delete(number);
  if (speaker.answered.has(number)) counts.duplicated += 1;
  speaker.answered.add(number);
}

function textFrame(text: string): Buffer {
  return masked(TEXT, Buffer.from(text));
}

function closeFrame(code: number): Buffer {
  const body = Buffer.alloc(2);
  body.writeUInt16BE(code === 1005 ? 1000 : code, 0);
  return masked(CLOSE, body);
}

/** Bodies of less than 126 bytes. */
function masked(opcode: number, body: Buffer): Buffer {
  const mask = randomBytes(4);
  const mixed = body.map((byte, index) => byte ^ (mask[index % 4] ?? 0));
  return Buffer.concat([Buffer.from([0x80 | opcode, 0x80 | body.length]), mask, mixed]);
}

/** The first frame of a server, once it is whole. Bodies are of less than 126 bytes, as ours are. */
function frameOf(bytes: Buffer): { readonly opcode: number; readonly body: Buffer; readonly end: number } | undefined {
  const [first, length] = bytes;
  if (first === undefined || length === undefined || bytes.length < 2 + length) return undefined;
  return { opcode: first & 0x0f, body: bytes.subarray(2, 2 + length), end: 2 + length };
}
