/**
 * Heads: where a tenant's chain stood at the end of a day, signed with the node's key (Ed25519), so that even the node's operator cannot change what is
 * before them without that showing to whoever kept one. Pure but for the key.
 *
 * What is signed is the UTF-8 text of a JSON array of strings, without spaces:
 *
 *   ["ecluse-ledger-head-3", TENANT, DAY, SEQUENCE, NUMBER, HASH, ROWS, CPU_NS, MEMORY_BYTE_MS, REQUESTS, INGRESS_BYTES, EGRESS_BYTES, HELD_MS, SNAPSHOT_BYTE_MS,
 *    DISK_BYTE_MS, STREAM_MS, SIGNED_MS, KEY]
 *
 * SEQUENCE says which of the chain's heads it is, from 1, so that one that is gone is missed. NUMBER and HASH are those of the chain's last row, the sums are
 * those of all rows up to it, KEY is the key's id: SHA-256 of its public half (DER, SPKI). Heads from before disks and streams were counted
 * (`ecluse-ledger-head-2`) have no DISK_BYTE_MS and STREAM_MS, those from before they were numbered (`ecluse-ledger-head-1`) no SEQUENCE either.
 */
import { createHash, createPublicKey, sign, verify } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { FIRST_QUANTITY_NAMES, hasLaterQuantities, QUANTITY_NAMES } from './ledger-chain.ts';
import type { ChainPoint } from './ledger-chain.ts';

/** The format of heads that are signed today. */
export const HEAD_FORMAT = 3;
const COUNTED_FORMAT = 2;
const FIRST_FORMAT = 1;
const NAME_OF_FORMATS = 'ecluse-ledger-head-';
const END_FORMAT = 'ecluse-ledger-export-end-1';
/** The day of a head that was made for an export, between the ends of two days. */
export const OPEN_DAY = 'open';

export interface LedgerHead extends ChainPoint {
  /** What its signature is over. */
  readonly format: number;
  readonly tenant: string;
  /** `2026-11-30` by UTC, or `OPEN_DAY`. */
  readonly day: string;
  /** Which of the chain's heads it is, from 1; 0: it is from before they were counted. One of `OPEN_DAY` would be the next. */
  readonly sequence: number;
  readonly signedMs: number;
  /** The id of the key. */
  readonly key: string;
  /** Base64. */
  readonly signature: string;
}

/** The key that a node signs with. */
export interface LedgerKey {
  readonly id: string;
  readonly privateKey: KeyObject;
  /** PEM. */
  readonly publicKey: string;
}

export function ledgerKeyOf(privateKey: KeyObject): LedgerKey {
  const publicKey = createPublicKey(privateKey);
  return { id: keyIdOf(publicKey), privateKey, publicKey: publicKey.export({ type: 'spki', format: 'pem' }) };
}

export function keyIdOf(publicKey: KeyObject): string {
  return createHash('sha256')
    .update(publicKey.export({ type: 'spki', format: 'der' }))
    .digest('hex');
}

function headBytes(head: Omit<LedgerHead, 'signature'>): Buffer {
  const { format, tenant, day, sequence, number, hash, totals, signedMs, key } = head;
  const names = format < HEAD_FORMAT ? FIRST_QUANTITY_NAMES : QUANTITY_NAMES;
  const named = [`${NAME_OF_FORMATS}${String(format)}`, tenant, day, ...(format === FIRST_FORMAT ? [] : [sequence])];
  return textBytes([...named, number, hash, totals.rows, ...names.map((name) => totals[name]), signedMs, key]);
}

function textBytes(fields: readonly (string | number | bigint)[]): Buffer {
  return Buffer.from(JSON.stringify(fields.map(String)), 'utf8');
}

export function signHead(head: Omit<LedgerHead, 'format' | 'signature' | 'key'>, { id, privateKey }: LedgerKey): LedgerHead {
  const named = { ...head, format: HEAD_FORMAT, key: id };
  return { ...named, signature: sign(undefined, headBytes(named), privateKey).toString('base64') };
}

/** Whether the key signed all that it says. */
export function isSigned(head: LedgerHead, publicKey: KeyObject): boolean {
  return isWhole(head) && verify(undefined, headBytes(head), publicKey, Buffer.from(head.signature, 'base64'));
}

/** Whether its format covers all that it says. */
function isWhole({ format, sequence, totals }: LedgerHead): boolean {
  switch (format) {
    case FIRST_FORMAT:
      return sequence === 0 && !hasLaterQuantities(totals);
    case COUNTED_FORMAT:
      return !hasLaterQuantities(totals);
    default:
      return format === HEAD_FORMAT;
  }
}

/** The last line of an export: what was in it, and the digest of all lines before. */
export interface ExportEnd {
  readonly tenant: string;
  readonly rows: number;
  readonly heads: number;
  /** SHA-256 of the bytes of all lines before, with their line ends. */
  readonly sha256: string;
  readonly key: string;
  readonly signature: string;
}

/** Signs `["ecluse-ledger-export-end-1", TENANT, ROWS, HEADS, SHA256, KEY]`. */
export function signEnd(end: Omit<ExportEnd, 'signature' | 'key'>, { id, privateKey }: LedgerKey): ExportEnd {
  const { tenant, rows, heads, sha256 } = end;
  const bytes = textBytes([END_FORMAT, tenant, rows, heads, sha256, id]);
  return { tenant, rows, heads, sha256, key: id, signature: sign(undefined, bytes, privateKey).toString('base64') };
}
