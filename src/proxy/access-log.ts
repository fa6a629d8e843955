/** One JSON line per exchange, written without waiting for the disk. */
import { pino } from 'pino';
import { reasonOf } from '#errors';
import type { Log } from '#log';
import { ACCESS_LOG_BUFFER_BYTES_MAX, ACCESS_LOG_FLUSH_MS } from './limits.ts';

/** The schema: every line has every key, in this order; what does not apply is null. SECURITY: no query, no header values. */
export interface AccessLogLine {
  /** ISO 8601, the start of the exchange. */
  readonly time: string;
  readonly requestId: string;
  readonly traceId: string | null;
  readonly configVersion: number;
  readonly route: string | null;
  readonly service: string | null;
  readonly endpoint: string | null;
  readonly tenant: string | null;
  readonly client: string;
  readonly method: string;
  readonly host: string | null;
  readonly path: string;
  readonly status: number;
  readonly downstreamInBytes: number;
  readonly downstreamOutBytes: number;
  readonly upstreamInBytes: number;
  readonly upstreamOutBytes: number;
  readonly totalMs: number;
  readonly holdMs: number;
  readonly connectMs: number | null;
  readonly firstByteMs: number | null;
  readonly tlsVersion: string | null;
  readonly sni: string | null;
  readonly alpn: string | null;
  readonly errorCode: string | null;
}

/** What is written to; a part of SonicBoom. */
type Destination = ReturnType<typeof pino.destination>;

export class AccessLog implements AsyncDisposable {
  readonly #destination: Destination;
  #dropped = 0;

  /** Opens `file` for appending. A file that cannot be written costs its lines, not the service. */
  constructor(log: Log, file: string) {
    this.#destination = pino.destination({
      dest: file,
      append: true,
      mkdir: true,
      sync: false,
      mode: 0o640,
      maxLength: ACCESS_LOG_BUFFER_BYTES_MAX,
      periodicFlush: ACCESS_LOG_FLUSH_MS,
    });
    this.#destination.on('error', (error: unknown) => {
      log.error({ file, reason: reasonOf(error) }, 'access log cannot be written');
    });
    this.#destination.on('drop', () => {
      this.#dropped += 1;
    });
  }

  get droppedLines(): number {
    return this.#dropped;
  }

  write(line: AccessLogLine): void {
    this.#destination.write(`${JSON.stringify(line)}\n`);
  }

  /** Opens the file anew, after a rotation. */
  reopen(): void {
    this.#destination.reopen();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<undefined>();
    this.#destination.once('close', () => {
      resolve(undefined);
    });
    this.#destination.once('error', () => {
      resolve(undefined);
    });
    this.#destination.end();
    await promise;
  }
}
