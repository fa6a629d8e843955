/**
 * Certificates of the internal CA for route hosts, kept on disk so that a restart answers with the same ones. A kept one that is
 * broken, that another CA signed, or that ends soon is made anew: unlike the CA's own key it can be.
 */
import { X509Certificate, createHash, createPrivateKey } from 'node:crypto';
import { mkdir, readFile, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { LRUCache } from 'lru-cache';
import type { Clock } from '#clock';
import { EcluseError, codeOf } from '#errors';
import { KeyedLock } from '#lifecycle';
import { replaceFile } from './atomic-file.ts';
import type { Authority } from './authority.ts';
import type { HostCertificate } from './certificate.ts';
import { isCertificateName } from './issue.ts';

interface Kept {
  readonly certificate: HostCertificate;
  readonly renewFromMs: number;
}

const DAYS = 90;
const HOSTS_KEPT_MAX = 100_000;
const HOSTS_IN_MEMORY_MAX = 10_000;
const FILE_NAME_CHARS_MAX = 200;
const FILE_MODE = 0o600;
/** No client matches the name `*`; whoever gets the default certificate on this machine reaches it by one of these. */
const DEFAULT_HOST_NAMES = ['localhost', '127.0.0.1', '::1'] as const;

/** `*` cannot be told from a shell's pattern, so a file has `_` for it. */
function fileNameOf(host: string): string {
  const name = host === '*' ? '_default' : host.replace('*', '_');
  return `${name.length <= FILE_NAME_CHARS_MAX ? name : `sha256-${createHash('sha256').update(host).digest('hex')}`}.pem`;
}

/** The one block of a kept file that is the key; the others are the certificates. */
function splitPem(text: string): { keyPem: string; certPem: string } {
  const blocks = text.match(/-----BEGIN ([A-Z ]+)-----[^-]+-----END \1-----\n/g) ?? [];
  const { keys = [], certificates = [] } = Object.groupBy(blocks, (block) =>
    block.startsWith('-----BEGIN CERTIFICATE') ? 'certificates' : 'keys',
  );
  return { keyPem: keys.join(''), certPem: certificates.join('') };
}

export class HostCertificates {
  readonly #folder: string;
  readonly #authority: Authority;
  readonly #ca: X509Certificate;
  readonly #clock: Clock;
  readonly #lock = new KeyedLock();
  readonly #memory = new LRUCache<string, Kept>({ max: HOSTS_IN_MEMORY_MAX });
  /** Names of the files: their number is bounded, whatever routes name. */
  readonly #files: Set<string>;

  private constructor(folder: string, deps: { readonly authority: Authority; readonly clock: Clock }, files: Set<string>) {
    this.#folder = folder;
    this.#authority = deps.authority;
    this.#ca = new X509Certificate(deps.authority.caPem);
    this.#clock = deps.clock;
    this.#files = files;
  }

  /** Keeps them in `<folder>/hosts/`. */
  static async open(folder: string, deps: { readonly authority: Authority; readonly clock: Clock }): Promise<HostCertificates> {
    const hosts = join(folder, 'hosts');
    await mkdir(hosts, { recursive: true, mode: 0o700 });
    const names = await readdir(hosts);
    // What a crash left half written.
    await Promise.all(
      names.filter((name) => name.startsWith('.new-')).map(async (name) => await rm(join(hosts, name), { force: true })),
    );
    return new HostCertificates(hosts, deps, new Set(names.filter((name) => name.endsWith('.pem'))));
  }

  /**
   * The certificate for `host` (exact, `*.example.com`, an IP address, or `*`): the kept one, or a new one when there is none or
   * less than a third of its life is left.
   */
  async certificateFor(host: string): Promise<HostCertificate> {
    const known = this.#memory.get(host);
    if (known !== undefined && this.#clock.nowMs() < known.renewFromMs) return known.certificate;
    return await this.#lock.run(host, async () => await this.#keptOrNew(host));
  }

  /** Drops what is kept for `host`, when no route names it any more. */
  async forget(host: string): Promise<void> {
    await this.#lock.run(host, async () => {
      this.#memory.delete(host);
      if (this.#files.delete(fileNameOf(host))) await rm(join(this.#folder, fileNameOf(host)), { force: true });
    });
  }

  async #keptOrNew(host: string): Promise<HostCertificate> {
    const found = this.#memory.get(host) ?? (await this.#read(host));
    const kept = found !== undefined && this.#clock.nowMs() < found.renewFromMs ? found : await this.#issue(host);
    this.#memory.set(host, kept);
    return kept.certificate;
  }

  async #read(host: string): Promise<Kept | undefined> {
    if (!this.#files.has(fileNameOf(host))) return undefined;
    let text: string;
    try {
      text = await readFile(join(this.#folder, fileNameOf(host)), 'utf8');
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return undefined;
      throw error;
    }
    return this.#accept(host, splitPem(text));
  }

  /** A pair of this host that our CA signed, with the time from which it is to be renewed; undefined for anything else. */
  #accept(host: string, pem: { readonly certPem: string; readonly keyPem: string }): Kept | undefined {
    try {
      const leaf = new X509Certificate(pem.certPem);
      if (!leaf.checkPrivateKey(createPrivateKey(pem.keyPem)) || !leaf.verify(this.#ca.publicKey)) return undefined;
      const startMs = leaf.validFromDate.getTime();
      const endMs = leaf.validToDate.getTime();
      return { certificate: { host, ...pem }, renewFromMs: endMs - (endMs - startMs) / 3 };
    } catch {
      return undefined; // OpenSSL cannot read it: the caller makes a new one.
    }
  }

  async #issue(host: string): Promise<Kept> {
    if (host !== '*' && !isCertificateName(host)) {
      throw new EcluseError({
        code: 'ECLUSE_CERTIFICATE_NAME_INVALID',
        source: 'usage',
        message: `no certificate for the host "${host.slice(0, 100)}": it is neither a DNS name nor an IP address`,
        mend: 'give a lower-case DNS name like shop.example.com or *.example.com',
        status: 400,
      });
    }
    const file = fileNameOf(host);
    if (!this.#files.has(file) && this.#files.size >= HOSTS_KEPT_MAX) {
      throw new EcluseError({
        code: 'ECLUSE_CERTIFICATES_TOO_MANY',
        source: 'runtime',
        message: `no certificate for the host "${host}": there are ${String(HOSTS_KEPT_MAX)} already`,
        mend: 'remove routes that are no longer used, or serve their hosts by one wildcard route',
        status: 507,
      });
    }
    const issued = await this.#authority.issueServer({ names: host === '*' ? DEFAULT_HOST_NAMES : [host], days: DAYS });
    this.#files.add(file); // Before the write, so that requests for many hosts at once cannot pass the bound together.
    await replaceFile(join(this.#folder, file), `${issued.keyPem}${issued.certPem}`, FILE_MODE);
    const kept = this.#accept(host, issued);
    if (kept !== undefined) return kept;
    throw new EcluseError({
      code: 'ECLUSE_CERTIFICATE_UNUSABLE',
      source: 'internal',
      message: `the certificate made for "${host}" is not usable`,
    });
  }
}
