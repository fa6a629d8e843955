/** The chain of a certificate, put in order from what was given with it. */
import { X509Certificate } from 'node:crypto';
import { getCACertificates } from 'node:tls';

export interface Chain {
  /** From the one that signed the leaf, without the root: clients have that, or do not trust it. */
  readonly chain: readonly X509Certificate[];
  /** What was put right, and what clients may miss. */
  readonly notes: readonly string[];
}

/** A chain of public CAs has two or three. */
const LENGTH_MAX = 10;

export function chainOf(leaf: X509Certificate, given: readonly X509Certificate[], nowMs: number): Chain {
  const chain: X509Certificate[] = [];
  const rest = new Set(given.filter((one) => one !== leaf && one.fingerprint256 !== leaf.fingerprint256));
  let last = leaf;
  let root: X509Certificate | undefined;
  while (!isSelfSigned(last) && chain.length < LENGTH_MAX) {
    const subject = last;
    const issuer = [...rest].find((one) => isIssuedBy(subject, one));
    if (issuer === undefined) break;
    rest.delete(issuer);
    if (isSelfSigned(issuer)) root = issuer;
    else chain.push(issuer);
    last = issuer;
  }
  const used = [leaf, ...chain, ...(root === undefined ? [] : [root])];
  const inOrder = used.every((one, index) => given[index] === one);
  const notes = [
    ...(inOrder ? [] : ['its certificates were put in order: the leaf first, then what signed it']),
    ...(root === undefined ? [] : ['its root is not sent: clients have it, or do not trust it']),
    ...(rest.size === 0 ? [] : [`${String(rest.size)} certificates that are not of its chain were left out`]),
    ...chain
      .filter((one) => one.validToDate.getTime() <= nowMs)
      .map((one) => `its intermediate ${lineOf(one.subject)} has expired`),
  ];
  if (!isSelfSigned(last) && !isOfKnownRoot(last)) {
    notes.push(
      `its chain ends at ${lineOf(last.issuer)}, which is neither in the file nor a root that Node knows: where that is an intermediate, clients will not trust it; add what it was signed by`,
    );
  }
  return { chain, notes };
}

function lineOf(name: string): string {
  return `"${name.split('\n').join(', ').slice(0, 200)}"`;
}

function isIssuedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
}

function isSelfSigned(certificate: X509Certificate): boolean {
  return isIssuedBy(certificate, certificate);
}

let knownRoots: ReadonlyMap<string, readonly X509Certificate[]> | undefined;

/** Whether one of the roots of this Node signed it. They are parsed once, when they are first asked for: some 150, in some 10 ms. */
function isOfKnownRoot(certificate: X509Certificate): boolean {
  knownRoots ??= Map.groupBy(
    getCACertificates('default').map((pem) => new X509Certificate(pem)),
    ({ subject }) => subject,
  );
  return (knownRoots.get(certificate.issuer) ?? []).some((root) => isIssuedBy(certificate, root));
}
