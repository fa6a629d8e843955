/** Certificates that people add for the edge: from what they hand in to the store, sealed, and to the workers. */
import type { Clock } from '#clock';
import { EcluseError } from '#errors';
import type { Log } from '#log';
import type {
  CertificateAdded,
  CertificateControl,
  CertificateExplanation,
  CertificateList,
  CertificateUpload,
  CertificateView,
} from '#admin/certificate-control.ts';
import type { RenewalView } from '#admin/certificate-control.ts';
import type { LintFinding } from '#routing/operator/lint.ts';
import type { RouteTable } from '#routing/route-table.ts';
import {
  findCertificate,
  listCertificateNames,
  listCertificates,
  listEndingCertificates,
  putCertificate,
  removeCertificate,
} from '#state/certificates.ts';
import type { CertificateRow, CertificateSource } from '#state/certificates.ts';
import type { Sql } from '#state/sql.ts';
import { safetyPointMs } from '#tls/acme/renewal-plan.ts';
import { DEFAULT_CERTIFICATE } from '#tls/certificate.ts';
import { checkCertificate } from '#tls/certificate-check.ts';
import type { CheckedCertificate } from '#tls/certificate-check.ts';
import type { UnknownNames } from '#tls/config.ts';
import type { KeySeal } from '#tls/key-seal.ts';
import { belongsTo } from './node-certificate-store.ts';
import type { Edge } from './node-edge.ts';

export interface EdgeCertificatesDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly seal: KeySeal;
  readonly edge: Edge;
  readonly unknownNames: UnknownNames;
}

/** Who asks CAs for the next ones. */
export interface Renewals {
  /** Undefined: nobody asks for this one. */
  of(host: string): RenewalView | undefined;
  /** Hosts that have none yet, at most so many. */
  waiting(max: number): readonly { readonly host: string; readonly lastError: string | null }[];
  /** Null: all. For how many hosts. */
  renew(host: string | null, force: boolean): Promise<number>;
}

/** Of a hundred thousand hosts that wait, the first say why. */
const WAITING_SHOWN_MAX = 100;
/** At 1.2 KB each in every worker (docs/decisions/024-certificates.md). */
const CERTIFICATES_MAX = 100_000;
/** More are one mistake, seen many times. */
const WARNINGS_MAX = 10;
const ENDING_MAX = 100;
/** Time to do something about it, and less than any CA's renewal period. */
const WARN_BEFORE_MS = 14 * 86_400_000;
const DAY_MS = 86_400_000;

export class EdgeCertificates implements CertificateControl {
  readonly #deps: EdgeCertificatesDeps;
  /** Names of those that came by ACME. */
  readonly #acme = new Set<string>();
  #sourcesVersion = 0;
  #renewals: Renewals | undefined;

  constructor(deps: EdgeCertificatesDeps) {
    this.#deps = deps;
  }

