/**
 * Composition root of one data-plane worker: loads routing, tls and proxy only, and does what the primary says.
 *
 * Signals are the primary's to decide about (Ctrl-C reaches the whole process group).
 *
 * LIFECYCLE   forked ──boot──▶ listens ──drain──▶ gone
 *                                 └── its primary is gone ──▶ serves on, looks for the next ──found──▶ adopted ──retire──▶ drains ──▶ gone
 *                                                                                            └── none comes ──▶ drains ──▶ gone
 */
import cluster from 'node:cluster';
import { systemClock } from '#clock';
import { codeOf, reasonOf } from '#errors';
import { createLog } from '#log';
import { missingIn } from '#proxy/certificate-delivery.ts';
import { DataPlane } from '#proxy/data-plane.ts';
import { PackClient } from '#proxy/pack-channel.ts';
import { findSuccessor } from '#proxy/generation/successor.ts';
import type { Successor } from '#proxy/generation/successor.ts';
import { RETIRE_DRAIN_MS, SUCCESSOR_WAIT_MS, TRAFFIC_PERIOD_MS, WORKER_DRAIN_MS } from '#proxy/limits.ts';
import { TrafficReports } from '#proxy/traffic-reports.ts';
import { Listener } from '#proxy/listener.ts';
import type { Drain } from '#proxy/listener.ts';
import type { EndpointLoad } from '#proxy/loads.ts';
import { PROTOCOL_VERSION } from '#proxy/protocol.ts';
import type { FromWorker, ToWorker, WorkerOptions } from '#proxy/protocol.ts';
import { ToldPacks } from '#tls/certificate-index.ts';
import { CertificatePack } from '#tls/certificate-pack.ts';
import { PackShelf } from '#tls/pack-shelf.ts';

interface Running {
  readonly plane: DataPlane;
  readonly options: WorkerOptions;
  /** Undefined until the ports are open. */
  listener: Listener | undefined;
}

let running: Running | undefined;
/** Certificates, until it boots. */
let told = new ToldPacks();
/** Where it fetches them. */
let packs: PackClient | undefined;
/** How it ends, once it does. */
let drain: Drain | undefined;
let ending: Promise<void> | undefined;
/** The last report of a worker that ends is written down by then. */
const REPORTS_KEPT_MS = 800;

let hadLoads = false;
const reports = new TrafficReports();
/** What its connections get to end when the next primary has workers of its own. */
let retireDrainMs = RETIRE_DRAIN_MS;
/** The next primary. */
let successor: Successor | undefined;
/** Nobody counts what is sent to a primary that is about to go, or that has not taken this worker over yet. */
let isDetached = false;
/** It has done all that it was to do. */
let isLeaving = false;

function send(message: FromWorker): void {
  if (successor !== undefined) successor.send(message);
  else if (process.connected) process.send?.(message, undefined, {}, () => undefined); // A primary that is gone shows as `disconnect`.
}

/** What moves while nobody is there to count it is kept until somebody is. */
function pushTraffic(plane: DataPlane): void {
  if (isDetached || (successor === undefined && !process.connected)) return;
  const deltas = plane.collectTraffic();
  pushLoads(plane.loads(deltas));
  plane.counters.trafficMoved(deltas);
  reports.add(deltas);
  pushReport();
}

function pushReport(): void {
  const report = reports.next(systemClock.monotonicMs());
  if (report !== undefined) send({ kind: 'traffic', report });
}

/** Nothing is said while nothing was under way, but once. */
function pushLoads(loads: readonly EndpointLoad[]): void {
  if (loads.length > 0 || hadLoads) send({ kind: 'loads', loads });
  hadLoads = loads.length > 0;
}

type CertificateMessage = ToWorker & { readonly kind: 'certificates' | 'fetch-certificates' };

