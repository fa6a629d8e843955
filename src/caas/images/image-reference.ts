/**
 * Image references: Docker's short names made whole. Pure.
 * Source: distribution/reference `normalize.go`.
 */

export interface ImageReference {
  /** `docker.io/library/busybox`. */
  readonly repository: string;
  readonly tag: string;
}

/** A name as somebody wrote it, made whole. */
export interface NamedReference {
  readonly repository: string;
  /** Empty: none was written. */
  readonly tag: string;
  /** `sha256:…`; empty: none was written. */
  readonly digest: string;
}

export type ParsedName =
  | { readonly kind: 'named'; readonly name: NamedReference }
  | { readonly kind: 'invalid'; readonly why: string };

const PATH_PART = /^[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*$/;
const DOMAIN = /^[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*(?::\d{1,5})?$/;
const TAG = /^\w[\w.-]{0,127}$/;
/** The one digest algorithm that engines use; others are no content of theirs. */
const DIGEST = /^sha256:[0-9a-f]{64}$/;
const REFERENCE_LENGTH_MAX = 512;
const REPOSITORY_LENGTH_MAX = 255;

/** The registry that a reference names, and what follows it. */
function splitDomain(text: string): readonly [string, string] {
  const slash = text.indexOf('/');
  const first = slash === -1 ? '' : text.slice(0, slash);
  if (first === 'index.docker.io') return ['docker.io', text.slice(slash + 1)];
  const isDomain = first.includes('.') || first.includes(':') || first === 'localhost';
  return isDomain ? [first, text.slice(slash + 1)] : ['docker.io', text];
}

const invalid = (why = ''): ParsedName => ({ kind: 'invalid', why: `invalid reference format${why}` });

/** A text in its parts, which need not be good ones. */
function splitReference(text: string): { readonly domain: string; readonly path: string } & Omit<NamedReference, 'repository'> {
  const at = text.indexOf('@');
  const [domain, rest] = splitDomain(at === -1 ? text : text.slice(0, at));
  const colon = rest.lastIndexOf(':');
  const name = colon === -1 ? rest : rest.slice(0, colon);
  return {
    domain,
    path: domain === 'docker.io' && !name.includes('/') ? `library/${name}` : name,
    // A separator with nothing behind it is no separator: the space makes that invalid.
    tag: colon === -1 ? '' : rest.slice(colon + 1) || ' ',
    digest: at === -1 ? '' : text.slice(at + 1) || ' ',
  };
}

function isPath(path: string): boolean {
  return path.split('/').every((part) => PATH_PART.test(part));
}

/** `name`, `name:tag`, `name@digest` or `name:tag@digest`. What is wrong is said in the words of distribution/reference. */
export function parseNamed(text: string): ParsedName {
  if (/^[0-9a-f]{64}$/.test(text)) {
    return { kind: 'invalid', why: `invalid repository name (${text}), cannot specify 64-byte hexadecimal strings` };
  }
  if (text === '' || text.length > REFERENCE_LENGTH_MAX) return invalid();
  const { domain, path, tag, digest } = splitReference(text);
  if (!isPath(path) && isPath(path.toLowerCase())) return invalid(': repository name must be lowercase');
  const isTail = (tag === '' || TAG.test(tag)) && (digest === '' || DIGEST.test(digest));
  if (!DOMAIN.test(domain) || !isPath(path) || !isTail) return invalid();
  const repository = `${domain}/${path}`;
  return repository.length > REPOSITORY_LENGTH_MAX
    ? { kind: 'invalid', why: `repository name must not be more than ${String(REPOSITORY_LENGTH_MAX)} characters` }
    : { kind: 'named', name: { repository, tag, digest } };
}

/** Parses `busybox`, `a/b:1`, `localhost:5000/x`; undefined where it is none, or one by digest. */
export function parseReference(text: string): ImageReference | undefined {
  const parsed = parseNamed(text);
  if (parsed.kind === 'invalid' || parsed.name.digest !== '') return undefined;
  return { repository: parsed.name.repository, tag: parsed.name.tag === '' ? 'latest' : parsed.name.tag };
}

/** Repository and tag of a whole reference. */
export function splitWhole(whole: string): ImageReference {
  const colon = whole.lastIndexOf(':');
  return { repository: whole.slice(0, colon), tag: whole.slice(colon + 1) };
}

/** The whole reference: what the store keeps. */
export function wholeReference(reference: ImageReference): string {
  return `${reference.repository}:${reference.tag}`;
}

/** The short form that Docker shows: `docker.io/library/busybox:latest` is `busybox:latest`. Of repositories too. */
export function familiarReference(whole: string): string {
  if (whole.startsWith('docker.io/library/')) return whole.slice('docker.io/library/'.length);
  return whole.startsWith('docker.io/') ? whole.slice('docker.io/'.length) : whole;
}

export type WrittenReference =
  | { readonly kind: 'reference'; readonly text: string }
  | { readonly kind: 'invalid'; readonly why: string };

/** A name with a tag or digest from beside it: what was there for it gives way. Without one the name stays as it is. */
export function withTag(name: string, tag: string): WrittenReference {
  const parsed = parseNamed(name);
  if (parsed.kind === 'invalid') return parsed;
  if (tag === '') return { kind: 'reference', text: name };
  const { repository } = parsed.name;
  if (DIGEST.test(tag)) return { kind: 'reference', text: `${repository}@${tag}` };
  return TAG.test(tag) ? { kind: 'reference', text: `${repository}:${tag}` } : { kind: 'invalid', why: 'invalid tag format' };
}