  async list(): Promise<CertificateList> {
    const certificates = (await listCertificates(this.#deps.sql)).map((row) => this.#viewOf(row));
    return { certificates, waiting: this.#renewals?.waiting(WAITING_SHOWN_MAX) ?? [] };
  }

  /** From now on `renewals` are who asks CAs; undefined: nobody does. */
  attach(renewals: Renewals | undefined): void {
    this.#renewals = renewals;
  }

  async renew({ host, force }: { readonly host: string | null; readonly force: boolean }): Promise<{ readonly hosts: number }> {
    const renewals = this.#renewals;
    if (renewals === undefined) throw acmeOff();
    const hosts = await renewals.renew(host, force);
    if (hosts === 0 && host !== null) throw notOfCa(host);
    return { hosts };
  }

  async add(upload: CertificateUpload): Promise<CertificateAdded> {
    const checked = checkCertificate(upload, this.#deps.clock.nowMs());
    const row = await this.#put(upload.name, 'uploaded', checked);
    this.#note(upload.name, 'uploaded');
    return { certificate: this.#viewOf(row), notes: checked.notes };
  }

  /** Serves what came by ACME for a host, under the host's own name. One that was uploaded under that name stays. */
  async install(host: string, checked: CheckedCertificate): Promise<void> {
    if (!this.#acme.has(host) && (await findCertificate(this.#deps.sql, host)) !== undefined) throw taken(host);
    await this.#put(host, 'acme', checked);
    this.#note(host, 'acme');
  }

  /** Reads which of those there are came by ACME. */
  async loadSources(): Promise<void> {
    for (const name of await listCertificateNames(this.#deps.sql, 'acme')) this.#acme.add(name);
  }

  /** Counts what changed of where certificates came from: a little later than they are served. */
  get sourcesVersion(): number {
    return this.#sourcesVersion;
  }

  #note(name: string, source: CertificateSource | undefined): void {
    if (source === 'acme') this.#acme.add(name);
    else this.#acme.delete(name);
    this.#sourcesVersion += 1;
  }

  /** Whether what has the name came by ACME. */
  isAcme(name: string): boolean {
    return this.#acme.has(name);
  }

  async #put(name: string, source: CertificateSource, checked: CheckedCertificate): Promise<CertificateRow> {
    const { sql, seal, edge, clock } = this.#deps;
    const { leafPem, chainPem, keyPem, notes: _, ...facts } = checked;
    let row: CertificateRow = { ...facts, name, version: 0, source, addedMs: clock.nowMs() };
    await edge.changeCertificates(
      async () => {
        const before = await findCertificate(sql, name);
        if (before === undefined && edge.certificates.size > CERTIFICATES_MAX) throw tooMany();
        row = { ...row, version: (before?.version ?? 0) + 1 };
        const { hosts, notAfterMs } = row;
        return { certificates: [{ name, hosts, notAfterMs, leafPem, chain: { pem: chainPem }, keyPem }], removed: [] };
      },
      async (configVersion) => {
        const sealed = { leaf: leafPem, chain: chainPem, sealedKey: seal.seal(keyPem, belongsTo(row)), sealedBy: seal.id };
        await putCertificate(sql, { ...row, ...sealed }, configVersion);
      },
    );
    return row;
  }

  async remove(name: string): Promise<void> {
    const { sql, edge, clock } = this.#deps;
    await edge.changeCertificates(
      async () => {
        if ((await findCertificate(sql, name)) === undefined) throw unknown(name);
        const user = [...edge.settings.services.entries()].find(([, { tls }]) => tls?.clientCertificate === name);
        if (user !== undefined) throw inUse(name, user[0]);
        return { certificates: [], removed: [name] };
      },
      async (configVersion) => {
        if (!(await removeCertificate(sql, name, { configVersion, nowMs: clock.nowMs() }))) throw unknown(name);
      },
    );
    this.#note(name, undefined);
  }

  /** What the handshake for a request to `host` gets. */
  async explain(host: string, table: RouteTable): Promise<CertificateExplanation> {
    const { sql, edge, unknownNames } = this.#deps;
    const choice = edge.certificateFor(host, table);
    const nobody = { name: '', hosts: [], source: null };
    switch (choice.kind) {
      case 'added': {
        const { name, hosts, notAfterMs } = choice.certificate;
        const row = await findCertificate(sql, name);
        return { kind: 'added', name, hosts, source: row?.source ?? null, notAfterMs };
      }
      case 'issued': {
        // A host that only an older version's table has gets none today, and so has no end to be told.
        const issued = await edge.issue(choice.host);
        return { kind: 'internal', ...nobody, hosts: [choice.host], notAfterMs: issued?.notAfterMs ?? null };
      }
      case 'unknown': {
        if (unknownNames === 'alert') return { kind: 'none', ...nobody, notAfterMs: null };
        return { kind: 'default', ...nobody, notAfterMs: edge.certificates.get(DEFAULT_CERTIFICATE)?.notAfterMs ?? null };
      }
    }
  }

  /** Those that end soon. */
  async lint(): Promise<readonly LintFinding[]> {
    const nowMs = this.#deps.clock.nowMs();
    const ending = await listEndingCertificates(this.#deps.sql, nowMs + WARN_BEFORE_MS, ENDING_MAX);
    return ending.flatMap((row) => endWarnings(row, nowMs).map((message) => ({ at: `certs.${row.name}`, message })));
  }

  #viewOf(row: CertificateRow): CertificateView {
    const warnings = [...endWarnings(row, this.#deps.clock.nowMs()), ...this.#rivalWarnings(row)];
    const renewal = (row.source === 'acme' ? this.#renewals?.of(row.name) : undefined) ?? null;
    return { ...row, renewal, warnings: warnings.slice(0, WARNINGS_MAX) };
  }

  #rivalWarnings({ name, hosts }: CertificateRow): readonly string[] {
    const { certificates } = this.#deps.edge;
    if (certificates.get(name) === undefined) return ['it is not served: its key does not open; add it again'];
    return hosts.flatMap((host) => {
      const [first, ...others] = certificates.holdersOf(host);
      if (first === undefined || others.length === 0) return [];
      if (first.name !== name) return [`${host} is answered by ${first.name}, which is valid at least as long`];
      return [
        `${host} is in ${others.map((other) => other.name).join(', ')} as well; this one answers, since it is valid at least as long`,
      ];
    });
  }
}

/** What a CA renews is to have been renewed by then (tls/acme/renewal-plan.ts). */
function warnFromMs({ source, notBeforeMs, notAfterMs }: CertificateRow): number {
  return source === 'acme' ? safetyPointMs({ notBeforeMs, notAfterMs }) : notAfterMs - WARN_BEFORE_MS;
}

function endWarnings(row: CertificateRow, nowMs: number): readonly string[] {
  const { notBeforeMs, notAfterMs } = row;
  if (notAfterMs <= nowMs) return [`it expired on ${new Date(notAfterMs).toISOString()}`];
  if (notBeforeMs > nowMs) return [`it is not valid before ${new Date(notBeforeMs).toISOString()}`];
  if (nowMs <= warnFromMs(row)) return [];
  const days = Math.floor((notAfterMs - nowMs) / DAY_MS);
  return [`it expires in ${days === 0 ? 'less than a day' : `${String(days)} ${days === 1 ? 'day' : 'days'}`}`];
}

function tooMany(): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_CERTIFICATES_TOO_MANY',
    source: 'usage',
    message: `there are ${String(CERTIFICATES_MAX)} certificates already`,
    mend: 'remove some that are not used: ecluse cert ls, ecluse cert rm',
    status: 507,
  });
}

function taken(host: string): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_CERTIFICATE_NAME_TAKEN',
    source: 'usage',
    message: `the certificate for ${host} cannot be called so: one that was uploaded has that name, and is for other hosts`,
    mend: `add that one under another name, and remove it: ecluse cert rm ${host}`,
    status: 409,
  });
}

function acmeOff(): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_ACME_OFF',
    source: 'usage',
    message: 'no CA is asked for certificates here',
    mend: 'set acme.directory in ecluse.yaml, and restart the node or type: ecluse upgrade',
    status: 409,
  });
}

function notOfCa(host: string): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_ACME_HOST_UNKNOWN',
    source: 'usage',
    message: `no CA is asked for a certificate of ${host}`,
    mend: 'it needs a route, a public name, and no certificate of your own; see: ecluse cert ls',
    status: 404,
  });
}

function unknown(name: string): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_CERTIFICATE_UNKNOWN',
    source: 'usage',
    message: `no certificate is called ${name}`,
    mend: 'see: ecluse cert ls',
    status: 404,
  });
}

function inUse(name: string, service: string): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_CERTIFICATE_IN_USE',
    source: 'usage',
    message: `service ${service} shows the certificate ${name} to its endpoints`,
    mend: 'nothing was changed; give the service another one first, or replace this one: ecluse cert add',
    status: 409,
  });
}
