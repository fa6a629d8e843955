/**
 * Image references: Docker's short names made whole, and the opaque names under which engines keep tenants' images. Pure.
 * Source: distribution/reference `normalize.go`.
 */
import { createHash } from 'node:crypto';

export interface ImageReference {
  /** `docker.io/library/busybox`. */
  readonly repository: string;
  /** `latest`; empty for a reference by digest. */
  readonly tag: string;
}

const PATH_PART = /^[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*$/;
const DOMAIN = /^[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::\d{1,5})?$/;
const TAG = /^\w[\w.-]{0,127}$/;
const REFERENCE_LENGTH_MAX = 512;

/** The registry that a reference names, and what follows it. */
function splitDomain(text: string): readonly [string, string] {
  const slash = text.indexOf('/');
  const first = slash === -1 ? '' : text.slice(0, slash);
  const isDomain = first.includes('.') || first.includes(':') || first === 'localhost';
  return isDomain ? [first, text.slice(slash + 1)] : ['docker.io', text];
}

/** Parses `busybox`, `a/b:1`, `localhost:5000/x`; undefined where it is none. */
export function parseReference(text: string): ImageReference | undefined {
  if (text === '' || text.length > REFERENCE_LENGTH_MAX || text.includes('@')) return undefined;
  const [domain, rest] = splitDomain(text);
  const colon = rest.lastIndexOf(':');
  const tag = colon === -1 ? 'latest' : rest.slice(colon + 1);
  const name = colon === -1 ? rest : rest.slice(0, colon);
  const path = domain === 'docker.io' && !name.includes('/') ? `library/${name}` : name;
  if (!DOMAIN.test(domain) || !TAG.test(tag) || !path.split('/').every((part) => PATH_PART.test(part))) return undefined;
  return { repository: `${domain}/${path}`, tag };
}

/** The whole reference: what the store keeps. */
export function wholeReference(reference: ImageReference): string {
  return `${reference.repository}:${reference.tag}`;
}

/** The short form that Docker shows: `docker.io/library/busybox:latest` is `busybox:latest`. */
export function familiarReference(whole: string): string {
  if (whole.startsWith('docker.io/library/')) return whole.slice('docker.io/library/'.length);
  return whole.startsWith('docker.io/') ? whole.slice('docker.io/'.length) : whole;
}

/**
 * The engine's name for a tenant's reference. Opaque, so that no spelling of one tenant's can meet another's name.
 */
export function engineReference(tenant: string, whole: string): { readonly repository: string; readonly tag: string } {
  const hash = createHash('sha256').update(`${tenant}\0${whole}`).digest('hex').slice(0, 40);
  return { repository: `ecluse/${hash}`, tag: 'held' };
}
