/** Certificates told to workers that boot, while certificates change under them. */
import { expect, test } from 'vitest';
import { CertificateDelivery } from '#proxy/certificate-delivery.ts';
import type { CertificateStock } from '#proxy/certificate-delivery.ts';
import type { Ask, Reply } from '#proxy/generation/conversation.ts';
import type { Coverage, EdgeCertificate } from '#tls/certificate.ts';
import { CertificateIndex, ToldPacks } from '#tls/certificate-index.ts';
import { CertificatePack } from '#tls/certificate-pack.ts';
import { pemBlockOf } from '#tls/pem-blocks.ts';

const BYTES = 2000;

async function nothing(): Promise<void> {
  await Promise.resolve();
}

function certificateOf(name: string, content = name): EdgeCertificate {
  const leafPem = pemBlockOf('CERTIFICATE', Buffer.alloc(BYTES, content));
  const keyPem = pemBlockOf('PRIVATE KEY', Buffer.from(content));
  return { name, hosts: [`${name}.test`], notAfterMs: 1, leafPem, chain: { pem: '' }, keyPem };
}

function namesOf(count: number): readonly string[] {
  return Array.from({ length: count }, (_, index) => `n-${String(index)}`);
}

function stockOf(pack: CertificateStock['pack']): CertificateStock {
  return { pack, lend: async () => await Promise.resolve(undefined), besides: async () => await Promise.resolve([]) };
}

/** A store whose packs are read by `Store.pack`, with what is committed of it. */
class Store {
  readonly certificates: Map<string, EdgeCertificate>;
  bare: CertificateIndex<Coverage>;
  reads = 0;
  readonly delivery = new CertificateDelivery({
    index: () => this.bare,
    stock: stockOf(async (names) => {
      this.reads += 1;
      await new Promise(setImmediate);
      const found = names.flatMap((name) => this.certificates.get(name) ?? []);
      return CertificatePack.of(found, () => undefined);
    }),
    missing: (names) => {
      this.bare = this.bare.with([], names);
    },
  });

  constructor(names: readonly string[]) {
    this.certificates = new Map(names.map((name) => [name, certificateOf(name)]));
    this.bare = CertificateIndex.bare().with([...this.certificates.values()]);
  }

  put(certificate: EdgeCertificate): void {
    this.certificates.set(certificate.name, certificate);
    this.bare = this.bare.with([certificate]);
  }

  remove(name: string): void {
    this.certificates.delete(name);
    this.bare = this.bare.with([], [name]);
  }
}

class Listener {
  readonly told = new ToldPacks();
  messages = 0;
  bytesMost = 0;
  readonly #heard: (messages: number) => void;

  constructor(heard: (messages: number) => void = () => undefined) {
    this.#heard = heard;
  }

  readonly ask = async (message: Ask): Promise<Reply> => {
    if (message.kind !== 'certificates') throw new Error(message.kind);
    this.messages += 1;
    this.bytesMost = Math.max(this.bytesMost, ...message.packs.map(({ bytes }) => bytes.length));
    for (const { number, bytes } of message.packs) this.told.tell(number, new CertificatePack(Buffer.from(bytes)));
    await new Promise(setImmediate);
    this.#heard(this.messages);
    return { kind: 'ack', seq: 0 };
  };
}

function expectToBe(index: CertificateIndex, store: Store): void {
  const served = [...index.values()].map(({ name, keyPem }) => [name, keyPem] as const);
  expect(new Map(served)).toEqual(new Map([...store.certificates].map(([name, { keyPem }]) => [name, keyPem])));
}

test('a worker has what is committed in the turn in which the delivery ends, whatever changed on the way', async () => {
  const store = new Store(namesOf(400));
  const worker = new Listener((messages) => {
    if (messages > 10) return;
    store.put(certificateOf('n-7', `changed ${String(messages)}`));
    store.put(certificateOf(`new-${String(messages)}`));
    store.remove(`n-${String(100 + messages)}`);
  });
  await store.delivery.deliver(worker, async () => {
    expectToBe(worker.told.index(), store);
    await Promise.resolve();
  });
  expect(worker.messages).toBeGreaterThan(8);
  // One pack more than the limit of a message.
  expect(worker.bytesMost).toBeLessThan(2 * 64 * 1024);
});

test('workers that boot one soon after the other read most of it once', async () => {
  const store = new Store(namesOf(400));
  let second: Promise<void> | undefined;
  const [one, other] = [
    new Listener((messages) => {
      if (messages === 3) second = deliver(other);
    }),
    new Listener(),
  ];
  const deliver = async (worker: Listener): Promise<void> => {
    await store.delivery.deliver(worker, nothing);
  };
  await deliver(one);
  await second;
  for (const worker of [one, other]) expectToBe(worker.told.index(), store);
  const packs = store.bare.packsBeside(new Map()).length;
  expect(store.reads).toBeGreaterThanOrEqual(packs);
  expect(store.reads).toBeLessThan(1.5 * packs);
});

test('a certificate that cannot be read is not committed any more', async () => {
  const store = new Store(['shop', 'blog']);
  store.certificates.delete('blog');
  const worker = new Listener();
  await store.delivery.deliver(worker, nothing);
  expect([...store.bare.values()].map(({ name }) => name)).toEqual(['shop']);
  expectToBe(worker.told.index(), store);
});

test('a store that cannot be read, or a worker that is gone, ends the delivery with its reason', async () => {
  const failing = new CertificateDelivery({
    index: () => CertificateIndex.bare().with([certificateOf('shop')]),
    stock: stockOf(async () => await Promise.reject(new Error('disk'))),
    missing: () => undefined,
  });
  await expect(failing.deliver(new Listener(), nothing)).rejects.toThrow('disk');
  const store = new Store(namesOf(200));
  await expect(store.delivery.deliver({ ask: async () => await Promise.reject(new Error('gone')) }, nothing)).rejects.toThrow(
    'gone',
  );
});

test('an index that has its certificates is told as it is', async () => {
  const index = CertificateIndex.of([certificateOf('shop')]);
  const delivery = new CertificateDelivery({ index: () => index, stock: undefined, missing: () => undefined });
  const worker = new Listener();
  await delivery.deliver(worker, nothing);
  expect(worker.told.index().find('shop.test')?.keyPem).toBe(certificateOf('shop').keyPem);
  expect(worker.messages).toBe(1);
});
