/** ACME of a node: the engine with its store, the hosts of the edge's routes, and the workers that show proofs and serve what comes. */
import { hostname } from 'node:os';
import { readFile } from 'node:fs/promises';
import type { Clock } from '#clock';
import { EcluseError, reasonOf } from '#errors';
import type { Log } from '#log';
import type { WorkerPool } from '#proxy/worker-pool.ts';
import {
  addAcmeHosts,
  addAcmeSpent,
  createAcmeAccount,
  findAcmeHost,
  forgetAcmeSpent,
  listAcmeCas,
  listAcmeHosts,
  readAcmeAccount,
  readAcmeSpent,
  readAcmeSpentHead,
  releaseAcmeLease,
  renewAcmeLease,
  setAcmeAccountUrl,
  setAcmeCa,
  setAcmeHostState,
  setAcmeOrder,
  takeAcmeLease,
} from '#state/acme.ts';
import type { Sql } from '#state/sql.ts';
import type { AcmeCaFileSettings, AcmeFileSettings } from '#tls/acme/acme-keys.ts';
import type { AcmeStore } from '#tls/acme/acme-store.ts';
import type { AcmeCaSettings } from '#tls/acme/ca-access.ts';
import { openTransport } from '#tls/acme/ca-transport.ts';
import { dnsByHook } from '#tls/acme/dns-hook.ts';
import { dnsByUpdate } from '#tls/acme/dns-update.ts';
import type { ProofPort } from '#tls/acme/issuance.ts';
import { AcmeEngine } from '#tls/acme/engine.ts';
import type { AcmeCounts } from '#tls/acme/engine.ts';
import { OnDemand, askByHttp } from '#tls/acme/on-demand.ts';
import { ProofBoard } from '#tls/acme/proof-board.ts';
import { LIMIT_PRESETS } from '#tls/acme/rate-ledger.ts';
import { isPublicName } from '#tls/acme/registered-domain.ts';
import type { KeySeal } from '#tls/key-seal.ts';
import { readPrivateFile } from '#tls/private-file.ts';
import type { RenewalView } from '#admin/certificate-control.ts';
import type { EdgeCertificates, Renewals } from './node-certificates.ts';
import type { Edge } from './node-edge.ts';

export interface NodeAcmeDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly seal: KeySeal;
  readonly edge: Edge;
  readonly certificates: EdgeCertificates;
  readonly pool: Pick<WorkerPool, 'show'>;
}

interface OpenCa {
  readonly settings: AcmeCaSettings;
  readonly trustedRootPem: string | undefined;
}

export class NodeAcme implements AsyncDisposable, Renewals {
  readonly #deps: NodeAcmeDeps;
  readonly #settings: AcmeFileSettings;
  readonly #engine: AcmeEngine;
  readonly #close: (() => void)[] = [];
  /** The hosts, and what they were found with: the versions of config and sources, and the number of calls. */
  #hosts: { readonly seen: string; readonly list: readonly string[] } | undefined;

  #routed: (Pick<Edge, 'settings' | 'containerRoutes'> & { readonly list: readonly string[] }) | undefined;

