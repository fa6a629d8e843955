/** Certificates of the internal CA for workers that ask for them. */
import { codeOf, reasonOf } from '#errors';
import type { Log } from '#log';
import type { IssueAnswer, IssuedCertificate } from '#tls/issued-certificates.ts';
import type { Ask } from './generation/conversation.ts';

/** The certificate of a host; undefined: no route has it, and it gets none. */
export type Issuing = (host: string) => Promise<IssuedCertificate | undefined>;

/** Answers a worker host by host, as they are signed: none waits for those behind it. */
export function answerWanted(
  log: Log,
  issue: Issuing | undefined,
  worker: { readonly tell: (message: Ask) => void },
  hosts: readonly string[],
): void {
  for (const host of hosts) void answer(log, issue, { worker, host });
}

interface Question {
  readonly worker: { readonly tell: (message: Ask) => void };
  readonly host: string;
}

async function answer(log: Log, issue: Issuing | undefined, { worker, host }: Question): Promise<void> {
  worker.tell({ kind: 'issued', answers: [await answerOf(log, issue, host)] });
}

async function answerOf(log: Log, issue: Issuing | undefined, host: string): Promise<IssueAnswer> {
  try {
    return { host, certificate: await issue?.(host) };
  } catch (error) {
    // Clients that ask for many hosts at once must not fill the log.
    const level = codeOf(error) === 'ECLUSE_CERTIFICATES_BUSY' ? 'debug' : 'warn';
    log[level]({ host, reason: reasonOf(error) }, 'a host of a route got no certificate');
    return { host, certificate: undefined };
  }
}