async function hearCertificates(message: CertificateMessage): Promise<void> {
  const { seq } = message;
  if (message.kind === 'certificates') {
    for (const { number, bytes } of message.packs) {
      told.tell(number, new CertificatePack(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)));
    }
    send({ kind: 'ack', seq });
    return;
  }
  packs ??= await PackClient.connect(message.path, new PackShelf());
  const missing: string[] = [];
  for (const { number, id, names, besides } of message.wanted) {
    const fetched = await packs.fetch({ id, names });
    const whole = besides.length === 0 ? fetched : fetched.with(besides, new Set());
    told.tell(number, whole);
    missing.push(...missingIn(whole, names));
  }
  send({ kind: 'ack', seq, ...(missing.length === 0 ? {} : { missing }) });
}

async function boot(message: ToWorker & { readonly kind: 'boot' }): Promise<void> {
  const { options, config, freezes, failedWakes, unhealthy, proofs, seq } = message;
  const plane = new DataPlane(
    {
      log: createLog(options.logLevel),
      clock: systemClock,
      onWake: (endpointIds) => {
        send({ kind: 'wake', endpointIds });
      },
      onSpent: (spends) => {
        if (!isDetached) send({ kind: 'spent', spends, how: 'more' });
      },
      onCertificateWanted: (hosts) => {
        send({ kind: 'certificate-wanted', hosts });
      },
    },
    options,
  );
  const state: Running = { plane, options, listener: undefined };
  running = state;
  const refused = plane.prepareWhole({ config, certificates: told.index() });
  told = new ToldPacks();
  packs?.[Symbol.dispose]();
  if (refused !== undefined) {
    send({ kind: 'refused', seq, reason: refused });
    return;
  }
  plane.commit(config.version);
  plane.healthAdopted(unhealthy);
  plane.challenges.show(proofs);
  for (const { endpointIds, deadlineMs } of freezes) plane.hold(endpointIds, deadlineMs);
  for (const { endpointIds, retryAfterMs } of failedWakes) plane.wakeFailed(endpointIds, retryAfterMs);
  plane.ports.reserve([options.listen.http, options.listen.https]);
  setInterval(() => {
    pushTraffic(plane);
  }, TRAFFIC_PERIOD_MS).unref();
  try {
    const onCalled = (names: readonly string[]): void => {
      send({ kind: 'called', names });
    };
    state.listener = await Listener.open(plane, { ...options, onCalled: options.tellsCalled ? onCalled : undefined });
  } catch (error) {
    const code = codeOf(error);
    send({ kind: 'refused', seq, reason: reasonOf(error), ...(code === undefined ? {} : { code }) });
    return;
  }
  state.listener.certificatesChanged();
  await plane.ports.opened();
  send({ kind: 'ack', seq });
  send({ kind: 'listening', version: plane.version });
}

/** Ends the service, once: whoever asks again waits for the same end, and may hasten it. */
async function end(deadlineMs: number, keepsIdle = false): Promise<void> {
  const endMs = systemClock.monotonicMs() + deadlineMs;
  if (drain === undefined) drain = { endMs, keepsIdle };
  else {
    drain.endMs = Math.min(drain.endMs, endMs);
    drain.keepsIdle &&= keepsIdle;
  }
  ending ??= endOf(running, drain);
  await ending;
}

async function endOf(state: Running | undefined, how: Drain): Promise<void> {
  if (state === undefined) return;
  await Promise.all([state.listener?.drain(how), state.plane.ports.drain(how)]);
  reports.forgotten(); // The primary may have failed to write one down a moment ago.
  pushTraffic(state.plane);
  // Without a primary nobody keeps it: what is left is lost with this worker.
  await Promise.race([reports.settled(), systemClock.sleep(REPORTS_KEPT_MS)]);
  await state.listener?.[Symbol.asyncDispose]();
  await state.plane[Symbol.asyncDispose]();
}

const OF_VERSIONS = ['prepare', 'commit', 'abort'] as const;
type VersionMessage = ToWorker & { readonly kind: (typeof OF_VERSIONS)[number] };

