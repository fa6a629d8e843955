/** Proofs in the DNS by a program of the operator's: `HOOK add|remove NAME VALUE`. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import type { Clock } from '#clock';
import { reasonOf } from '#errors';
import type { Log } from '#log';
import { acmeFailure, quotedText } from './acme-failure.ts';
import type { AcmeDnsHook } from './acme-keys.ts';
import type { Proof, ProofPort } from './issuance.ts';

const OUTPUT_BYTES_MAX = 64 * 1024;

/** RFC 8555 §8.4. */
export function dnsRecordOf({ host, keyAuthorization }: Pick<Proof, 'host' | 'keyAuthorization'>): {
  readonly name: string;
  readonly value: string;
} {
  return { name: `_acme-challenge.${host}`, value: createHash('sha256').update(keyAuthorization).digest('base64url') };
}

export function dnsByHook({ log, clock }: { readonly log: Log; readonly clock: Clock }, settings: AcmeDnsHook): ProofPort {
  return {
    show: async (proof) => {
      const { name, value } = dnsRecordOf(proof);
      await callHook(settings, 'add', name, value);
      await clock.sleep(settings.settleMs);
    },
    hide: async (proof) => {
      const { name, value } = dnsRecordOf(proof);
      await callHook(settings, 'remove', name, value).catch((error: unknown) => {
        log.warn({ name, reason: reasonOf(error) }, 'a proof that is over is still in the DNS');
      });
    },
  };
}

/** What it writes is in the error where it fails. */
async function callHook({ hook, timeoutMs }: AcmeDnsHook, what: 'add' | 'remove', name: string, value: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<undefined>();
  const options = { timeout: timeoutMs, killSignal: 'SIGKILL', maxBuffer: OUTPUT_BYTES_MAX, encoding: 'utf8' } as const;
  execFile(hook, [what, name, value], options, (error, stdout, stderr) => {
    if (error === null) {
      resolve(undefined);
      return;
    }
    const why =
      error.killed === true
        ? `it was ended after ${String(timeoutMs / 1000)} s`
        : `it ended with ${String(error.code ?? error.signal)}`;
    const said = quotedText(`${stderr}\n${stdout}`);
    reject(
      acmeFailure(
        'internal',
        `the DNS hook ${hook} failed at "${what} ${name}": ${why}${said === '' ? '' : `, and said: ${said}`}`,
        {
          mend: 'call it by hand with the same words',
        },
      ),
    );
  });
  await promise;
}
