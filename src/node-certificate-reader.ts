/**
 * What the store has of certificates, read by a process that lives while there is something to read: a hundred thousand certificates left the primary more
 * than 100 MB that it did not need again, and kept it from its work for three seconds (2026-11). A thread gave its memory back no better.
 */
import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { EcluseError, reasonOf } from '#errors';
import type { Log } from '#log';
import { countCertificates } from '#state/certificates.ts';
import type { Sql } from '#state/sql.ts';
import type { Coverage } from '#tls/certificate.ts';
import { CertificateIndex } from '#tls/certificate-index.ts';
import type { ToldPack } from '#tls/certificate-index.ts';
import { CertificatePack } from '#tls/certificate-pack.ts';
import type { KeySeal } from '#tls/key-seal.ts';
import { bareCertificates, packCertificates } from './node-certificate-store.ts';

export type ToReading =
  /** Before all else. */
  | { readonly kind: 'open'; readonly storeFile: string; readonly key: Uint8Array }
  | { readonly kind: 'bare'; readonly id: number }
  | { readonly kind: 'pack'; readonly id: number; readonly names: readonly string[] };

export type FromReading =
  | { readonly kind: 'packs'; readonly id: number; readonly packs: readonly ToldPack[] }
  /** A certificate is left out. */
  | { readonly kind: 'refused'; readonly name: string; readonly reason: string }
  /** It can go on with nothing that it was asked. */
  | { readonly kind: 'failed'; readonly reason: string };

/** Workers that boot ask for one pack after the other. */
const IDLE_MS = 5_000;
/** Fewer are read by the primary itself in less time than a process takes to start: 40 ms. */
const FEW_MAX = 2_000;
const CLOSED = 'the node stops';

export interface CertificateReaderDeps {
  readonly log: Log;
  readonly sql: Sql;
  readonly storeFile: string;
  readonly seal: KeySeal;
  /** Absent: `FEW_MAX`. */
  readonly fewMax?: number;
}

export class CertificateReader implements AsyncDisposable {
  readonly #deps: CertificateReaderDeps;
  #counted = { atMs: Number.NEGATIVE_INFINITY, isFew: true };
  readonly #waiting = new Map<number, PromiseWithResolvers<readonly ToldPack[]>>();
  #reading: ChildProcess | undefined;
  #idle: NodeJS.Timeout | undefined;
  #ids = 0;
  #isClosed = false;
  readonly #bare: Promise<CertificateIndex<Coverage>>;

  /** Begins to read at once what certificates cover: a node that starts wants it a little later. */
  constructor(deps: CertificateReaderDeps) {
    this.#deps = deps;
    this.#bare = this.#readBare();
    this.#bare.catch(() => undefined); // Whoever asks hears of it.
  }

  /** As it was when this reader was made: nobody changes certificates before the workers run. Errors: ECLUSE_CERTIFICATES_UNREAD. */
  async bare(): Promise<CertificateIndex<Coverage>> {
    return await this.#bare;
  }

  /** Those of `names` that can be served. Errors: ECLUSE_CERTIFICATES_UNREAD. */
  async pack(names: readonly string[]): Promise<CertificatePack> {
    if (await this.#isFew()) return await packCertificates({ ...this.#deps, refused: this.#refused }, names);
    const [told] = await this.#ask((id) => ({ kind: 'pack', id, names }));
    return told === undefined ? CertificatePack.empty : packOf(told);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#idle);
    this.#isClosed = true;
    this.#reading?.disconnect();
    this.#ended(this.#reading, CLOSED);
    await Promise.resolve();
  }

  async #readBare(): Promise<CertificateIndex<Coverage>> {
    if (await this.#isFew()) return await bareCertificates(this.#deps);
    const packs = await this.#ask((id) => ({ kind: 'bare', id }));
    return CertificateIndex.toldBare(new Map(packs.map((told) => [told.number, packOf(told)])));
  }

  readonly #refused = (name: string, reason: string): void => {
    this.#deps.log.error({ certificate: name, reason }, 'a certificate is not served: add it again');
  };

  async #isFew(): Promise<boolean> {
    if (this.#reading !== undefined) return false;
    const nowMs = performance.now();
    if (nowMs - this.#counted.atMs > IDLE_MS) {
      const { sql, fewMax = FEW_MAX } = this.#deps;
      this.#counted = { atMs: nowMs, isFew: (await countCertificates(sql)) <= fewMax };
    }
    return this.#counted.isFew;
  }

  async #ask(make: (id: number) => ToReading): Promise<readonly ToldPack[]> {
    if (this.#isClosed) throw unread(CLOSED);
    clearTimeout(this.#idle);
    this.#ids += 1;
    const waiting = Promise.withResolvers<readonly ToldPack[]>();
    this.#waiting.set(this.#ids, waiting);
    this.#reading ??= this.#start();
    tell(this.#reading, make(this.#ids));
    return await waiting.promise;
  }

  #start(): ChildProcess {
    const file = fileURLToPath(new URL('node-certificate-reading.ts', import.meta.url));
    const reading = fork(file, [], { serialization: 'advanced' });
    reading.on('message', (message: FromReading) => {
      this.#hear(message, reading);
    });
    reading.on('error', (error) => {
      this.#ended(reading, reasonOf(error));
    });
    reading.on('exit', (code, signal) => {
      this.#ended(reading, `what read them ended with ${signal ?? String(code)}`);
    });
    tell(reading, { kind: 'open', storeFile: this.#deps.storeFile, key: this.#deps.seal.key });
    return reading;
  }

  #hear(message: FromReading, reading: ChildProcess): void {
    switch (message.kind) {
      case 'refused':
        this.#refused(message.name, message.reason);
        return;
      case 'failed':
        reading.disconnect();
        this.#ended(reading, message.reason);
        return;
      case 'packs':
        this.#waiting.get(message.id)?.resolve(message.packs);
        this.#waiting.delete(message.id);
        if (this.#waiting.size > 0) return;
        this.#idle = setTimeout(() => {
          if (this.#reading === reading) this.#reading = undefined;
          reading.disconnect();
        }, IDLE_MS).unref();
    }
  }

  /** Who waits hears of it; whoever asks next gets another process. */
  #ended(reading: ChildProcess | undefined, reason: string): void {
    if (reading === undefined || this.#reading !== reading) return;
    this.#reading = undefined;
    for (const { reject } of this.#waiting.values()) reject(unread(reason));
    this.#waiting.clear();
  }
}

function tell(reading: ChildProcess, message: ToReading): void {
  reading.send(message, () => undefined); // A process that is gone shows as its exit.
}

function packOf({ bytes }: ToldPack): CertificatePack {
  return new CertificatePack(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length));
}

function unread(reason: string): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_CERTIFICATES_UNREAD',
    source: 'runtime',
    message: `the certificates in the store could not be read: ${reason}`,
    mend: 'see what is wrong with ecluse.db in the data directory; ecluse doctor looks at it, too',
    status: 503,
  });
}
