/**
 * The node's internal CA: signs the Docker endpoint's server certificate, tenants' client certificates, nodes' certificates, and
 * those of route hosts that have no public one.
 *
 * Its key is made once and never again by itself: a CA that came to be anew would lock out every tenant. So whatever is wrong
 * with the two files on disk is an error that says what to do, and nothing is overwritten.
 */
import { X509Certificate as NodeCertificate, createPrivateKey } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { chmod, mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '#clock';
import { EcluseError, codeOf, reasonOf } from '#errors';
import { createFile } from './atomic-file.ts';
import { identityOf, issueClientLeaf, issueSelfSignedCa, issueServerLeaf, issuerOf } from './issue.ts';
import type { Issued, LeafKeys, Validity } from './issue.ts';
import { readPrivateFile } from './private-file.ts';

export interface ServerCertificate {
  /** The leaf, then the CA. */
  readonly certPem: string;
  readonly keyPem: string;
}

export interface ClientCertificate {
  /** The leaf alone: whoever verifies it has the CA. */
  readonly certPem: string;
  readonly keyPem: string;
  /** Of the DER: lower-case hex without colons. */
  readonly fingerprintSha256: string;
  /** Lower-case hex. */
  readonly serial: string;
  readonly notAfterMs: number;
}

export interface Authority {
  /** The CA's certificate: what clients and servers trust. */
  readonly caPem: string;
  /** `names`: DNS names (a first label `*` is allowed) and IP addresses. `keys`: those that it shares with others; absent: it gets its own. */
  issueServer(options: {
    readonly names: readonly string[];
    readonly days: number;
    readonly keys?: LeafKeys;
  }): Promise<ServerCertificate>;
  issueClient(options: { readonly commonName: string; readonly days: number }): Promise<ClientCertificate>;
}

const COMMON_NAME = 'Ecluse internal CA';
const CA_YEARS = 10;
const DAY_MS = 86_400_000;
/** Clients' clocks may be behind ours. */
const BACKDATED_MS = 300_000;
const KEY_MODE = 0o600;
const CERT_MODE = 0o644;
const FOLDER_MODE = 0o700;

function corrupt(message: string, mend: string, cause?: unknown): EcluseError {
  return new EcluseError({ code: 'ECLUSE_CA_CORRUPT', source: 'runtime', message, mend, cause });
}

function keyUnreadable(message: string, mend: string, cause?: unknown): EcluseError {
  return new EcluseError({ code: 'ECLUSE_CA_KEY_UNREADABLE', source: 'runtime', message, mend, cause });
}

async function readCertificateFile(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw corrupt(
      `the certificate of the internal CA cannot be read: ${reasonOf(error)}`,
      `make ${path} a file that this user can read`,
      error,
    );
  }
}

function parseKey(pem: string, path: string): KeyObject {
  const mend = `restore ${path} from a backup`;
  if (pem.trim() === '') throw keyUnreadable(`the key of the internal CA is empty: ${path}`, mend);
  let key: KeyObject;
  try {
    key = createPrivateKey(pem);
  } catch (error) {
    throw keyUnreadable(`the key of the internal CA is corrupt: ${path} is not a private key in PEM form`, mend, error);
  }
  if (key.asymmetricKeyDetails?.namedCurve !== 'prime256v1') {
    throw keyUnreadable(`the key of the internal CA is not one that Écluse made: ${path} is no P-256 key`, mend);
  }
  return key;
}

function parseCertificate(pem: string, path: string): NodeCertificate {
  const mend = `restore ${path} from a backup`;
  let certificate: NodeCertificate;
  try {
    certificate = new NodeCertificate(pem);
  } catch (error) {
    throw corrupt(`the certificate of the internal CA is corrupt: ${path} is not a certificate in PEM form`, mend, error);
  }
  if (!certificate.ca) throw corrupt(`the certificate of the internal CA is not one of a CA: ${path}`, mend);
  return certificate;
}

