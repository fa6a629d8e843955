/** Some nodes of one installation as ACME sees them: engines over one store, whose time is simulated, and whose hosts are where a responder is. */
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '#clock';
import { createLog } from '#log';
import { openSqlite } from '#state/sqlite.ts';
import { AcmeEngine } from '#tls/acme/engine.ts';
import type { AcmeCaSettings } from '#tls/acme/ca-access.ts';
import { openTransport } from '#tls/acme/ca-transport.ts';
import type { Proof, ProofPort } from '#tls/acme/issuance.ts';
import { LIMIT_PRESETS } from '#tls/acme/rate-ledger.ts';
import type { CheckedCertificate } from '#tls/certificate-check.ts';
import { KeySeal } from '#tls/key-seal.ts';
import { acmeStoreOf } from '../../src/node-acme.ts';
import type { AcmeCa } from './acme-ca/acme-ca.ts';
import type { AcmeResponder } from './acme-responder.ts';

export type FleetCa = AcmeCaSettings & { readonly serverCaPem: string };

export interface AcmeFleetOptions {
  readonly clock: Clock;
  readonly nodes: number;
  readonly responder: AcmeResponder;
  readonly cas: readonly FleetCa[];
  readonly ordersMax: number;
  /** The hosts that are to have a certificate, now. */
  readonly hosts: () => readonly string[];
  /** So many times as long as they would, nodes that have nothing to do wait until they look around again. Months of minutes take their time. */
  readonly idleFactor: number;
}

/** Engines look around so often; waits that are shorter are those of orders. */
const ROUND_MS = 60_000;

export interface AcmeFleet extends AsyncDisposable {
  /** What end users get, on every node. */
  readonly served: ReadonlyMap<string, CheckedCertificate>;
  /** Hosts whose certificate ended before another one took its place. */
  readonly gaps: readonly string[];
  readonly engines: () => readonly AcmeEngine[];
  /** Ends a node, and begins it again. */
  readonly restart: (index: number) => Promise<void>;
}

interface FleetNode {
  readonly engine: AcmeEngine;
  readonly close: () => Promise<void>;
}

export async function startAcmeFleet(options: AcmeFleetOptions): Promise<AcmeFleet> {
  const { cas, responder } = options;
  const clock: Clock = {
    nowMs: () => options.clock.nowMs(),
    monotonicMs: () => options.clock.monotonicMs(),
    sleep: async (ms, signal) => {
      await options.clock.sleep(ms < ROUND_MS ? ms : ms * options.idleFactor, signal);
    },
  };
  // In memory: each of some thousand writes would wait for the disk.
  const folder = await mkdtemp('/dev/shm/ecl-acme-');
  const file = join(folder, 'state.db');
  const served = new Map<string, CheckedCertificate>();
  const gaps: string[] = [];
  const seal = await KeySeal.open(join(folder, 'tls'), []);
  const begin = (index: number): FleetNode => {
    const sql = openSqlite(file);
    const closing: (() => void)[] = [];
    const engine = new AcmeEngine(
      {
        log: createLog('error'),
        clock,
        seal,
        store: acmeStoreOf(sql),
        owner: `node-${String(index)}`,
        hosts: options.hosts,
        isServed: (host) => served.has(host),
        proofs: proofsAt(responder),
        install: async (host, certificate) => {
          const before = served.get(host);
          if (before !== undefined && before.notAfterMs <= clock.nowMs()) gaps.push(host);
          served.set(host, certificate);
        },
        transportTo: ({ directory }) => {
          const ca = cas.find((one) => one.directory === directory);
          const { send, close } = openTransport(directory, ca?.serverCaPem);
          closing.push(close);
          return send;
        },
      },
      { cas, ordersMax: options.ordersMax },
    );
    engine.start();
    const close = async (): Promise<void> => {
      const ended = engine[Symbol.asyncDispose]();
      for (const end of closing) end();
      await ended;
      await sql[Symbol.asyncDispose]();
    };
    return { engine, close };
  };
  const nodes = Array.from({ length: options.nodes }, (_, index) => begin(index));
  return {
    served,
    gaps,
    engines: () => nodes.map(({ engine }) => engine),
    restart: async (index) => {
      await nodes[index]?.close();
      nodes[index] = begin(index);
    },
    [Symbol.asyncDispose]: async () => {
      await Promise.all(nodes.map(async ({ close }) => await close()));
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** With Let's Encrypt's limits, over HTTP-01 and TLS-ALPN-01. */
export function caSettings({ directoryUrl, serverCaPem }: AcmeCa): FleetCa {
  return {
    directory: directoryUrl,
    serverCaPem,
    email: undefined,
    eab: undefined,
    limits: LIMIT_PRESETS['lets-encrypt'],
    profile: undefined,
    challenges: ['http-01', 'tls-alpn-01'],
  };
}

function proofsAt({ http, tls, txt }: AcmeResponder): ProofPort {
  const recordOf = ({ host }: Proof): string => `_acme-challenge.${host}`;
  return {
    show: async (proof) => {
      const { kind, token, keyAuthorization, host } = proof;
      if (kind === 'http-01') http.set(token, keyAuthorization);
      if (kind === 'tls-alpn-01') await tls(host, keyAuthorization);
      if (kind === 'dns-01') txt.set(recordOf(proof), [createHash('sha256').update(keyAuthorization).digest('base64url')]);
    },
    hide: async (proof) => {
      http.delete(proof.token);
      if (proof.kind === 'dns-01') txt.delete(recordOf(proof));
    },
  };
}