/** What is said about the next version. */
async function handleVersion({ plane, listener }: Running, message: VersionMessage): Promise<void> {
  const { seq } = message;
  switch (message.kind) {
    case 'prepare': {
      const reason = plane.prepare(message.change);
      // Later messages do not wait for this: a commit that overtakes it finds the ports on their way.
      if (reason === undefined) await plane.ports.opened();
      send(reason === undefined ? { kind: 'ack', seq } : { kind: 'refused', seq, reason });
      return;
    }
    case 'commit': {
      const committed = plane.commit(message.version);
      listener?.certificatesChanged();
      if (message.thaw.length > 0) plane.thaw(message.thaw);
      send(
        committed
          ? { kind: 'ack', seq }
          : { kind: 'refused', seq, reason: `version ${String(message.version)} was not prepared` },
      );
      return;
    }
    case 'abort':
      plane.abort(message.version);
      send({ kind: 'ack', seq });
      return;
  }
}

const OF_WHAT_IS_SERVED = ['freeze', 'thaw', 'wake-failed', 'health', 'proofs'] as const;
type ServedMessage = ToWorker & { readonly kind: (typeof OF_WHAT_IS_SERVED)[number] };

/** What is said about what is served. */
async function handleServed({ plane }: Running, message: ServedMessage): Promise<void> {
  const { seq } = message;
  switch (message.kind) {
    case 'freeze':
      send({ kind: 'ack', seq, frozen: await plane.freeze(message.endpointIds, message) });
      return;
    case 'thaw':
      plane.thaw(message.endpointIds);
      send({ kind: 'ack', seq });
      return;
    case 'wake-failed':
      plane.wakeFailed(message.endpointIds, message.retryAfterMs);
      send({ kind: 'ack', seq });
      return;
    case 'health':
      plane.healthChanged(message);
      send({ kind: 'ack', seq });
      return;
    case 'proofs':
      plane.challenges.show(message.proofs);
      send({ kind: 'ack', seq });
      return;
  }
}

const OF_ITSELF = ['traffic-kept', 'metrics', 'reopen-log', 'ticket-keys', 'options', 'spent-elsewhere'] as const;
type OwnMessage = ToWorker & { readonly kind: (typeof OF_ITSELF)[number] };

/** What is said about the worker itself, whatever it serves. */
async function handleOwn({ plane, listener }: Running, message: OwnMessage): Promise<void> {
  const { seq } = message;
  switch (message.kind) {
    case 'traffic-kept':
      reports.kept(message.number);
      // Who ends tells the rest at once.
      if (drain !== undefined) pushReport();
      return;
    case 'metrics':
      pushTraffic(plane);
      send({ kind: 'metrics', seq, metrics: await plane.metrics.asJson() });
      return;
    case 'spent-elsewhere':
      plane.rateLimits.hear(message);
      return;
    case 'reopen-log':
      plane.accessLog.reopen();
      send({ kind: 'ack', seq });
      return;
    case 'ticket-keys':
      listener?.ticketKeysChanged(message.keys);
      send({ kind: 'ack', seq });
      return;
    case 'options': {
      const reason = plane.reconfigure(message.options);
      if (reason === undefined) listener?.limitsChanged();
      send(reason === undefined ? { kind: 'ack', seq } : { kind: 'refused', seq, reason });
      return;
    }
  }
}

type EndMessage = ToWorker & { readonly kind: 'detach' | 'adopt' | 'retire' | 'drain' };

/** What is said about the end: of the primary, or of the worker. */
async function handleEnd(plane: DataPlane, message: EndMessage): Promise<void> {
  const { seq } = message;
  switch (message.kind) {
    case 'detach':
      pushTraffic(plane);
      isDetached = true;
      retireDrainMs = message.drainMs;
      send({ kind: 'ack', seq });
      return;
    case 'adopt':
      isDetached = false;
      adopt(plane, message);
      send({ kind: 'spent', spends: plane.rateLimits.levels(), how: 'least' });
      return;
    case 'retire':
      isDetached = false;
      send({ kind: 'ack', seq });
      await end(retireDrainMs, true);
      await exit();
      return;
    case 'drain':
      await end(message.deadlineMs);
      send({ kind: 'ack', seq });
      await exit();
      return;
  }
}