/** Both files are there: do they hold one CA that can sign today? */
function checkPair(key: KeyObject, certificate: NodeCertificate, paths: { key: string; cert: string }, nowMs: number): void {
  if (!certificate.checkPrivateKey(key) || !certificate.verify(certificate.publicKey)) {
    throw corrupt(
      `the internal CA is corrupt: the key ${paths.key} does not belong to the certificate ${paths.cert}`,
      'restore both files from the same backup',
    );
  }
  if (certificate.validToDate.getTime() <= nowMs) {
    throw corrupt(
      `the internal CA has expired: ${paths.cert} was valid until ${certificate.validToDate.toISOString()}`,
      'check the clock; if it is right, move both files away and give all tenants new certificates',
    );
  }
}

async function createPair(paths: { key: string; cert: string }, folder: string, nowMs: number): Promise<Issued> {
  await mkdir(folder, { recursive: true, mode: FOLDER_MODE });
  await chmod(folder, FOLDER_MODE);
  const notAfter = new Date(nowMs);
  notAfter.setUTCFullYear(notAfter.getUTCFullYear() + CA_YEARS);
  const issued = await issueSelfSignedCa(COMMON_NAME, { notBefore: new Date(nowMs - BACKDATED_MS), notAfter });
  try {
    await createFile(paths.key, issued.keyPem, KEY_MODE);
    await createFile(paths.cert, issued.certPem, CERT_MODE);
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error;
    throw corrupt(`another process made an internal CA in ${folder} at this moment`, 'start it again, once', error);
  }
  return issued;
}

async function loadOrCreate(folder: string, nowMs: number): Promise<{ certPem: string; key: KeyObject }> {
  const paths = { key: join(folder, 'ca.key'), cert: join(folder, 'ca.pem') };
  const [keyPem, certPem] = await Promise.all([
    readPrivateFile(paths.key, 'the key of the internal CA', keyUnreadable),
    readCertificateFile(paths.cert),
  ]);
  if (keyPem === undefined && certPem === undefined) {
    const issued = await createPair(paths, folder, nowMs);
    return { certPem: issued.certPem, key: createPrivateKey(issued.keyPem) };
  }
  if (keyPem === undefined || certPem === undefined) {
    const [missing, present] = keyPem === undefined ? [paths.key, paths.cert] : [paths.cert, paths.key];
    throw corrupt(
      `half of the internal CA is missing: there is ${present}, but no ${missing}`,
      `restore ${missing} from a backup, or, if no certificate was ever issued here, remove ${present}`,
    );
  }
  const key = parseKey(keyPem, paths.key);
  checkPair(key, parseCertificate(certPem, paths.cert), paths, nowMs);
  return { certPem, key };
}

/** Opens the CA in `folder`; makes it on the first run. Throws ECLUSE_CA_KEY_UNREADABLE or ECLUSE_CA_CORRUPT. */
export async function openAuthority(folder: string, deps: { readonly clock: Clock }): Promise<Authority> {
  const { certPem: caPem, key } = await loadOrCreate(folder, deps.clock.nowMs());
  const issuer = await issuerOf(caPem, key);
  const validityOf = (days: number): Validity => {
    const nowMs = deps.clock.nowMs();
    // A leaf that outlives its CA is refused by some clients from the start.
    const notAfterMs = Math.min(nowMs + days * DAY_MS, issuer.certificate.notAfter.getTime());
    return { notBefore: new Date(nowMs - BACKDATED_MS), notAfter: new Date(notAfterMs) };
  };
  return {
    caPem,
    issueServer: async ({ names, days, keys }) => {
      const leaf = await issueServerLeaf(issuer, validityOf(days), { names, keys });
      return { certPem: `${leaf.certPem}${caPem}`, keyPem: leaf.keyPem };
    },
    issueClient: async ({ commonName, days }) => {
      const leaf = await issueClientLeaf(issuer, validityOf(days), commonName);
      return { ...leaf, ...identityOf(leaf.certPem) };
    },
  };
}
