/** One pull or push under way between an engine and a registry: what it may do, and what it has shown. */
import type { EcluseError } from '#errors';
import { dockerError } from '#caas/docker-api/docker-error.ts';
import { RegistryClient } from './registry-client.ts';
import type { RegistryTarget } from './registry-client.ts';
import type { RegistryPolicy } from './registry-access.ts';

/** Of one pull or push: the largest images in use are some ten gigabytes, and the engine's disk is shared. */
const TRANSFER_BYTES_MAX = 32 * 1024 ** 3;

export interface PulledManifest {
  readonly digest: string;
  readonly config: string;
  readonly layers: readonly string[];
}

export interface RelayWish {
  readonly tenant: string;
  /** `docker.io/library/busybox`. */
  readonly repository: string;
  readonly target: Omit<RegistryTarget, 'signal'>;
  readonly signal: AbortSignal | undefined;
  /** Tags that a pull of all tags may take. */
  readonly tagsMax: number;
}

/** One pull or push under way. */
export class RelaySession implements Disposable {
  /** The repository's name on an engine, behind the relay's address. */
  readonly name: string;
  readonly path: string;
  readonly client: RegistryClient;
  readonly tagsMax: number;
  /** Manifests of images (not of lists) that the registry gave. */
  readonly manifests: PulledManifest[] = [];
  /** Manifests that lists named, with their platforms (`linux/amd64`). */
  readonly listed = new Map<string, string>();
  /** Blobs whose whole content came from the registry in this session, so that the tenant has it. */
  readonly proven = new Set<string>();
  readonly uploads = new Map<string, URL>();
  bytes = 0;
  /** Why it must end; what the engine says then is a consequence. */
  failure: EcluseError | undefined;
  /** What went wrong last with the registry; an engine may have tried again since. */
  lastFault: EcluseError | undefined;
  readonly #stop = new AbortController();
  readonly #onEnd: () => void;

  constructor(name: string, wish: RelayWish, policy: RegistryPolicy, onEnd: () => void) {
    this.path = wish.repository.slice(wish.repository.indexOf('/') + 1);
    this.name = `${name}/${this.path}`;
    this.tagsMax = wish.tagsMax;
    this.#onEnd = onEnd;
    wish.signal?.addEventListener('abort', () => {
      this.#stop.abort();
    });
    if (wish.signal?.aborted === true) this.#stop.abort();
    this.client = new RegistryClient(policy, { ...wish.target, signal: this.#stop.signal });
  }

  /** Aborts when the client went away or the session failed. */
  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  fail(error: EcluseError): void {
    this.failure ??= error;
    this.#stop.abort();
  }

  count(bytes: number): void {
    this.bytes += bytes;
    if (this.bytes > TRANSFER_BYTES_MAX) {
      this.fail(dockerError(413, `ecluse: the image is larger than ${String(TRANSFER_BYTES_MAX)} bytes`));
    }
  }

  [Symbol.dispose](): void {
    this.#stop.abort();
    this.client[Symbol.dispose]();
    this.#onEnd();
  }
}
