/** Keeps the packet rules of one host in step with a policy that someone else knows. */
import type { Log } from '#log';
import { reasonOf } from '#errors';
import type { HostNetwork } from './host-addresses.ts';
import { applyPolicy, runInNamespace } from './host-network.ts';
import { changeRules } from './packet-rules.ts';
import type { HostPolicy } from './packet-rules.ts';

/**
 * Asks for the policy and applies what is new in it. A change of members is a few commands for nft; all rules are written only where the host's
 * tenants change or the short way fails.
 */
export class PacketFilter {
  readonly #log: Log;
  readonly #network: HostNetwork;
  readonly #readPolicy: () => Promise<HostPolicy>;
  /** What is in the kernel, as far as we know. */
  #applied: HostPolicy | undefined;
  #running: Promise<void> | undefined;
  #waiting: Promise<void> | undefined;

  constructor(log: Log, network: HostNetwork, readPolicy: () => Promise<HostPolicy>) {
    this.#log = log;
    this.#network = network;
    this.#readPolicy = readPolicy;
  }

  /**
   * Resolves when the kernel has a policy that was read after this call. Calls that come while one is under way share the next one, so a
   * hundred starts at a time cost a few runs of nft.
   */
  async refresh(): Promise<void> {
    if (this.#running === undefined) {
      this.#running = this.#round();
      await this.#running;
      return;
    }
    this.#waiting ??= this.#after(this.#running);
    await this.#waiting;
  }

  async #after(running: Promise<void>): Promise<void> {
    await running.catch(() => undefined); // Its own callers hear of it.
    this.#running = this.#waiting;
    this.#waiting = undefined;
    await this.#round();
  }

  async #round(): Promise<void> {
    try {
      await this.#apply(await this.#readPolicy());
    } finally {
      if (this.#waiting === undefined) this.#running = undefined;
    }
  }

  async #apply(policy: HostPolicy): Promise<void> {
    const before = this.#applied;
    const change = before === undefined ? undefined : changeRules(this.#network, before, policy);
    if (change === '') return;
    if (change !== undefined && (await this.#tryChange(change))) {
      this.#applied = policy;
      return;
    }
    this.#applied = undefined;
    await applyPolicy(this.#network, policy);
    this.#applied = policy;
  }

  async #tryChange(change: string): Promise<boolean> {
    try {
      await runInNamespace(this.#network, 'nft', ['-f', '-'], change);
      return true;
    } catch (error) {
      this.#log.warn(
        { host: this.#network.index, reason: reasonOf(error) },
        'packet rules were not as they were left; all are written anew',
      );
      return false;
    }
  }
}
