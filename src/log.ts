/** The root logger. Passed down as `deps.log`; nobody imports a global one. */
import { pino } from 'pino';
import type { Logger } from 'pino';

export type Log = Logger;
export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent';

/** Keys whose values never reach a log line: credentials and tenants' secrets. */
const REDACTED = ['authorization', 'cookie', 'env', 'Env', '*.authorization', '*.cookie', '*.env', '*.Env'];

/** By root: the loggers that were made of it and are still there. A child has a level of its own, which does not follow. */
const CHILDREN = new WeakMap<Log, Set<WeakRef<Log>>>();

/** From now on, for a logger of `createLog` and all that were made of it. */
export function setLogLevel(root: Log, level: LogLevel): void {
  root.level = level;
  for (const child of CHILDREN.get(root) ?? []) {
    const log = child.deref();
    if (log !== undefined) log.level = level;
  }
}

/** Creates the root logger: JSON lines on stderr, so that stdout stays free for what a command prints. */
export function createLog(level: LogLevel): Log {
  const children = new Set<WeakRef<Log>>();
  const gone = new FinalizationRegistry<WeakRef<Log>>((child) => children.delete(child));
  const root = pino(
    {
      level,
      base: { pid: process.pid },
      redact: { paths: REDACTED, censor: '[redacted]' },
      timestamp: pino.stdTimeFunctions.isoTime,
      onChild: (child) => {
        const kept = new WeakRef<Log>(child);
        children.add(kept);
        gone.register(child, kept);
      },
    },
    pino.destination({ dest: 2, sync: true }),
  );
  CHILDREN.set(root, children);
  return root;
}
