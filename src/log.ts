/** The root logger. Passed down as `deps.log`; nobody imports a global one. */
import { pino } from 'pino';
import type { Logger } from 'pino';

export type Log = Logger;

/** Keys whose values never reach a log line: credentials and tenants' secrets. */
const REDACTED = ['authorization', 'cookie', 'env', 'Env', '*.authorization', '*.cookie', '*.env', '*.Env'];

/** Creates the root logger: JSON lines on stderr, so that stdout stays free for what a command prints. */
export function createLog(level: 'debug' | 'info' | 'warn' | 'error' | 'silent'): Log {
  return pino(
    {
      level,
      base: { pid: process.pid },
      redact: { paths: REDACTED, censor: '[redacted]' },
      timestamp: pino.stdTimeFunctions.isoTime,
    },
    pino.destination({ dest: 2, sync: true }),
  );
}