/** Takes over what the next primary serves: no connection of ours is to see an older version than a new one has seen. */
function adopt(plane: DataPlane, message: ToWorker & { readonly kind: 'adopt' }): void {
  const { seq, config, freezes, failedWakes, unhealthy, proofs } = message;
  const reason = plane.prepareWhole({ config, certificates: plane.certificates });
  if (reason !== undefined) {
    send({ kind: 'refused', seq, reason });
    return;
  }
  plane.commit(config.version);
  plane.healthAdopted(unhealthy);
  plane.challenges.show(proofs);
  for (const { endpointIds, deadlineMs } of freezes) plane.hold(endpointIds, deadlineMs);
  // What the last primary froze nobody else would thaw.
  const held = new Set(freezes.flatMap(({ endpointIds }) => endpointIds));
  plane.thaw(plane.holds.frozen.filter((id) => !held.has(id)));
  for (const { endpointIds, retryAfterMs } of failedWakes) plane.wakeFailed(endpointIds, retryAfterMs);
  send({ kind: 'ack', seq });
}

async function exit(): Promise<void> {
  isLeaving = true;
  if (successor !== undefined) {
    await successor.flushed();
    leave();
  } else if (!process.connected) leave();
  else process.disconnect?.(); // Sends what is queued first; `leave` follows.
}

function leave(): void {
  // Sockets that still close and idle timers need not be waited for.
  // oxlint-disable-next-line unicorn/no-process-exit -- this is the program's own end
  process.exit(0);
}

function isOf<K extends ToWorker['kind']>(message: ToWorker, kinds: readonly K[]): message is ToWorker & { readonly kind: K } {
  return kinds.some((kind) => kind === message.kind);
}

async function handle(
  state: Running,
  message: Exclude<ToWorker, { readonly kind: CertificateMessage['kind'] | 'boot' | 'issued' }>,
): Promise<void> {
  if (isOf(message, OF_VERSIONS)) await handleVersion(state, message);
  else if (isOf(message, OF_WHAT_IS_SERVED)) await handleServed(state, message);
  else if (isOf(message, OF_ITSELF)) await handleOwn(state, message);
  else await handleEnd(state.plane, message);
}

async function onMessage(message: ToWorker): Promise<void> {
  try {
    if (message.kind === 'certificates' || message.kind === 'fetch-certificates') await hearCertificates(message);
    else if (message.kind === 'boot') await boot(message);
    else if (message.kind === 'issued') for (const answer of message.answers) running?.plane.issued.answered(answer);
    else if (running !== undefined) await handle(running, message);
    else if (message.kind === 'drain') {
      // The stop came before the configuration: there is nothing to drain.
      send({ kind: 'ack', seq: message.seq });
      await exit();
    }
  } catch (error) {
    send({ kind: 'refused', seq: message.seq, reason: reasonOf(error) });
  }
}

/** The primary is gone. Who listens serves on for the next one. */
async function orphaned(): Promise<void> {
  const state = running;
  if (state?.listener !== undefined && state.options.successorSocket !== undefined) {
    const { successorSocket: socketPath, generation, listen } = state.options;
    for (;;) {
      // Who drains has its ports no more.
      const ports = drain === undefined ? listen : { http: undefined, https: undefined };
      const { unhealthy } = state.plane;
      const hello = {
        kind: 'hello',
        protocol: PROTOCOL_VERSION,
        pid: process.pid,
        generation,
        listen: ports,
        unhealthy,
      } as const;
      isDetached = true;
      reports.forgotten();
      successor = await findSuccessor(systemClock, {
        socketPath,
        waitMs: SUCCESSOR_WAIT_MS,
        hello,
        hear: (message) => {
          void onMessage(message);
        },
      });
      if (successor === undefined) break;
      await successor.closed;
      successor = undefined;
    }
    state.plane.log.warn({ waitedMs: SUCCESSOR_WAIT_MS }, 'no primary came after the last one: the worker ends');
  }
  await end(WORKER_DRAIN_MS);
  leave();
}

process.on('SIGINT', () => undefined);
process.on('SIGTERM', () => undefined);
// Without this node:cluster ends the process as soon as the primary is gone, in the middle of its requests.
if (cluster.worker !== undefined) cluster.worker.exitedAfterDisconnect = true;
process.on('message', (message: ToWorker) => {
  void onMessage(message);
});
process.on('disconnect', () => {
  if (isLeaving) leave();
  else void orphaned().finally(leave);
});
send({ kind: 'online' });
