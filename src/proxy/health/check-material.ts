/**
 * What health checks over TLS need of certificates: the primary holds no keys, so the one that an endpoint wants to be shown is read from the store, once for
 * each change of certificates.
 */
import { reasonOf } from '#errors';
import type { Log } from '#log';
import type { TlsMaterial } from '#proxy/endpoint-security.ts';
import type { CertificateStock } from '#proxy/certificate-delivery.ts';
import type { CaBundle, EndpointTls } from '#routing/route-tls.ts';
import type { Coverage, EdgeCertificate } from '#tls/certificate.ts';
import type { CertificateIndex } from '#tls/certificate-index.ts';
import { PackedCertificate } from '#tls/certificate-pack.ts';

export interface CheckMaterialSource {
  readonly log: Log;
  readonly caBundle: (name: string) => CaBundle | undefined;
  /** What is committed, at this moment. */
  readonly index: () => CertificateIndex<Coverage>;
  /** For an index that is bare. */
  readonly stock: Pick<CertificateStock, 'pack'> | undefined;
}

interface Shown {
  /** Of which it was read: another one may have another under this name. */
  readonly index: CertificateIndex<Coverage>;
  readonly certificate: EdgeCertificate | undefined;
}

export class CheckMaterial implements TlsMaterial {
  readonly #source: CheckMaterialSource;
  readonly #shown = new Map<string, Shown>();

  constructor(source: CheckMaterialSource) {
    this.#source = source;
  }

  /** Brings what a check of an endpoint is to show up to date; to be awaited before `certificate`. While the store cannot be read it is what it was. */
  async load({ clientCertificate: name }: EndpointTls): Promise<void> {
    if (name === undefined) return;
    const index = this.#source.index();
    if (this.#shown.get(name)?.index === index) return;
    try {
      this.#shown.set(name, { index, certificate: await this.#read(name, index) });
    } catch (error) {
      this.#source.log.warn({ certificate: name, reason: reasonOf(error) }, 'what health checks show could not be read');
    }
  }

  caBundle(name: string): CaBundle | undefined {
    return this.#source.caBundle(name);
  }

  certificate(name: string): EdgeCertificate | undefined {
    return this.#shown.get(name)?.certificate;
  }

  async #read(name: string, index: CertificateIndex<Coverage>): Promise<EdgeCertificate | undefined> {
    const { stock } = this.#source;
    if (stock !== undefined) return [...(await stock.pack([name])).values()].find((one) => one.name === name);
    const known = index.get(name);
    return known instanceof PackedCertificate ? known : undefined;
  }
}
