/** The proofs that are to be seen at one moment: at the edge by all workers, and in the DNS. */
import type { Clock } from '#clock';
import { reasonOf } from '#errors';
import { KeyedLock } from '#lifecycle';
import type { Log } from '#log';
import type { EdgeCertificate } from '#tls/certificate.ts';
import { acmeFailure } from './acme-failure.ts';
import { newChallengeCertificate } from './certificate-request.ts';
import type { Proof, ProofPort } from './issuance.ts';
import type { ShownProofs } from './shown-proofs.ts';

export interface ProofBoardDeps {
  readonly log: Log;
  readonly clock: Clock;
  /** Shows exactly these; returns when all workers do. */
  readonly show: (proofs: ShownProofs) => Promise<void>;
  /** Where proofs of the DNS go; undefined: nowhere. */
  readonly dns: ProofPort | undefined;
}

export class ProofBoard implements ProofPort {
  readonly #deps: ProofBoardDeps;
  readonly #turns = new KeyedLock();
  readonly #texts = new Map<string, string>();
  readonly #certificates = new Map<string, EdgeCertificate>();
  #changes = 0;
  #shown = 0;

  constructor(deps: ProofBoardDeps) {
    this.#deps = deps;
  }

  readonly show = async (proof: Proof): Promise<void> => {
    const { dns, clock } = this.#deps;
    if (proof.kind === 'dns-01') {
      if (dns === undefined) throw acmeFailure('refused', 'no proof can be put into the DNS', { mend: 'set acme.dns' });
      await dns.show(proof);
      return;
    }
    if (proof.kind === 'http-01') this.#texts.set(proof.token, proof.keyAuthorization);
    else this.#certificates.set(proof.host, await newChallengeCertificate(proof.host, proof.keyAuthorization, clock.nowMs()));
    await this.#tell();
  };

  readonly hide = async (proof: Proof): Promise<void> => {
    if (proof.kind === 'dns-01') {
      await this.#deps.dns?.hide(proof);
      return;
    }
    if (proof.kind === 'http-01') this.#texts.delete(proof.token);
    else this.#certificates.delete(proof.host);
    await this.#tell().catch((error: unknown) => {
      this.#deps.log.warn({ host: proof.host, reason: reasonOf(error) }, 'a proof that is over is still shown');
    });
  };

  /** Proofs that come while others are told go together. */
  async #tell(): Promise<void> {
    this.#changes += 1;
    const mine = this.#changes;
    await this.#turns.run('tell', async () => {
      if (this.#shown >= mine) return;
      const changes = this.#changes;
      await this.#deps.show({
        http: [...this.#texts].map(([token, keyAuthorization]) => ({ token, keyAuthorization })),
        tls: [...this.#certificates.values()],
      });
      this.#shown = changes;
    });
  }
}
