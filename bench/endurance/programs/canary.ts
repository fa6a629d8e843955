/**
 * The canary: keep-alive connections on which requests are due at a constant rate.
 *
 * Latency counts from the moment at which a request was due, whether a connection was free or not: a proxy that stalls is not spared (coordinated
 * omission). A thread of its own keeps the time, because Node's timers are late by up to a millisecond. argv: JSON of port, host, path,
 * connections, rate. Commands: `begin` a window; `end` it and say what was seen.
 */
import { createConnection } from 'node:net';
import type { Socket } from 'node:net';
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';
import { z } from 'zod';
import { answerCommands, endWithStdin } from '../dialogue.ts';

const TOLD = z.object({ port: z.int(), host: z.string(), path: z.string(), connections: z.int(), rate: z.number() });
const COMMAND = z.object({ kind: z.enum(['begin', 'end']) });
const TIMEOUT_MS = 10_000;
const RECONNECT_MS = 50;

interface Line {
  readonly socket: Socket;
  /** When the request at hand was due; undefined while there is none. */
  dueMs: number | undefined;
  text: string;
  /** Of the whole answer; 0 while its head is not whole. */
  length: number;
}

/** The same clock in all threads. */
function nowMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

function keepTime(periodMs: number): void {
  const cell = new Int32Array(new SharedArrayBuffer(4));
  let dueMs = nowMs();
  for (;;) {
    dueMs += periodMs;
    const waitMs = dueMs - nowMs();
    if (waitMs > 0) Atomics.wait(cell, 0, 0, waitMs);
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- it is no window
    parentPort?.postMessage(dueMs);
  }
}

function run(): void {
  const told = TOLD.parse(JSON.parse(process.argv[2] ?? ''));
  const request = `GET ${told.path} HTTP/1.1\r\nHost: ${told.host}\r\nUser-Agent: canary\r\n\r\n`;
  const free: Line[] = [];
  const busy = new Set<Line>();
  const due: number[] = [];
  let latencies: number[] = [];
  let late: number[] = [];
  let failures: Record<string, number> = {};
  let beginMs = nowMs();

  const failed = (what: string): void => {
    failures[what] = (failures[what] ?? 0) + 1;
  };
  const send = (line: Line, dueMs: number): void => {
    Object.assign(line, { dueMs, text: '', length: 0 });
    busy.add(line);
    line.socket.write(request);
  };
  const next = (line: Line): void => {
    const dueMs = due.shift();
    if (dueMs === undefined) free.push(line);
    else send(line, dueMs);
  };
  const answered = (line: Line): void => {
    if (line.dueMs !== undefined && line.dueMs >= beginMs) latencies.push(nowMs() - line.dueMs);
    if (!line.text.startsWith('HTTP/1.1 200')) failed(line.text.slice(0, 12));
    line.dueMs = undefined;
    busy.delete(line);
    next(line);
  };
  const take = (line: Line, piece: string): void => {
    line.text += piece;
    if (line.length === 0) {
      const end = line.text.indexOf('\r\n\r\n');
      if (end === -1) return;
      line.length = end + 4 + Number(/\r\ncontent-length: *(\d+)/i.exec(line.text)?.[1] ?? 0);
    }
    if (line.text.length >= line.length) answered(line);
  };
  const connect = (): void => {
    const socket = createConnection({ port: told.port, host: '127.0.0.1', noDelay: true });
    const line: Line = { socket, dueMs: undefined, text: '', length: 0 };
    socket.once('connect', () => {
      next(line);
    });
    socket.setEncoding('latin1').on('data', (piece: string) => {
      take(line, piece);
    });
    socket.on('error', (error) => {
      failed(error.message.slice(0, 40));
    });
    socket.on('close', () => {
      failed('closed');
      busy.delete(line);
      const at = free.indexOf(line);
      if (at !== -1) free.splice(at, 1);
      setTimeout(connect, RECONNECT_MS);
    });
  };

  for (let count = 0; count < told.connections; count += 1) connect();
  const pacer = new Worker(new URL(import.meta.url), { workerData: 1000 / told.rate });
  pacer.on('message', (dueMs: number) => {
    if (dueMs >= beginMs) late.push(nowMs() - dueMs);
    const line = free.shift(); // In turn: none is left unused.
    if (line === undefined) due.push(dueMs);
    else send(line, dueMs);
  });
  setInterval(() => {
    for (const { socket, dueMs } of busy) {
      if (dueMs === undefined || nowMs() - dueMs < TIMEOUT_MS) continue;
      failed('timeout');
      socket.destroy();
    }
  }, 1000);

  answerCommands((given) => {
    const { kind } = COMMAND.parse(given);
    const endMs = nowMs();
    // What has no answer yet has waited that long at least.
    const waiting = [...due, ...[...busy].map(({ dueMs }) => dueMs ?? endMs)].filter((dueMs) => dueMs >= beginMs);
    const seen = {
      latencies: [...latencies, ...waiting.map((dueMs) => endMs - dueMs)].map(microseconds),
      late: late.map(microseconds),
      failures,
    };
    latencies = [];
    late = [];
    if (kind === 'begin') beginMs = endMs;
    failures = {};
    return kind === 'end' ? seen : {};
  });
  endWithStdin();
}

function microseconds(ms: number): number {
  return Math.round(ms * 1000);
}

if (isMainThread) run();
else keepTime(z.number().parse(workerData));
