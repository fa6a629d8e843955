/**
 * Certificates of the internal CA for route hosts that have no other, signed when a handshake asks for one. All share one key, which lives as long as the
 * primary and is on no disk: a key is to be made once, not twenty thousand times, and who could take one of them from a worker's memory could take all
 * (docs/decisions/024-certificates.md).
 */
import { X509Certificate } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { LRUCache } from 'lru-cache';
import type { Clock } from '#clock';
import { EcluseError } from '#errors';
import { KeyedLock } from '#lifecycle';
import type { Authority } from './authority.ts';
import { DEFAULT_CERTIFICATE } from './certificate.ts';
import type { CertificateChain } from './certificate.ts';
import { isCertificateName, newLeafKeys } from './issue.ts';
import type { LeafKeys } from './issue.ts';
import type { IssuedCertificate } from './issued-certificates.ts';

const DAYS = 90;
/** As many hosts as a big node has routes for; some 150 MB where all of them are asked for. One that was pushed out is signed again. */
const KEPT_MAX = 100_000;
/** A signature takes two milliseconds of the primary (2026-11): these are two seconds of its time, and who waits for one gives up after ten. */
const WAITING_MAX = 1024;
/** No client matches the name `*`; whoever gets the default certificate on this machine reaches it by one of these. */
const DEFAULT_HOST_NAMES = ['localhost', '127.0.0.1', '::1'] as const;

export class HostCertificates {
  readonly #authority: Authority;
  readonly #clock: Clock;
  readonly #keys: LeafKeys;
  readonly #chain: CertificateChain;
  readonly #kept = new LRUCache<string, IssuedCertificate>({ max: KEPT_MAX });
  readonly #underWay = new Map<string, Promise<IssuedCertificate>>();
  readonly #turns = new KeyedLock();

  private constructor(deps: { readonly authority: Authority; readonly clock: Clock }, keys: LeafKeys) {
    this.#authority = deps.authority;
    this.#clock = deps.clock;
    this.#keys = keys;
    this.#chain = { pem: deps.authority.caPem };
  }

  /** Removes what earlier versions kept in `<folder>/hosts/`: a key and a certificate for each host. */
  static async open(folder: string, deps: { readonly authority: Authority; readonly clock: Clock }): Promise<HostCertificates> {
    await rm(join(folder, 'hosts'), { recursive: true, force: true });
    return new HostCertificates(deps, await newLeafKeys());
  }

  /**
   * The certificate for `host` (exact, `*.example.com`, or `*` for the default), the same one until less than a third of its life is left. Errors:
   * ECLUSE_CERTIFICATE_NAME_INVALID, ECLUSE_CERTIFICATES_BUSY.
   */
  async certificateFor(host: string): Promise<IssuedCertificate> {
    const known = this.#kept.get(host);
    if (known !== undefined && this.#clock.nowMs() < known.renewFromMs) return known;
    const begun = this.#underWay.get(host);
    if (begun !== undefined) return await begun;
    if (this.#underWay.size >= WAITING_MAX) throw busy(host);
    const signing = this.#turns.run('sign', async () => await this.#sign(host));
    this.#underWay.set(host, signing);
    try {
      return await signing;
    } finally {
      this.#underWay.delete(host);
    }
  }

  async #sign(host: string): Promise<IssuedCertificate> {
    const isDefault = host === DEFAULT_CERTIFICATE;
    if (!isDefault && !isCertificateName(host)) throw invalid(host);
    const names = isDefault ? DEFAULT_HOST_NAMES : [host];
    const { certPem, keyPem } = await this.#authority.issueServer({ names, days: DAYS, keys: this.#keys });
    // What follows the leaf is the CA, the same text for all.
    const leafPem = certPem.slice(0, -this.#chain.pem.length);
    const { validFromDate, validToDate } = new X509Certificate(leafPem);
    const notAfterMs = validToDate.getTime();
    const renewFromMs = notAfterMs - (notAfterMs - validFromDate.getTime()) / 3;
    const hosts = isDefault ? [] : [host];
    const certificate = { name: host, hosts, notAfterMs, renewFromMs, leafPem, chain: this.#chain, keyPem };
    this.#kept.set(host, certificate);
    return certificate;
  }
}

function invalid(host: string): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_CERTIFICATE_NAME_INVALID',
    source: 'usage',
    message: `no certificate for the host "${host.slice(0, 100)}": it is neither a DNS name nor an IP address`,
    mend: 'give a lower-case DNS name like shop.example.com or *.example.com',
    status: 400,
  });
}

function busy(host: string): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_CERTIFICATES_BUSY',
    source: 'runtime',
    message: `no certificate for the host "${host}": ${String(WAITING_MAX)} hosts wait for theirs already`,
    mend: 'try again in some seconds; a certificate of your own for *.example.com needs no signature of the node: ecluse cert add',
    status: 503,
  });
}
