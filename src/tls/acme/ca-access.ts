/** One CA as the engine uses it: a client with our account, whose key is made once and kept sealed, however many runs and nodes there are. */
import type { Clock } from '#clock';
import { KeyedLock } from '#lifecycle';
import { keyPemOf, newKeys } from '#tls/issue.ts';
import type { KeySeal } from '#tls/key-seal.ts';
import { acmeFailure, failureFactsOf } from './acme-failure.ts';
import type { AcmeStore, StoredAccount } from './acme-store.ts';
import { CaClient } from './ca-client.ts';
import type { CaSettings } from './ca-client.ts';
import type { CaTransport } from './ca-transport.ts';
import type { ChallengeKind } from './issuance.ts';
import type { CaLimits } from './rate-ledger.ts';
import type { Spending } from './spending.ts';

export interface AcmeCaSettings extends CaSettings {
  readonly limits: CaLimits;
  readonly profile: string | undefined;
  /** Those that may be used, the one to be used first. */
  readonly challenges: readonly ChallengeKind[];
}

export interface CaAccessDeps {
  readonly clock: Clock;
  readonly store: AcmeStore;
  readonly seal: Pick<KeySeal, 'seal' | 'unseal' | 'id'>;
  readonly spending: Spending;
  /** What CAs count accounts by: an address, of which a node has one towards them. */
  readonly owner: string;
}

export class CaAccess {
  readonly settings: AcmeCaSettings;
  readonly #deps: CaAccessDeps;
  readonly #send: CaTransport;
  readonly #turns = new KeyedLock();
  #client: CaClient | undefined;
  #account: StoredAccount | undefined;

  constructor(deps: CaAccessDeps, settings: AcmeCaSettings, send: CaTransport) {
    this.#deps = deps;
    this.settings = settings;
    this.#send = send;
  }

  get ca(): string {
    return this.settings.directory;
  }

  async client(): Promise<CaClient> {
    return await this.#turns.run('client', async () => {
      if (this.#client !== undefined) return this.#client;
      const account = await this.#readOrMakeKey();
      const { clock, seal } = this.#deps;
      const keyPem = seal.unseal(account.sealedKey, belongsTo(this.ca));
      this.#account = account;
      this.#client = await CaClient.open({ clock, send: this.#send }, this.settings, keyPem);
      return this.#client;
    });
  }

  /** The URL of the account as it is known; undefined: none is, yet. */
  get knownAccount(): string | undefined {
    return this.#account?.url === '' ? undefined : this.#account?.url;
  }

  /** The URL of the account, which is made at the CA where there is none. */
  async account(): Promise<string> {
    const client = await this.client();
    return await this.#turns.run('account', async () => {
      if (this.#account !== undefined && this.#account.url !== '') return this.#account.url;
      const { store, spending, clock, owner } = this.#deps;
      const stored = await store.account(this.ca);
      if (stored !== undefined && stored.url !== '') {
        this.#account = stored;
        return stored.url;
      }
      const intent = { kind: 'account', ca: this.ca, address: owner } as const;
      const verdict = await spending.spend(intent, `account ${owner}`, clock.nowMs());
      if (verdict.kind === 'wait')
        throw acmeFailure('rate-limit', `${this.ca} takes no more accounts from here for a while`, {
          retryAfterMs: verdict.untilMs - clock.nowMs(),
        });
      const url = await client.openAccount();
      await store.setAccountUrl(this.ca, url, clock.nowMs());
      if (stored !== undefined) this.#account = { ...stored, url };
      return url;
    });
  }

  /** Where the CA does not know the account any more, the next run makes it anew, with the same key. */
  async accountLost(error: unknown): Promise<void> {
    if (failureFactsOf(error).problem !== 'accountDoesNotExist') return;
    await this.#deps.store.setAccountUrl(this.ca, '', this.#deps.clock.nowMs());
    if (this.#account !== undefined) this.#account = { ...this.#account, url: '' };
  }

  /** Whoever is first makes it; the others use that. */
  async #readOrMakeKey(): Promise<StoredAccount> {
    const { store, seal, clock } = this.#deps;
    const known = await store.account(this.ca);
    if (known !== undefined) return known;
    const { privateKey } = await newKeys();
    const made = { ca: this.ca, url: '', sealedKey: seal.seal(keyPemOf(privateKey), belongsTo(this.ca)), sealedBy: seal.id };
    if (await store.createAccount(made, clock.nowMs())) return made;
    const other = await store.account(this.ca);
    if (other === undefined) throw new Error('the key of the ACME account could not be written down');
    return other;
  }
}

function belongsTo(ca: string): string {
  return `ecluse acme account ${ca}`;
}
