/** The thread of page-receiver.ts: the listener of a node, and all that comes in through it. */
import { timingSafeEqual } from 'node:crypto';
import { join } from 'node:path';
import type { AssembledImage, PeerTls } from './exchange.ts';
import type { Hello } from './frames.ts';
import { cancelled, pageError } from './page-errors.ts';
import { PageStore } from './page-store.ts';
import { PageThreadEnd } from './page-thread.ts';
import { listenForPages } from './page-transport.ts';
import type { PageListener } from './page-transport.ts';
import { SINK_LIMITS, SinkSession } from './sink-session.ts';

export interface ExpectedMigration {
  readonly migrationId: string;
  readonly fencingToken: number;
  readonly token: string;
  readonly imageDir: string;
  readonly storeFolder: string;
  readonly slotsMax: number;
  readonly pagesBytesMax: number;
}

export type ReceiverRequest =
  | { readonly kind: 'listen'; readonly host: string; readonly port: number; readonly tls: PeerTls }
  | { readonly kind: 'expect'; readonly migration: ExpectedMigration }
  /** Answered when the exchange is over. */
  | { readonly kind: 'image'; readonly migrationId: string }
  | { readonly kind: 'end'; readonly migrationId: string; readonly store: 'keep' | 'remove' }
  | { readonly kind: 'close' };

export type ReceiverAnswer =
  | { readonly kind: 'done' }
  | { readonly kind: 'listening'; readonly port: number }
  | { readonly kind: 'image'; readonly image: AssembledImage };

interface Expected {
  readonly migration: ExpectedMigration;
  readonly store: PageStore;
  readonly image: PromiseWithResolvers<AssembledImage>;
  /** The one connection that came with its token. */
  session: SinkSession | undefined;
}

const STORE_AFTER_MS = 50;

let listener: PageListener | undefined;
const expected = new Map<string, Expected>();

/** Who is let in? To a stranger all refusals are one. */
function admit(hello: Hello): Expected {
  const found = expected.get(hello.migrationId);
  const isRight =
    found !== undefined &&
    found.session === undefined &&
    found.migration.fencingToken === hello.fencingToken &&
    timingSafeEqual(Buffer.from(found.migration.token, 'hex'), Buffer.from(hello.token, 'hex'));
  if (!isRight) throw pageError('ECLUSE_PAGES_REFUSED', 'no such migration is expected here', 'migrate again');
  return found;
}

async function follow(found: Expected, session: SinkSession): Promise<void> {
  try {
    found.image.resolve(await session.ended);
  } catch (error) {
    found.image.reject(error);
    return;
  }
  // The restored sandbox needs the memory. Not at once: to free it takes a while, and the answer should go first.
  setTimeout(() => {
    found.store[Symbol.dispose]();
  }, STORE_AFTER_MS);
}

function end(migrationId: string, fate: 'keep' | 'remove'): void {
  const found = expected.get(migrationId);
  if (found === undefined) return;
  expected.delete(migrationId);
  found.session?.cancel();
  found.image.reject(cancelled());
  if (fate === 'keep') found.store.keep();
  else found.store[Symbol.dispose]();
}

async function answerTo(request: ReceiverRequest): Promise<ReceiverAnswer> {
  switch (request.kind) {
    case 'listen': {
      listener = await listenForPages(request, request.tls, (socket) => {
        const session: SinkSession = new SinkSession(
          socket,
          (hello) => {
            const found = admit(hello);
            found.session = session;
            void follow(found, session);
            return { store: found.store, imageDir: found.migration.imageDir, pagesBytesMax: found.migration.pagesBytesMax };
          },
          SINK_LIMITS,
        );
      });
      return { kind: 'listening', port: listener.port };
    }
    case 'expect': {
      const { migration } = request;
      if (expected.has(migration.migrationId)) {
        throw pageError('ECLUSE_PAGES_REFUSED', 'this migration is expected already', 'wait for the one under way');
      }
      const image = Promise.withResolvers<AssembledImage>();
      image.promise.catch(() => undefined); // Whoever asks for it may come later.
      const store = new PageStore(join(migration.storeFolder, migration.migrationId), migration.slotsMax);
      expected.set(migration.migrationId, { migration, store, image, session: undefined });
      return { kind: 'done' };
    }
    case 'image': {
      const found = expected.get(request.migrationId);
      if (found === undefined) throw cancelled();
      return { kind: 'image', image: await found.image.promise };
    }
    case 'end': {
      end(request.migrationId, request.store);
      return { kind: 'done' };
    }
    case 'close': {
      for (const migrationId of expected.keys()) end(migrationId, 'remove');
      await listener?.[Symbol.asyncDispose]();
      return { kind: 'done' };
    }
  }
}

void new PageThreadEnd<ReceiverRequest, ReceiverAnswer, never>(answerTo);
