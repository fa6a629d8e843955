/** What is measured, in which unit, and what DESIGN §10 asks of it. */

export interface Target {
  /** At most this: a ratio to the better of nginx and HAProxy, or a value in the case's own unit. */
  readonly reach: number;
  /** What comes after that. */
  readonly later?: number;
  readonly of: 'ratio' | 'value';
}

interface Common {
  readonly name: string;
  readonly tls: boolean;
  /** Of the value that is compared; less is better. */
  readonly unit: string;
  readonly target?: Target;
}

export interface WrkCase extends Common {
  readonly kind: 'wrk';
  readonly path: string;
  readonly env: Readonly<Record<string, string>>;
}

interface OtherLoadedCase extends Common {
  readonly kind: 'handshakes' | 'websocket' | 'latency';
}

interface IdleCase extends Common {
  readonly kind: 'idle';
}

/** A case in which something moves while it is measured. */
export type LoadedCase = WrkCase | OtherLoadedCase;
export type Case = LoadedCase | IdleCase;

const CPU = 'CPU-µs';

function ratio(reach: number, later?: number): Target {
  return later === undefined ? { of: 'ratio', reach } : { of: 'ratio', reach, later };
}

export const CASES: readonly Case[] = [
  { kind: 'wrk', name: 'small', tls: false, unit: CPU, path: '/', env: {}, target: ratio(1, 0.85) },
  { kind: 'wrk', name: 'varied', tls: false, unit: CPU, path: '/', env: { BENCH_VARY: '1' }, target: ratio(1, 0.85) },
  // A prefix stripped, a field set and one taken away in the request, and one set in the response.
  { kind: 'wrk', name: 'rewritten', tls: false, unit: CPU, path: '/api/x', env: {} },
  { kind: 'wrk', name: '16k', tls: false, unit: CPU, path: '/16k', env: {}, target: ratio(0.9) },
  { kind: 'wrk', name: '1m', tls: false, unit: CPU, path: '/1m', env: {}, target: ratio(0.6) },
  { kind: 'wrk', name: 'post64k', tls: false, unit: CPU, path: '/post', env: { BENCH_BODY_BYTES: '65536' }, target: ratio(1.1) },
  { kind: 'wrk', name: 'tls-small', tls: true, unit: CPU, path: '/', env: {}, target: ratio(1) },
  { kind: 'wrk', name: 'tls-16k', tls: true, unit: CPU, path: '/16k', env: {}, target: ratio(0.8) },
  { kind: 'wrk', name: 'tls-1m', tls: true, unit: CPU, path: '/1m', env: {} },
  { kind: 'wrk', name: 'connect', tls: false, unit: CPU, path: '/', env: { BENCH_CLOSE: '1' }, target: ratio(1.2, 1) },
  { kind: 'handshakes', name: 'handshakes', tls: true, unit: CPU, target: ratio(1.1, 1) },
  { kind: 'websocket', name: 'websocket', tls: false, unit: 'CPU-µs/message' },
  { kind: 'latency', name: 'latency', tls: false, unit: 'p99 µs', target: ratio(1.2, 1) },
  { kind: 'idle', name: 'idle', tls: false, unit: 'KB/connection' },
  { kind: 'idle', name: 'idle-tls', tls: true, unit: 'KB/connection', target: { of: 'value', reach: 60, later: 30 } },
];
