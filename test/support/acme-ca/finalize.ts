/** From a certificate request to a certificate (RFC 8555 §7.4, §7.4.2, §7.6), and what this CA can do wrong on the way. */
import { X509Certificate } from 'node:crypto';
import { z } from 'zod';
import type { Answer } from './answer.ts';
import { overLimit, urlOf } from './ca-state.ts';
import type { CaState } from './ca-state.ts';
import type { Lie } from './faults.ts';
import { foreignKey, readCsr } from './issuing.ts';
import type { CertificateRequest, SignedLeaf } from './issuing.ts';
import { namesKey } from './limits.ts';
import { answerOrder } from './orders.ts';
import { Problem, malformed } from './problem.ts';
import { statusOf } from './resources.ts';
import type { Account, Certificate, Order } from './resources.ts';

const finalizeSchema = z.object({ csr: z.string().regex(/^[A-Za-z0-9_-]+$/) });

/** Clients' clocks may be behind: so long before they are issued certificates are valid. */
const BACKDATED_MS = 3_600_000;
const YEAR_MS = 365 * 86_400_000;

export async function finalize(state: CaState, order: Order, payload: unknown): Promise<Answer> {
  const status = statusOf(order, state.options.clock.nowMs());
  if (status !== 'ready') throw new Problem('orderNotReady', 403, `the order is ${status}`);
  const parsed = finalizeSchema.safeParse(payload);
  if (!parsed.success) throw malformed('what is missing is a csr in base64url');
  order.isFinalizing = true;
  try {
    const request = await readCsr(Buffer.from(parsed.data.csr, 'base64url'));
    checkRequest(order, request);
    const nowMs = state.options.clock.nowMs();
    const refusal = state.limiter.issue({ account: order.account.id, names: order.names, renewal: order.renewal }, nowMs);
    if (refusal !== undefined) throw overLimit(state, refusal);
    const certificate = await issue(state, order, request);
    order.certificate = certificate;
    order.readyMs = nowMs + state.faults.processingMs;
    keep(state, certificate);
  } finally {
    order.isFinalizing = false;
  }
  return answerOrder(state, order);
}

function checkRequest({ names, account }: Order, request: CertificateRequest): void {
  if (namesKey(request.names) !== namesKey(names)) {
    throw new Problem('badCSR', 400, `it is for ${request.names.join(', ')}, the order for ${names.join(', ')}`);
  }
  if (request.key.equals(account.key)) throw new Problem('badCSR', 400, 'its key is that of the account');
}

async function issue(state: CaState, order: Order, { publicKey }: CertificateRequest): Promise<Certificate> {
  const { issuing, faults, options, resources } = state;
  const nowMs = options.clock.nowMs();
  const lifetimeMs = options.profiles[order.profile]?.lifetimeMs ?? 0;
  const shiftMs = shiftOf(faults.lie);
  const [notBeforeMs, notAfterMs] = [nowMs - BACKDATED_MS + shiftMs, nowMs - BACKDATED_MS + lifetimeMs + shiftMs];
  const leaf = await issuing.sign({
    publicKey: faults.lie?.kind === 'certificate-of-other-key' ? await foreignKey() : publicKey,
    names: faults.lie?.kind === 'certificate-of-other-names' ? faults.lie.names : order.names,
    notBeforeMs,
    notAfterMs,
  });
  return {
    id: resources.newId(),
    renewalId: leaf.renewalId,
    account: order.account,
    names: order.names,
    profile: order.profile,
    replaces: order.replaces,
    atMs: nowMs,
    notBeforeMs,
    notAfterMs,
    serial: leaf.serial,
    chainPem: chainOf(state, leaf),
    revokedMs: undefined,
  };
}

function shiftOf(lie: Lie | undefined): number {
  if (lie?.kind === 'certificate-expired') return -YEAR_MS;
  return lie?.kind === 'certificate-not-yet-valid' ? YEAR_MS : 0;
}

function chainOf({ faults, issuing }: CaState, { leafPem }: SignedLeaf): string {
  if (faults.lie?.kind === 'certificate-without-intermediate') return leafPem;
  const chain = `${leafPem}${issuing.intermediatePem}`;
  return faults.lie?.kind === 'certificate-cut-off' ? chain.slice(0, Math.floor(leafPem.length * 0.7)) : chain;
}

function keep({ resources, record }: CaState, certificate: Certificate): void {
  resources.certificates.set(certificate.id, certificate);
  resources.byRenewalId.set(certificate.renewalId, certificate);
  resources.issuedNames.add(namesKey(certificate.names));
  record.certificates.push(certificate);
}

export function answerCertificate(state: CaState, certificate: Certificate): Answer {
  const headers = { 'content-type': 'application/pem-certificate-chain', link: `<${urlOf(state, 'directory')}>;rel="index"` };
  return { status: 200, headers, body: certificate.chainPem };
}

const revokeSchema = z.object({ certificate: z.string(), reason: z.number().int().exactOptional() });

/** `account` undefined: the request is signed by the key of the certificate, which is `keyDer`. */
export function revoke(
  state: CaState,
  by: { readonly account: Account | undefined; readonly keyDer: Buffer },
  payload: unknown,
): Answer {
  const parsed = revokeSchema.safeParse(payload);
  if (!parsed.success) throw malformed('what is to be revoked is missing');
  const leaf = leafOf(Buffer.from(parsed.data.certificate, 'base64url'));
  const serial = leaf.serialNumber.toLowerCase();
  const certificate = state.record.certificates.find((one) => one.serial === serial);
  if (certificate === undefined) throw new Problem('malformed', 404, 'there is no such certificate');
  const isOwner =
    by.account === undefined
      ? leaf.publicKey.export({ type: 'spki', format: 'der' }).equals(by.keyDer)
      : by.account === certificate.account;
  if (!isOwner) throw new Problem('unauthorized', 403, 'the certificate is not of whoever asks');
  if (certificate.revokedMs !== undefined) throw new Problem('alreadyRevoked', 400, 'it is revoked');
  certificate.revokedMs = state.options.clock.nowMs();
  return { status: 200 };
}

function leafOf(der: Buffer): X509Certificate {
  try {
    return new X509Certificate(der);
  } catch {
    throw malformed('this is no certificate');
  }
}
