/** The primary's side of workers' traffic reports: one that is written down is said to be kept, another is said again by its worker. */
import { reasonOf } from '#errors';
import type { Log } from '#log';
import type { Ask } from './generation/conversation.ts';
import type { TrafficReport } from './protocol.ts';

interface Told {
  readonly tell: (message: Ask) => void;
}

/** `keep`: see `WorkerPoolOptions.onTraffic`. */
export function trafficKeeper(
  log: Log,
  keep: (report: TrafficReport) => Promise<void> | void,
): (worker: Told, report: TrafficReport) => void {
  const keepOne = async (worker: Told, report: TrafficReport): Promise<void> => {
    try {
      await keep(report);
      worker.tell({ kind: 'traffic-kept', number: report.number });
    } catch (error) {
      log.error({ reason: reasonOf(error) }, 'what moved through a worker could not be written down; it is tried again');
    }
  };
  return (worker, report) => void keepOne(worker, report);
}
