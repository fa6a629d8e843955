/** A receiver and what a source needs to reach it, with certificates of a CA of their own, below a fresh folder of /dev/shm. */
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from '#clock';
import type { PageSink, PageTicket, PeerTls } from '#isolation/pages/exchange.ts';
import { mountMemoryFolder } from '#isolation/memory-folder.ts';
import type { MemoryFolder } from '#isolation/memory-folder.ts';
import { openPageReceiver } from '#isolation/pages/page-receiver.ts';
import type { PageReceiver } from '#isolation/pages/page-receiver.ts';
import { openAuthority } from '#tls/authority.ts';

export const SOURCE_NAME = 'node@source';
export const SINK_NAME = 'sink.ecluse.test';
export const FENCING_TOKEN = 7;

export interface PageScene extends AsyncDisposable {
  readonly folder: string;
  /** Undefined for a folder that was given. */
  readonly memory: MemoryFolder | undefined;
  readonly receiver: PageReceiver;
  readonly sourceTls: PeerTls;
  /** A source's certificate with another name, of the same CA: a tenant's. */
  readonly tenantTls: PeerTls;
  /** Stores are folders in here, by migration. */
  readonly storeFolder: string;
  expect(
    options?: Partial<{ readonly migrationId: string; readonly memoryBytesMax: number; readonly signal: AbortSignal }>,
  ): Promise<{
    readonly sink: PageSink;
    readonly ticket: PageTicket;
    readonly imageDir: string;
  }>;
}

export interface PageSceneOptions {
  /** For the store and the image; a folder of its own otherwise. */
  readonly folder?: string;
  readonly migrationsMax?: number;
}

export async function openPageScene(options: PageSceneOptions = {}): Promise<PageScene> {
  const folder = options.folder ?? (await mkdtemp('/dev/shm/ecluse-test-pages-'));
  const mounted = options.folder === undefined ? await mountMemoryFolder(folder) : undefined;
  const caFolder = await mkdtemp('/tmp/ecluse-test-ca-');
  const authority = await openAuthority(caFolder, { clock: systemClock });
  const server = await authority.issueServer({ names: [SINK_NAME], days: 1 });
  const source = await authority.issueClient({ commonName: SOURCE_NAME, days: 1 });
  const tenant = await authority.issueClient({ commonName: 'acme', days: 1 });
  const storeFolder = join(folder, 'stores');
  const receiver = await openPageReceiver({
    host: '127.0.0.1',
    port: 0,
    tls: { caPem: authority.caPem, ...server, peerName: SOURCE_NAME },
    storeFolder,
    keep: [],
    migrationsMax: options.migrationsMax ?? 4,
  });
  const clientTls = ({ certPem, keyPem }: { readonly certPem: string; readonly keyPem: string }): PeerTls => ({
    caPem: authority.caPem,
    certPem,
    keyPem,
    peerName: SINK_NAME,
  });
  return {
    folder,
    memory: mounted,
    receiver,
    sourceTls: clientTls(source),
    tenantTls: clientTls(tenant),
    storeFolder,
    expect: async ({
      migrationId = randomUUID(),
      memoryBytesMax = 64 * 1024 * 1024,
      signal = new AbortController().signal,
    } = {}) => {
      const imageDir = join(folder, `image-${randomUUID()}`);
      const sink = await receiver.expect({ migrationId, fencingToken: FENCING_TOKEN, imageDir, memoryBytesMax, signal });
      return { sink, ticket: sink.ticket, imageDir };
    },
    async [Symbol.asyncDispose](): Promise<void> {
      await receiver[Symbol.asyncDispose]();
      await mounted?.[Symbol.asyncDispose]();
      if (options.folder === undefined) await rm(folder, { recursive: true, force: true });
      await rm(caFolder, { recursive: true, force: true });
    },
  };
}
