/**
 * What the store has of certificates, read by a process that lives while there is something to read: a hundred thousand certificates left the primary more
 * than 100 MB that it did not need again, and kept it from its work for three seconds (2026-11). A thread gave its memory back no better.
 */
import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { dirname, join } from 'node:path';
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
  | { readonly kind: 'open'; readonly storeFile: string; readonly key: Uint8Array; readonly socketPath: string }
  | { readonly kind: 'bare' };

export type FromReading =
  /** To `open`: workers can fetch packs. */
  | { readonly kind: 'listening' }
  | { readonly kind: 'bare'; readonly packs: readonly ToldPack[] }
  /** A certificate is left out. */
  | { readonly kind: 'refused'; readonly name: string; readonly reason: string }
  /** It can go on with nothing that it was asked. */
  | { readonly kind: 'failed'; readonly reason: string };

/** Workers that boot ask for one pack after the other. */
const IDLE_MS = 5_000;
/** Fewer are read by the primary itself in less time than a process takes to start: 40 ms. */
const FEW_MAX = 2_000;
const CLOSED = 'the node stops';
/** In the folder of the store; there is one primary at a time. */
const SOCKET = 'certificates.sock';

export interface CertificateReaderDeps {
  readonly log: Log;
  readonly sql: Sql;
  readonly storeFile: string;
  readonly seal: KeySeal;
  /** Absent: `FEW_MAX`. */
  readonly fewMax?: number;
}

/** The process, and what is asked of it. */
interface Reading {
  readonly process: ChildProcess;
  readonly listening: PromiseWithResolvers<void>;
  readonly bare: PromiseWithResolvers<readonly ToldPack[]>;
}

export class CertificateReader implements AsyncDisposable {
  readonly #deps: CertificateReaderDeps;
  readonly #socketPath: string;
  readonly #bare: Promise<CertificateIndex<Coverage>>;
  #reading: Reading | undefined;
  /** Who needs the process now. */
  #users = 0;
  #idle: NodeJS.Timeout | undefined;
  #isClosed = false;

  /** Begins to read at once what certificates cover: a node that starts wants it a little later. */
  constructor(deps: CertificateReaderDeps) {
    this.#deps = deps;
    this.#socketPath = join(dirname(deps.storeFile), SOCKET);
    this.#bare = this.#readBare();
    this.#bare.catch(() => undefined); // Whoever asks hears of it.
  }

  /** As it was when this reader was made: nobody changes certificates before the workers run. Errors: ECLUSE_CERTIFICATES_UNREAD. */
  async bare(): Promise<CertificateIndex<Coverage>> {
    return await this.#bare;
  }

  /** Those of `names` that can be served, read by this process. */
  async pack(names: readonly string[]): Promise<CertificatePack> {
    const refused = (name: string, reason: string): void => {
      this.#refused(name, reason);
    };
    return await packCertificates({ ...this.#deps, refused }, names);
  }

  /** Where workers fetch packs, until it is given back; undefined: there are few. Errors: ECLUSE_CERTIFICATES_UNREAD. */
  async lend(): Promise<({ readonly path: string } & Disposable) | undefined> {
    if (await this.#areFew()) return undefined;
    const reading = this.#use();
    const lent = {
      path: this.#socketPath,
      [Symbol.dispose]: () => {
        this.#release(reading);
      },
    };
    try {
      await reading.listening.promise;
      return lent;
    } catch (error) {
      lent[Symbol.dispose]();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#idle);
    this.#end(this.#reading, CLOSED);
    await Promise.resolve();
  }

  async #readBare(): Promise<CertificateIndex<Coverage>> {
    if (await this.#areFew()) return await bareCertificates(this.#deps);
    const reading = this.#use();
    try {
      tell(reading.process, { kind: 'bare' });
      const packs = await reading.bare.promise;
      return CertificateIndex.toldBare(
        new Map(
          packs.map(({ number, bytes }) => [
            number,
            new CertificatePack(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)),
          ]),
        ),
      );
    } finally {
      this.#release(reading);
    }
  }

  async #areFew(): Promise<boolean> {
    if (this.#reading !== undefined) return false;
    const { sql, fewMax = FEW_MAX } = this.#deps;
    return (await countCertificates(sql)) <= fewMax;
  }

  #refused(name: string, reason: string): void {
    this.#deps.log.error({ certificate: name, reason }, 'a certificate is not served: add it again');
  }

  #use(): Reading {
    if (this.#isClosed) throw unread(CLOSED);
    clearTimeout(this.#idle);
    this.#users += 1;
    this.#reading ??= this.#start();
    return this.#reading;
  }

  #release(reading: Reading): void {
    this.#users -= 1;
    if (this.#users > 0 || this.#isClosed) return;
    this.#idle = setTimeout(() => {
      this.#end(reading, 'nobody needed it');
    }, IDLE_MS).unref();
  }

  #start(): Reading {
    const file = fileURLToPath(new URL('node-certificate-reading.ts', import.meta.url));
    const reading = {
      process: fork(file, [], { serialization: 'advanced' }),
      listening: Promise.withResolvers<void>(),
      bare: Promise.withResolvers<readonly ToldPack[]>(),
    };
    for (const { promise } of [reading.listening, reading.bare]) promise.catch(() => undefined); // Not everybody asks for both.
    reading.process.on('message', (message: FromReading) => {
      if (message.kind === 'refused') this.#refused(message.name, message.reason);
      else if (message.kind === 'listening') reading.listening.resolve();
      else if (message.kind === 'bare') reading.bare.resolve(message.packs);
      else this.#end(reading, message.reason);
    });
    reading.process.on('error', (error) => {
      this.#end(reading, reasonOf(error));
    });
    reading.process.on('exit', (code, signal) => {
      this.#end(reading, `what read them ended with ${signal ?? String(code)}`);
    });
    const { storeFile, seal } = this.#deps;
    tell(reading.process, { kind: 'open', storeFile, key: seal.key, socketPath: this.#socketPath });
    return reading;
  }

  /** Who waits hears of it; whoever asks next gets another process. */
  #end(reading: Reading | undefined, reason: string): void {
    if (reading === undefined) return;
    if (this.#reading === reading) this.#reading = undefined;
    if (reading.process.connected) reading.process.disconnect();
    reading.listening.reject(unread(reason));
    reading.bare.reject(unread(reason));
  }
}

function tell(reading: ChildProcess, message: ToReading): void {
  reading.send(message, () => undefined); // A process that is gone shows as its exit.
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
