/** What this CA knows: accounts, orders, authorizations, challenges and certificates (RFC 8555 §7.1). */
import type { KeyObject } from 'node:crypto';
import type { ProblemDocument } from './problem.ts';
import type { Renewal } from './limits.ts';

export interface Account {
  readonly id: string;
  /** Changed by a roll-over. */
  key: KeyObject;
  thumbprint: string;
  status: 'valid' | 'deactivated';
  contact: readonly string[];
  readonly externalId: string | undefined;
}

export type ChallengeType = 'http-01' | 'tls-alpn-01' | 'dns-01';

export interface Challenge {
  readonly id: string;
  readonly type: ChallengeType;
  readonly token: string;
  readonly authorization: Authorization;
  status: 'pending' | 'processing' | 'valid' | 'invalid';
  validatedMs: number | undefined;
  error: ProblemDocument | undefined;
}

export interface Authorization {
  readonly id: string;
  readonly account: Account;
  /** Without the star. */
  readonly name: string;
  readonly isWildcard: boolean;
  readonly challenges: readonly Challenge[];
  status: 'pending' | 'valid' | 'invalid' | 'deactivated';
  /** Of a pending one; a valid one can be used again until then. */
  expiresMs: number;
}

export interface Order {
  readonly id: string;
  readonly account: Account;
  readonly names: readonly string[];
  readonly profile: string;
  readonly authorizations: readonly Authorization[];
  readonly replaces: Certificate | undefined;
  readonly renewal: Renewal;
  readonly atMs: number;
  readonly expiresMs: number;
  error: ProblemDocument | undefined;
  /** Its certificate request is looked at. */
  isFinalizing: boolean;
  certificate: Certificate | undefined;
  /** Its certificate can be had from then on. */
  readyMs: number;
}

export interface Certificate {
  readonly id: string;
  /** As RFC 9773 names it. */
  readonly renewalId: string;
  readonly account: Account;
  readonly names: readonly string[];
  readonly profile: string;
  readonly replaces: Certificate | undefined;
  readonly atMs: number;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly serial: string;
  /** Leaf and intermediate. */
  readonly chainPem: string;
  revokedMs: number | undefined;
}

export type OrderStatus = 'pending' | 'ready' | 'processing' | 'valid' | 'invalid';

export function statusOf(order: Order, nowMs: number): OrderStatus {
  if (order.error !== undefined) return 'invalid';
  if (order.certificate !== undefined) return nowMs >= order.readyMs ? 'valid' : 'processing';
  if (order.isFinalizing) return 'processing';
  if (nowMs >= order.expiresMs) return 'invalid';
  const states = order.authorizations.map((authorization) => authorizationStatus(authorization, nowMs));
  if (states.every((status) => status === 'valid')) return 'ready';
  return states.every((status) => status === 'valid' || status === 'pending') ? 'pending' : 'invalid';
}

export function authorizationStatus({ status, expiresMs }: Authorization, nowMs: number): Authorization['status'] | 'expired' {
  return (status === 'pending' || status === 'valid') && nowMs >= expiresMs ? 'expired' : status;
}

export class Resources {
  readonly accounts = new Map<string, Account>();
  readonly orders = new Map<string, Order>();
  readonly authorizations = new Map<string, Authorization>();
  readonly challenges = new Map<string, Challenge>();
  readonly certificates = new Map<string, Certificate>();
  readonly byRenewalId = new Map<string, Certificate>();
  /** The newest authorization of an account for a name. */
  readonly authorizationOf = new Map<string, Authorization>();
  /** All names that certificates were issued for, as keys of their sets. */
  readonly issuedNames = new Set<string>();
  /** By the key of their names, oldest first. */
  readonly ordersOf = new Map<string, Order[]>();
  /** By what it replaces. */
  readonly replacement = new Map<Certificate, Order>();
  #last = 0;

  newId(): string {
    this.#last += 1;
    return String(this.#last);
  }
}
