/**
 * Composition root of one data-plane worker: loads routing, tls and proxy only, and does what the primary says.
 *
 * Signals are the primary's to decide about (Ctrl-C reaches the whole process group). When the primary is gone, the worker finishes what is
 * under way and ends.
 */
import cluster from 'node:cluster';
import { systemClock } from '#clock';
import { codeOf, reasonOf } from '#errors';
import { createLog } from '#log';
import { DataPlane } from '#proxy/data-plane.ts';
import { TRAFFIC_PERIOD_MS, WORKER_DRAIN_MS } from '#proxy/limits.ts';
import { Listener } from '#proxy/listener.ts';
import type { EndpointLoad } from '#proxy/loads.ts';
import type { FromWorker, ToWorker } from '#proxy/protocol.ts';

interface Running {
  readonly plane: DataPlane;
  /** Undefined until the ports are open. */
  listener: Listener | undefined;
}

let running: Running | undefined;
let ending: Promise<void> | undefined;
let hadLoads = false;

function send(message: FromWorker): void {
  if (process.connected) process.send?.(message, undefined, {}, () => undefined); // A primary that is gone shows as `disconnect`.
}

function pushTraffic(plane: DataPlane): void {
  const deltas = plane.collectTraffic();
  pushLoads(plane.loads(deltas));
  if (deltas.length === 0) return;
  plane.counters.trafficMoved(deltas);
  send({ kind: 'traffic', deltas });
}

/** Nothing is said while nothing was under way, but once. */
function pushLoads(loads: readonly EndpointLoad[]): void {
  if (loads.length > 0 || hadLoads) send({ kind: 'loads', loads });
  hadLoads = loads.length > 0;
}

async function boot(message: ToWorker & { readonly kind: 'boot' }): Promise<void> {
  const { options, edge, freezes, failedWakes, seq } = message;
  const plane = new DataPlane(
    {
      log: createLog(options.logLevel),
      clock: systemClock,
      onWake: (endpointIds) => {
        send({ kind: 'wake', endpointIds });
      },
    },
    {
      accessLogFile: options.accessLogFile,
      limits: options.limits,
    },
  );
  const state: Running = { plane, listener: undefined };
  running = state;
  const refused = plane.prepareWhole(edge);
  if (refused !== undefined) {
    send({ kind: 'refused', seq, reason: refused });
    return;
  }
  plane.commit(edge.config.version);
  for (const { endpointIds, deadlineMs } of freezes) plane.hold(endpointIds, deadlineMs);
  for (const { endpointIds, retryAfterMs } of failedWakes) plane.wakeFailed(endpointIds, retryAfterMs);
  plane.ports.reserve([options.listen.http, options.listen.https]);
  setInterval(() => {
    pushTraffic(plane);
  }, TRAFFIC_PERIOD_MS).unref();
  try {
    state.listener = await Listener.open(plane, options.listen, options.trust);
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

/** Ends the service, once: whoever asks again waits for the same end. */
async function end(deadlineMs: number): Promise<void> {
  ending ??= endOf(running, deadlineMs);
  await ending;
}

async function endOf(state: Running | undefined, deadlineMs: number): Promise<void> {
  if (state === undefined) return;
  await Promise.all([state.listener?.drain(deadlineMs), state.plane.ports.drain(deadlineMs)]);
  pushTraffic(state.plane);
  await state.listener?.[Symbol.asyncDispose]();
  await state.plane[Symbol.asyncDispose]();
}

async function handle({ plane, listener }: Running, message: Exclude<ToWorker, { readonly kind: 'boot' }>): Promise<void> {
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
    case 'metrics':
      pushTraffic(plane);
      send({ kind: 'metrics', seq, metrics: await plane.metrics.asJson() });
      return;
    case 'reopen-log':
      plane.accessLog.reopen();
      send({ kind: 'ack', seq });
      return;
    case 'drain':
      await end(message.deadlineMs);
      send({ kind: 'ack', seq });
      exit();
      return;
  }
}

function exit(): void {
  if (!process.connected) leave();
  else process.disconnect?.(); // Sends what is queued first; `leave` follows.
}

function leave(): void {
  // Sockets that still close and idle timers need not be waited for.
  // oxlint-disable-next-line unicorn/no-process-exit -- this is the program's own end
  process.exit(0);
}

async function onMessage(message: ToWorker): Promise<void> {
  try {
    if (message.kind === 'boot') await boot(message);
    else if (running !== undefined) await handle(running, message);
    else if (message.kind === 'drain') {
      // The stop came before the configuration: there is nothing to drain.
      send({ kind: 'ack', seq: message.seq });
      exit();
    }
  } catch (error) {
    send({ kind: 'refused', seq: message.seq, reason: reasonOf(error) });
  }
}

process.on('SIGINT', () => undefined);
process.on('SIGTERM', () => undefined);
// Without this node:cluster ends the process as soon as the primary is gone, in the middle of its requests.
if (cluster.worker !== undefined) cluster.worker.exitedAfterDisconnect = true;
process.on('message', (message: ToWorker) => {
  void onMessage(message);
});
process.on('disconnect', () => {
  void end(WORKER_DRAIN_MS).finally(leave);
});
send({ kind: 'online' });
