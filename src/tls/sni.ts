/**
 * Which certificate answers a TLS handshake.
 *
 * An index is immutable: a change of certificates prepares a new one and swaps the reference. What does not change is shared, and what is costly, the
 * parsed `SecureContext`, is kept in a cache that the indexes of one worker share, so that a change costs what changed.
 */
import { createSecureContext } from 'node:tls';
import type { SecureContext } from 'node:tls';
import { LRUCache } from 'lru-cache';
import { reasonOf } from '#errors';
import { ShardedMap } from '#sharded-map';
import type { HostCertificate } from './certificate.ts';

/** A context is some 50 KB in OpenSSL; the busiest thousand stay, the rest is made again in well under a millisecond. */
const CONTEXTS_MAX = 1000;

type ContextCache = LRUCache<string, SecureContext>;

interface Entry {
  readonly certificate: HostCertificate;
  /** What the cache knows it by: unchanged certificates keep their context over changes of the set. */
  readonly key: string;
}

export type PreparedIndex =
  | { readonly kind: 'prepared'; readonly index: CertificateIndex }
  | { readonly kind: 'refused'; readonly reason: string };

export class CertificateIndex {
  readonly #contexts: ContextCache;
  readonly #byHost: ShardedMap<Entry>;

  private constructor(contexts: ContextCache, byHost: ShardedMap<Entry>) {
    this.#contexts = contexts;
    this.#byHost = byHost;
  }

  static empty(): CertificateIndex {
    return new CertificateIndex(new LRUCache({ max: CONTEXTS_MAX }), ShardedMap.empty());
  }

  /** An index with `changed` and without `removed`. Each new one is loaded once here, so that a broken one is refused and not met by a client. */
  prepare(changed: readonly HostCertificate[], removed: readonly string[] = []): PreparedIndex {
    const changes = new Map<string, Entry | undefined>(removed.map((host) => [host, undefined]));
    for (const certificate of changed) {
      const { host } = certificate;
      if (changes.has(host)) return { kind: 'refused', reason: `two certificates for host "${host}"` };
      const key = `${certificate.certPem}\n${certificate.keyPem}`;
      changes.set(host, { certificate, key });
      if (this.#byHost.get(host)?.key === key) continue;
      try {
        this.#contexts.set(key, load(certificate));
      } catch (error) {
        return { kind: 'refused', reason: `certificate for host "${host}" cannot be used: ${reasonOf(error)}` };
      }
    }
    return { kind: 'prepared', index: new CertificateIndex(this.#contexts, this.#byHost.with(changes)) };
  }

  /** The context for a server name: exact, then wildcard, then the default. Undefined: the handshake cannot be answered. */
  contextFor(serverName: string): SecureContext | undefined {
    const name = serverName.toLowerCase();
    const dot = name.indexOf('.');
    const wildcard = dot === -1 ? undefined : this.#byHost.get(`*${name.slice(dot)}`);
    const entry = this.#byHost.get(name) ?? wildcard ?? this.#byHost.get('*');
    return entry === undefined ? undefined : this.#context(entry);
  }

  /** The certificate for clients that name no host: Node asks for it ahead of time, not by SNI. */
  defaultCertificate(): HostCertificate | undefined {
    return this.#byHost.get('*')?.certificate;
  }

  #context({ certificate, key }: Entry): SecureContext {
    const known = this.#contexts.get(key);
    if (known !== undefined) return known;
    const made = load(certificate);
    this.#contexts.set(key, made);
    return made;
  }
}

function load(certificate: HostCertificate): SecureContext {
  return createSecureContext({ cert: certificate.certPem, key: certificate.keyPem, minVersion: 'TLSv1.2' });
}
