/**
 * Entity tags (RFC 9110, section 8.8.3): what a resource looked like when somebody read it, so that nobody changes it for what it is no more.
 *
 * A tag is the digest of what `GET` of the resource says, so it needs no column in the store, and is the same again where a change was taken back.
 */
import { createHash } from 'node:crypto';
import { EcluseError } from '#errors';
import { badRequest } from './api-error.ts';
import { exactJson } from './exact-json.ts';

/** Tags of which one must be that of the resource. Undefined: whatever it is, as long as it is there. */
export type Precondition = readonly string[] | undefined;

/** 132 bits: nobody meets two resources with the same. */
const TAG_CHARS = 22;
/** Who sends more read nothing of ours: one resource has one tag. */
const TAGS_MAX = 32;
/** A comma, or a tag. */
const TOKEN = /[\t ]*(?:,|((?:W\/)?"[\x21\x23-\x7e\x80-\xff]*"))[\t ]*/y;

/** The tag of a resource that is this plain data; the order of its keys counts. */
export function entityTagOf(resource: unknown): string {
  return `"${createHash('sha256').update(exactJson(resource)).digest('base64url').slice(0, TAG_CHARS)}"`;
}

/** The tags of a header; undefined where it is none of the grammar, or is too long. Linear in its length. */
function tagsOf(header: string): readonly string[] | undefined {
  const token = new RegExp(TOKEN);
  const tags: string[] = [];
  let isAfterTag = false;
  while (token.lastIndex < header.length) {
    const found = token.exec(header);
    const tag = found?.[1];
    if (found === null || (tag !== undefined && isAfterTag) || tags.length >= TAGS_MAX) return undefined;
    if (tag !== undefined) tags.push(tag);
    isAfterTag = tag !== undefined;
  }
  return tags.length === 0 ? undefined : tags;
}

/** The value of `If-Match`. Errors: ECLUSE_REQUEST_INVALID. */
export function preconditionOf(header: string | undefined): Precondition {
  if (header === undefined || header.trim() === '*') return undefined;
  const bare = /^\s*\d{1,15}\s*$/.test(header); // A version of the routes, as people type it.
  const tags = bare ? [`"${header.trim()}"`] : tagsOf(header);
  if (tags === undefined)
    throw badRequest(`If-Match cannot be ${header.slice(0, 60)}`, 'send the ETag of the resource as it came, quotes included');
  return tags;
}

/** The same as a header. */
export function ifMatchHeader(precondition: Precondition): Readonly<Record<string, string>> {
  return precondition === undefined ? {} : { 'if-match': precondition.join(', ') };
}

/**
 * To be called in the step that changes the resource, where nothing else can change it any more. Weak tags match nothing, as the RFC has it.
 * Errors: ECLUSE_PRECONDITION_FAILED.
 */
export function checkPrecondition(precondition: Precondition, resource: unknown, what: string): void {
  if (precondition?.includes(entityTagOf(resource)) === false) throw preconditionFailed(what);
}

/** Whether a header `If-None-Match` names the tag: whoever sent it has what there is. What is no list of tags names none. */
export function isKnownTag(header: string | undefined, tag: string): boolean {
  if (header === undefined) return false;
  if (header.trim() === '*') return true;
  return tagsOf(header)?.some((known) => known.replace(/^W\//, '') === tag) === true;
}

function preconditionFailed(what: string): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_PRECONDITION_FAILED',
    source: 'usage',
    status: 412,
    message: `${what} is not what If-Match asks for: it was changed meanwhile`,
    mend: 'nothing was changed; get it again, and make the change for what it is now',
  });
}

/** For requests whose resource has no tag. */
export function refusePrecondition(header: string | undefined, what: string): void {
  if (preconditionOf(header) === undefined) return;
  throw new EcluseError({
    code: 'ECLUSE_PRECONDITION_FAILED',
    source: 'usage',
    status: 412,
    message: `${what} has no ETag, so none can match`,
    mend: 'nothing was changed; leave If-Match out',
  });
}
