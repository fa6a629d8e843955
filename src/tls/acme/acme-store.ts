/** What ACME needs of the store; its contract is that of `state/acme.ts`, which this folder does not know. */

export interface StoredAccount {
  readonly ca: string;
  /** Empty: it has to be found or made at the CA. */
  readonly url: string;
  readonly sealedKey: string;
  readonly sealedBy: string;
}

export interface StoredHost {
  readonly host: string;
  readonly wantedMs: number;
  readonly state: string;
  readonly orderCa: string;
  readonly orderUrl: string;
  readonly orderKey: string;
  readonly leaseOwner: string;
  readonly leaseUntilMs: number;
}

export interface StoredSpent {
  readonly seq: number;
  readonly id: string;
  readonly ca: string;
  readonly limit: string;
  readonly subject: string;
  readonly atMs: number;
}

export interface StoredFailures {
  readonly count: number;
  readonly lastMs: number;
  readonly untilMs: number;
}

export interface LeaseTaking {
  readonly host: string;
  readonly owner: string;
  readonly untilMs: number;
}

export interface StoreChange {
  readonly kind: string;
  readonly data: Readonly<Record<string, unknown>>;
  readonly atMs: number;
}

export interface AcmeStore {
  account(ca: string): Promise<StoredAccount | undefined>;
  /** False: there is one already, which stays. */
  createAccount(account: StoredAccount, nowMs: number): Promise<boolean>;
  setAccountUrl(ca: string, url: string, nowMs: number): Promise<void>;
  cas(): Promise<readonly (StoredFailures & { readonly ca: string })[]>;
  setCa(ca: string, failures: StoredFailures | undefined): Promise<void>;
  hosts(): Promise<readonly StoredHost[]>;
  host(host: string): Promise<StoredHost | undefined>;
  /** Who is known stays as it is. */
  addHosts(hosts: readonly string[], state: string, nowMs: number): Promise<void>;
  /** False: another one has it. */
  takeLease(lease: LeaseTaking, nowMs: number): Promise<boolean>;
  /** False: it was lost. */
  renewLease(lease: LeaseTaking): Promise<boolean>;
  /** With what came of it. Who has lost the lease changes nothing. */
  releaseLease(lease: Omit<LeaseTaking, 'untilMs'>, state: string, change: StoreChange | undefined): Promise<void>;
  /** False: it is not as it was seen. */
  setHostState(host: string, change: { readonly before: string; readonly after: string }): Promise<boolean>;
  /** False: the lease was lost. */
  setOrder(
    lease: Omit<LeaseTaking, 'untilMs'>,
    order: { readonly ca: string; readonly url: string; readonly sealedKey: string },
  ): Promise<boolean>;
  spentAfter(seq: number): Promise<readonly StoredSpent[]>;
  spentHead(): Promise<string>;
  /** False: somebody else has written since `head` was read. */
  addSpent(rows: readonly Omit<StoredSpent, 'seq'>[], head: string): Promise<boolean>;
  forgetSpent(beforeMs: number): Promise<void>;
}