  private constructor(deps: NodeAcmeDeps, settings: AcmeFileSettings, cas: readonly OpenCa[]) {
    const { log, clock, sql, seal, edge, certificates, pool } = deps;
    this.#deps = deps;
    this.#settings = settings;
    const roots = new Map(cas.map((ca) => [ca.settings.directory, ca.trustedRootPem]));
    this.#engine = new AcmeEngine(
      {
        log,
        clock,
        seal,
        store: acmeStoreOf(sql),
        owner: hostname(),
        hosts: () => this.#wanted(),
        isServed: (host) => certificates.isAcme(host) && edge.certificates.get(host) !== undefined,
        proofs: new ProofBoard({
          log,
          clock,
          show: async (proofs) => {
            await pool.show(proofs);
          },
          dns: dnsOf({ log, clock }, settings.dns),
        }),
        install: async (host, certificate) => {
          await certificates.install(host, certificate);
        },
        transportTo: ({ directory }) => {
          const { send, close } = openTransport(directory, roots.get(directory));
          this.#close.push(close);
          return send;
        },
      },
      { cas: cas.map(({ settings: ca }) => ca), ordersMax: settings.ordersMax },
    );
  }

  /** The same, where the configuration has any. */
  static async openWhere(settings: AcmeFileSettings | undefined, deps: NodeAcmeDeps): Promise<NodeAcme | undefined> {
    return settings === undefined ? undefined : await NodeAcme.open(deps, settings);
  }

  /** Reads what the configuration names, and begins. Errors: ECLUSE_ACME_CONFIG. */
  static async open(deps: NodeAcmeDeps, settings: AcmeFileSettings): Promise<NodeAcme> {
    const cas = await Promise.all(settings.cas.map(openCa));
    await deps.certificates.loadSources();
    const acme = new NodeAcme(deps, settings, cas);
    deps.edge.follow(() => {
      acme.#engine.nudge();
    });
    deps.certificates.attach(acme);
    acme.#listen();
    acme.#engine.start();
    return acme;
  }

  /** Clients call hosts that no certificate is for. */
  #listen(): void {
    const { onDemand } = this.#settings;
    if (onDemand === undefined) return;
    const { log, clock, edge } = this.#deps;
    const calls = new OnDemand({
      log,
      clock,
      isOpen: (name) => this.#isRouted(name) && !this.#hasOwn(name),
      ask: onDemand.ask === undefined ? undefined : askByHttp(onDemand.ask),
      want: async (name) => {
        await this.#engine.want(name);
      },
    });
    edge.listen((names) => {
      void calls.called(names);
    });
  }

  counts(): AcmeCounts {
    return this.#engine.counts();
  }

  of(host: string): RenewalView {
    const { renewAtMs, lastError } = this.#engine.statusOf(host);
    return { renewAtMs, lastError: lastError?.message ?? null };
  }

  waiting(max: number): readonly { readonly host: string; readonly lastError: string | null }[] {
    const { edge } = this.#deps;
    const without = this.#wanted().filter((host) => edge.certificates.get(host) === undefined);
    return without.slice(0, max).map((host) => ({ host, lastError: this.of(host).lastError }));
  }

  async renew(host: string | null, force: boolean): Promise<number> {
    const wanted = this.#wanted();
    if (host !== null && !wanted.includes(host)) return 0;
    return await this.#engine.ask(host === null ? wanted : [host], force);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#deps.edge.follow(() => undefined);
    this.#deps.edge.listen(() => undefined);
    this.#deps.certificates.attach(undefined);
    const ended = this.#engine[Symbol.asyncDispose]();
    for (const close of this.#close) close();
    await ended;
  }

  /** Public hosts of routes, and those that were named, without what has a certificate of the operator's own. */
  #wanted(): readonly string[] {
    const { edge, certificates } = this.#deps;
    const { called } = this.#engine;
    const seen = `${String(edge.version)} ${String(certificates.sourcesVersion)} ${String(called.size)}`;
    if (this.#hosts?.seen === seen) return this.#hosts.list;
    const { hosts, dns, onDemand } = this.#settings;
    const onCall = onDemand === undefined ? [] : [...called].filter((host) => this.#isRouted(host));
    const all = new Set([...hosts, ...this.#publicRoutes(), ...onCall]);
    const list = [...all].filter((host) => !this.#hasOwn(host) && !(dns !== undefined && all.has(wildcardOf(host))));
    this.#hosts = { seen, list };
    return list;
  }

  /** Public hosts of routes. What there are routes for changes seldom, and certificates come all the time. */
  #publicRoutes(): readonly string[] {
    const { edge } = this.#deps;
    const { settings, containerRoutes } = edge;
    if (this.#routed?.settings === settings && this.#routed.containerRoutes === containerRoutes) return this.#routed.list;
    const { auto, dns, onDemand } = this.#settings;
    // Where hosts get theirs when they are called, a wildcard that cannot be proved is not asked for.
    const isAskedFor = (host: string): boolean =>
      isPublicName(host) && (onDemand === undefined || dns !== undefined || !host.startsWith('*.'));
    const routed = auto === 'off' ? [] : [...settings.hosts.entries().map(([host]) => host), ...containerRoutes.keys()];
    const list = routed.filter(isAskedFor);
    this.#routed = { settings, containerRoutes, list };
    return list;
  }

  /** Whether a route is for a host that is called. One of any host is so only where somebody is asked. */
  #isRouted(host: string): boolean {
    const { edge } = this.#deps;
    const hasRoute = (of: string): boolean => edge.settings.hosts.get(of) !== undefined || edge.containerRoutes.has(of);
    return hasRoute(host) || hasRoute(wildcardOf(host)) || (this.#settings.onDemand?.ask !== undefined && hasRoute('*'));
  }

  #hasOwn(host: string): boolean {
    const { edge, certificates } = this.#deps;
    const holders = [...edge.certificates.holdersOf(host), ...edge.certificates.holdersOf(wildcardOf(host))];
    return holders.some(({ name }) => !certificates.isAcme(name));
  }
}

function dnsOf(deps: Pick<NodeAcmeDeps, 'log' | 'clock'>, settings: AcmeFileSettings['dns']): ProofPort | undefined {
  if (settings === undefined) return undefined;
  return settings.kind === 'hook' ? dnsByHook(deps, settings) : dnsByUpdate(deps, settings);
}

/** The wildcard that covers a host. */
function wildcardOf(host: string): string {
  return host.startsWith('*.') ? '' : `*${host.slice(host.indexOf('.'))}`;
}

async function openCa(written: AcmeCaFileSettings): Promise<OpenCa> {
  const { directory, email, eab, profile, limits, trustedRootFile, challenges } = written;
  const hmacKey = eab === undefined ? undefined : await readHmacKey(eab.hmacKeyFile);
  return {
    settings: {
      directory,
      email,
      eab: eab === undefined || hmacKey === undefined ? undefined : { keyId: eab.keyId, hmacKey },
      profile,
      limits: LIMIT_PRESETS[limits],
      challenges,
    },
    trustedRootPem: trustedRootFile === undefined ? undefined : await readRoot(trustedRootFile),
  };
}

async function readHmacKey(file: string): Promise<string> {
  const text = (await readPrivateFile(file, 'the HMAC key of acme.eab', unusable))?.trim();
  if (text === undefined) throw unusable(`there is no ${file}`, 'write the HMAC key of the CA into it, with mode 0600');
  if (/^[A-Za-z0-9_-]{16,}={0,2}$/.test(text)) return text;
  throw unusable(`${file} has no HMAC key in base64url`, 'write into it what the CA gave');
}

async function readRoot(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    throw unusable(`the root ${file} cannot be read: ${reasonOf(error)}`, 'see acme.trustedRoot', error);
  }
}

function unusable(message: string, mend: string, cause?: unknown): EcluseError {
  return new EcluseError({ code: 'ECLUSE_ACME_CONFIG', source: 'config', message, mend, cause });
}

/** The engine's store over the node's. */
export function acmeStoreOf(sql: Sql): AcmeStore {
  return {
    account: async (ca) => await readAcmeAccount(sql, ca),
    createAccount: async (account, nowMs) => await createAcmeAccount(sql, account, nowMs),
    setAccountUrl: async (ca, url, nowMs) => {
      await setAcmeAccountUrl(sql, ca, url, nowMs);
    },
    cas: async () => await listAcmeCas(sql),
    setCa: async (ca, failures) => {
      await setAcmeCa(sql, ca, failures);
    },
    hosts: async () => await listAcmeHosts(sql),
    host: async (host) => await findAcmeHost(sql, host),
    addHosts: async (hosts, state, nowMs) => {
      await addAcmeHosts(sql, hosts, state, nowMs);
    },
    takeLease: async (lease, nowMs) => await takeAcmeLease(sql, lease, nowMs),
    renewLease: async (lease) => await renewAcmeLease(sql, lease),
    releaseLease: async (lease, state, change) => {
      await releaseAcmeLease(sql, lease, state, change);
    },
    setHostState: async (host, change) => await setAcmeHostState(sql, host, change),
    setOrder: async (lease, order) => await setAcmeOrder(sql, lease, order),
    spentAfter: async (seq) => await readAcmeSpent(sql, seq),
    spentHead: async () => await readAcmeSpentHead(sql),
    addSpent: async (rows, head) => await addAcmeSpent(sql, rows, head),
    forgetSpent: async (beforeMs) => {
      await forgetAcmeSpent(sql, beforeMs);
    },
  };
}
