/**
 * Proofs in the DNS by dynamic updates (RFC 2136) that are signed (TSIG): by `nsupdate` of BIND, which finds the zone, goes over to TCP where it must, and
 * looks at the signature of the answer.
 */
import { spawn } from 'node:child_process';
import type { Clock } from '#clock';
import { codeOf, reasonOf } from '#errors';
import type { Log } from '#log';
import { acmeFailure, quotedText } from './acme-failure.ts';
import { dnsRecordOf } from './dns-hook.ts';
import type { AcmeDnsUpdate } from './acme-keys.ts';
import type { Proof, ProofPort } from './issuance.ts';

/** For resolvers that asked too early. */
const TTL_SECONDS = 60;
const OUTPUT_CHARS_MAX = 64 * 1024;

export function dnsByUpdate({ log, clock }: { readonly log: Log; readonly clock: Clock }, settings: AcmeDnsUpdate): ProofPort {
  return {
    show: async (proof) => {
      await update(settings, 'add', proof);
      await clock.sleep(settings.settleMs);
    },
    hide: async (proof) => {
      await update(settings, 'delete', proof).catch((error: unknown) => {
        log.warn({ host: proof.host, reason: reasonOf(error) }, 'a proof that is over is still in the DNS');
      });
    },
  };
}

async function update(settings: AcmeDnsUpdate, what: 'add' | 'delete', proof: Proof): Promise<void> {
  const { host, port } = settings.server;
  const { name, value } = dnsRecordOf(proof);
  const ttl = what === 'add' ? ` ${String(TTL_SECONDS)}` : '';
  const script = [`server ${host} ${String(port)}`, `update ${what} ${name}.${ttl} TXT "${value}"`, 'send', ''].join('\n');
  await callNsupdate(settings, script, `${what} ${name}`);
}

async function callNsupdate({ keyFile, timeoutMs }: AcmeDnsUpdate, script: string, what: string): Promise<void> {
  const seconds = String(Math.ceil(timeoutMs / 1000));
  const child = spawn('nsupdate', ['-k', keyFile, '-t', seconds], {
    stdio: ['pipe', 'pipe', 'pipe'],
    timeout: timeoutMs,
    killSignal: 'SIGKILL',
  });
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => {
      if (output.length < OUTPUT_CHARS_MAX) output += text;
    });
  child.once('error', (error) => {
    resolve(codeOf(error) === 'ENOENT' ? 'there is no program nsupdate' : reasonOf(error));
  });
  child.once('close', (code, signal) => {
    resolve(
      code === 0
        ? undefined
        : `nsupdate ended with ${String(code ?? signal)}${output === '' ? '' : `, and said: ${quotedText(output)}`}`,
    );
  });
  child.stdin.on('error', () => undefined); // It has ended, which says why.
  child.stdin.end(script);
  const fault = await promise;
  if (fault === undefined) return;
  throw acmeFailure('internal', `the DNS could not be updated (${what}): ${fault}`, {
    mend: 'see acme.dns; nsupdate is in the package bind9-dnsutils',
  });
}
