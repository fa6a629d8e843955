/** What testssl.sh, which others look at servers with, finds in the default policy. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import * as z from 'zod';
import { tryCommand } from '#command';
import { routeTlsOf } from '#routing/operator/tls-schema.ts';
import { makeChain } from '../../support/certificate-maker.ts';
import { startEdge } from '../../support/edge.ts';
import { startUpstream } from '../../support/upstream.ts';

const findingsSchema = z.array(z.object({ id: z.string(), severity: z.string(), finding: z.string() }));

/** Protocols, suites, forward secrecy, preferences, what the server says of itself, HTTP, and vulnerabilities; without simulated clients. */
const CHECKS = ['-p', '-s', '-f', '-P', '-S', '-h', '-U'];
const HARMLESS: ReadonlySet<string> = new Set(['OK', 'INFO', 'LOW', 'DEBUG', 'WARN']);
/** Of the certificate and of the app, which are not the policy's: a CA of the test revokes nothing, and sets no fields of content. */
const NOT_OURS: ReadonlySet<string> = new Set(['cert_revocation', 'security_headers']);

test('there is no finding above LOW', { timeout: 400_000 }, async () => {
  const { root, intermediate, leaf } = await makeChain(['app.test'], { untilDays: 200, uses: ['1.3.6.1.5.5.7.3.1'] });
  await using upstream = await startUpstream((_, response) => {
    response.end('app');
  });
  await using edge = await startEdge({
    config: {
      version: 1,
      services: [{ id: 'app', tenant: 'acme', endpoints: [upstream.endpoint()] }],
      routes: [{ host: 'app.test', path: '/', serviceId: 'app', tls: routeTlsOf({ hsts: { maxAge: '365d' } }) }],
    },
    certificates: [
      {
        name: 'app',
        hosts: ['app.test'],
        notAfterMs: leaf.certificate.notAfter.getTime(),
        leafPem: leaf.certPem,
        chain: { pem: intermediate.certPem },
        keyPem: leaf.keyPem,
      },
    ],
  });
  const folder = await mkdtemp(join(tmpdir(), 'ecluse-testssl-'));
  try {
    const [ca, out] = [join(folder, 'ca.pem'), join(folder, 'found.json')];
    await writeFile(ca, root.certPem);
    const quiet = ['--quiet', '--color', '0', '--warnings', 'off', '--nodns', 'none'];
    const to = ['--ip', '127.0.0.1', '--add-ca', ca, '--jsonfile', out, `https://app.test:${String(edge.httpsPort)}`];
    await tryCommand('testssl', [...CHECKS, ...quiet, ...to], { timeoutMs: 390_000, input: '' });
    const found = findingsSchema.parse(JSON.parse(await readFile(out, 'utf8')));
    const severities = new Map(found.map(({ id, severity }) => [id, severity]));
    // That it looked at all.
    for (const id of ['TLS1_3', 'TLS1_2', 'SSLv3', 'cipher_order', 'heartbleed', 'secure_client_renego', 'BEAST'])
      expect([id, severities.get(id)]).toEqual([id, 'OK']);
    expect(found.filter(({ id, severity }) => !HARMLESS.has(severity) && !NOT_OURS.has(id))).toEqual([]);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
