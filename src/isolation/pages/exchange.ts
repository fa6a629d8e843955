/**
 * What a caller of the page exchange sees: a source that sends a running sandbox's memory ahead of its checkpoint, a receiver on the target
 * that keeps what came, and the image which that becomes.
 *
 *   receiver.expect()  ─ ticket ─▶  openPageSource()
 *                                   round(), round(), …        the sandbox runs; pages that the receiver lacks go over
 *   pause, checkpoint               finish({ imageDir, saved }) while runsc still writes
 *   sink.image  ◀── checkpoint.img, pages_meta.img, the order of pages, the last new pages
 *
 * The work is done in threads that own the sockets; all of this is plain data between them and the caller.
 */

/** One end's key and certificate, the CA of both, and whom the other end's certificate must name. */
export interface PeerTls {
  readonly caPem: string;
  readonly certPem: string;
  readonly keyPem: string;
  /**
   * The name that the other end's certificate must carry: a source checks it as the server's name (SAN), a receiver as the client's common
   * name. The CA alone says too little, for it signs tenants' certificates too.
   */
  readonly peerName: string;
}

/** What a source needs to be let in: once, for this migration. Secret; it travels from node to node beside the order to migrate. */
export interface PageTicket {
  readonly host: string;
  readonly port: number;
  /** A UUID; the name of the store on the target. */
  readonly migrationId: string;
  /** Of the migration's journal: an order of an older attempt is refused. */
  readonly fencingToken: number;
  /** 64 hexadecimal digits, good for one connection. */
  readonly token: string;
}

export type PagePhase = 'connect' | 'round' | 'finish' | 'done';

export interface PageProgress {
  readonly phase: PagePhase;
  /** From 1; 0 before the first. */
  readonly round: number;
  /** Of this phase: bytes looked at. */
  readonly doneBytes: number;
  /** Of this phase, as far as it is known; a sandbox's memory may grow. */
  readonly totalBytes: number;
  /** Of the whole exchange, on the wire before TLS. */
  readonly sentBytes: number;
  /** Undefined until there is a rate to reckon with. */
  readonly etaMs: number | undefined;
}

export interface RoundReport {
  /** From 1. */
  readonly round: number;
  /** Memory of the sandbox that was read and hashed. */
  readonly scannedBytes: number;
  /** Pages that the receiver did not have, zero pages apart. */
  readonly newPages: number;
  /** Pages that it no longer needs, whose places are taken again. */
  readonly stalePages: number;
  /** On the wire before TLS, compressed where that paid. */
  readonly sentBytes: number;
  /** Until the receiver said that it has all of it. */
  readonly tookMs: number;
}

export interface FinishReport {
  /** Bytes of pages.img. */
  readonly pagesBytes: number;
  /** Pages of it that had to be sent now. */
  readonly newPages: number;
  /** Everything sent since `finish`: files, order, new pages. */
  readonly sentBytes: number;
  readonly tookMs: number;
  /** Of the source's thread. */
  readonly cpuMs: number;
  /** From the end of the checkpoint until everything was sent, and until the image was whole on the target. */
  readonly afterSaveMs: { readonly sent: number; readonly assembled: number };
}

/** A checkpoint that is being written. */
export interface GrowingImage {
  readonly imageDir: string;
  /** Settles when runsc has ended; a rejection cancels the exchange. */
  readonly saved: Promise<unknown>;
  /** See `writesPagesInOrder`: whether pages.img may be read while it grows. */
  readonly inOrder: boolean;
}

export interface AssembledImage {
  /** checkpoint.img, pages_meta.img and pages.img, byte for byte as on the source. */
  readonly imageDir: string;
  readonly imageBytes: number;
  readonly receivedBytes: number;
  /** From the first part of the final pass until the image was whole. */
  readonly assembleMs: number;
  /** Of the receiver's thread in that time. */
  readonly cpuMs: number;
}

/** The source's end. Disposing of it ends the connection and its thread, whatever state they are in. */
export interface PageSource extends AsyncDisposable {
  /** Reads all of the memory once and sends what the receiver lacks. */
  round(): Promise<RoundReport>;
  /** Sends the checkpoint; resolves when the image is whole on the target. */
  finish(image: GrowingImage): Promise<FinishReport>;
}

/** The target's end of one migration. Disposing of it removes the store (not the image) and ends the connection. */
export interface PageSink extends AsyncDisposable {
  readonly ticket: PageTicket;
  /** Settles with the end of the exchange. */
  readonly image: Promise<AssembledImage>;
  /** Ends it as disposing does, but leaves the store: the next `expect` of this migration goes on with it. */
  keepStore(): Promise<void>;
}
