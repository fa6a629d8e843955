/**
 * Clients that hold connections as long as they are let: they send or read next to nothing.
 * argv: JSON of `TOLD`. Commands: anything asks for the counts so far.
 */
import { createConnection } from 'node:net';
import type { Socket } from 'node:net';
import { z } from 'zod';
import { answerCommands, endWithStdin } from '../dialogue.ts';

const TOLD = z.object({
  kind: z.enum(['head', 'body', 'read', 'never']),
  port: z.int(),
  hosts: z.array(z.string()),
  path: z.string(),
  connections: z.int(),
  periodMs: z.number(),
});
const AT_ONCE = 40;
const TICK_MS = 10;
/** What each moves in a period. */
const DRIP_BYTES = 5;
const BODY_BYTES = 1024 * 1024;
const READ_BYTES = 16;

const told = TOLD.parse(JSON.parse(process.argv[2] ?? ''));
const sockets: Socket[] = [];
const statuses: Record<string, number> = {};
const faults: Record<string, number> = {};
const livedMs: number[] = [];
let begun = 0;
let opened = 0;
let open = 0;
let cut = 0;

function count(of: Record<string, number>, what: string): void {
  of[what] = (of[what] ?? 0) + 1;
}

function headOf(index: number): string {
  const host = told.hosts[index % told.hosts.length] ?? '';
  const start = `${told.kind === 'body' ? 'POST' : 'GET'} ${told.path} HTTP/1.1\r\nHost: ${host}\r\n`;
  if (told.kind === 'head') return index % 2 === 0 ? `${start}X-Slow: a` : start;
  return told.kind === 'body' ? `${start}Content-Length: ${String(BODY_BYTES)}\r\n\r\n` : `${start}\r\n`;
}

/** One more byte of a line, or one more line; a few more bytes of a body; or a few bytes of the answer. */
function drip(socket: Socket, index: number): void {
  if (socket.destroyed || socket.bytesWritten === 0 || socket.connecting) return;
  switch (told.kind) {
    case 'head':
      socket.write(index % 2 === 0 ? 'a' : 'X-Slow: a\r\n');
      return;
    case 'body':
      socket.write('x'.repeat(DRIP_BYTES));
      return;
    case 'read':
      socket.resume();
      return;
    case 'never':
      return;
  }
}

function watch(socket: Socket, index: number): void {
  let startMs = 0;
  let said = '';
  socket.once('connect', () => {
    startMs = performance.now();
    opened += 1;
    open += 1;
    socket.write(headOf(index));
    next();
  });
  socket.on('data', (piece: Buffer) => {
    if (said === '') {
      said = piece.toString('latin1', 9, 12);
      count(statuses, said);
    }
  });
  socket.on('error', (error: NodeJS.ErrnoException) => {
    count(faults, error.code ?? error.message);
    if (startMs === 0) next();
  });
  socket.on('close', () => {
    if (startMs === 0) return;
    open -= 1;
    cut += 1;
    livedMs.push(Math.round(performance.now() - startMs));
  });
}

function next(): void {
  if (begun === told.connections) return;
  const index = begun;
  begun += 1;
  const to = { port: told.port, host: '127.0.0.1' };
  const reads = told.kind === 'read' || told.kind === 'never';
  // A short buffer that is full stops the reading; `resume` lets in one more.
  const seen = { status: '' };
  const callback = (_bytes: number, buffer: Uint8Array): boolean => {
    if (seen.status === '') {
      seen.status = Buffer.from(buffer).toString('latin1', 9, 12);
      count(statuses, seen.status);
    }
    return false;
  };
  const socket = createConnection(reads ? { ...to, onread: { buffer: Buffer.alloc(READ_BYTES), callback } } : to);
  if (told.kind === 'never') socket.pause();
  sockets.push(socket);
  watch(socket, index);
}

let turn = 0;
setInterval(() => {
  const share = Math.ceil((sockets.length * TICK_MS) / told.periodMs);
  for (let step = 0; step < share; step += 1) {
    const index = turn % Math.max(1, sockets.length);
    turn += 1;
    const socket = sockets[index];
    if (socket !== undefined) drip(socket, index);
  }
}, TICK_MS);
for (let at = 0; at < Math.min(AT_ONCE, told.connections); at += 1) next();
answerCommands(() => ({ opened, open, cut, statuses, faults, livedMs }));
endWithStdin();
