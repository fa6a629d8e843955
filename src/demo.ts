/**
 * The demo: what a newcomer sees after `npm start`. A tenant, an image made on the spot, and a container that the real `docker` command
 * starts through the tenant's own endpoint; then a tour of commands to paste.
 */
import { spawn } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { request } from 'node:https';
import { join } from 'node:path';
import type { Clock } from '#clock';
import { waitFor } from '#clock';
import { tryCommand } from '#command';
import type { NodeConfig } from '#config';
import { EcluseError } from '#errors';
import type { Authority } from '#tls/authority.ts';
import type { WorkerPool } from '#proxy/worker-pool.ts';
import { DEMO_IMAGE_CHANGES, writeDemoImage } from './demo-image.ts';
import type { Tenants } from './node-tenants.ts';

export interface DemoNode {
  readonly config: NodeConfig;
  readonly clock: Clock;
  readonly tenants: Tenants;
  readonly authority: Authority;
  readonly pool: WorkerPool;
}

export interface Demo {
  /** Lines for the terminal. */
  readonly tour: readonly string[];
}

const TENANT = 'demo';
const IMAGE = 'hello';
const CONTAINER = 'hello';
const ANSWER_LIMIT_MS = 30_000;
const IMPORT_LIMIT_MS = 300_000;

/** Makes what is missing of the demo and waits until its app answers over HTTPS. */
export async function prepareDemo(node: DemoNode, say: (line: string) => void): Promise<Demo | undefined> {
  const { docker, https } = node.config.listen;
  if (docker === undefined || https === undefined) return undefined;
  const host = `${CONTAINER}.${node.config.domain}`;
  if (!(await node.tenants.list()).some((tenant) => tenant.name === TENANT)) {
    await node.tenants.add({ name: TENANT, quota: {}, domains: [node.config.domain] });
  }
  const certPath = await node.tenants.certificateFolder(TENANT);
  const configPath = join(node.config.dataDir, 'tenants', TENANT, 'docker-config');
  await mkdir(configPath, { recursive: true, mode: 0o700 });
  const env = {
    PATH: process.env['PATH'] ?? '',
    // The demo must not read or write the contexts and credentials of the person who runs it.
    DOCKER_CONFIG: configPath,
    DOCKER_HOST: `tcp://${docker.host}:${String(docker.port)}`,
    DOCKER_TLS_VERIFY: '1',
    DOCKER_CERT_PATH: certPath,
  };
  if ((await tryCommand('docker', ['image', 'inspect', IMAGE], { env })).exitCode !== 0) {
    say(`building the image ${IMAGE} of tenant ${TENANT}`);
    await importImage(env);
  }
  await startContainer(env, host, say);
  const port = node.pool.listening.https?.port ?? https.port;
  const answers = await waitFor(
    node.clock,
    async () => ((await answersAt(host, { port, caPem: node.authority.caPem })) ? true : undefined),
    {
      limitMs: ANSWER_LIMIT_MS,
      stepMs: 50,
    },
  );
  if (answers === undefined)
    throw demoError(`https://${host}:${String(port)} did not answer`, `see: docker logs ${CONTAINER} as tenant ${TENANT}`);
  return { tour: tourOf(node.config, host, port) };
}

async function startContainer(env: NodeJS.ProcessEnv, host: string, say: (line: string) => void): Promise<void> {
  const known = await tryCommand('docker', ['inspect', '--format', '{{.State.Status}}', CONTAINER], { env });
  if (known.exitCode === 0) {
    if (known.stdout.trim() !== 'running') await mustRun(env, ['start', CONTAINER]);
    return;
  }
  say(`docker run ${IMAGE}, as tenant ${TENANT}`);
  const labels = ['--label', `ecluse.http.host=${host}`, '--label', 'ecluse.http.health=/healthz'];
  await mustRun(env, [
    'run',
    '--detach',
    '--name',
    CONTAINER,
    '--restart',
    'unless-stopped',
    '--memory',
    '256m',
    ...labels,
    IMAGE,
  ]);
}

async function mustRun(env: NodeJS.ProcessEnv, args: readonly string[]): Promise<void> {
  const result = await tryCommand('docker', args, { env, timeoutMs: 60_000 });
  if (result.exitCode !== 0) throw demoError(`docker ${args[0] ?? ''} failed: ${result.stderr.trim()}`, 'run: ecluse doctor');
}

/** `docker import - hello`, fed from memory to pipe: the archive never lies on the disk. */
async function importImage(env: NodeJS.ProcessEnv): Promise<void> {
  const changes = DEMO_IMAGE_CHANGES.flatMap((change) => ['--change', change]);
  const child = spawn('docker', ['import', ...changes, '-', IMAGE], {
    env,
    stdio: ['pipe', 'ignore', 'pipe'],
    timeout: IMPORT_LIMIT_MS,
  });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = `${said}${text}`.slice(-2000);
  });
  const ended = new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => {
      resolve(code ?? 1);
    });
  });
  const [written, code] = await Promise.allSettled([writeDemoImage(child.stdin), ended]);
  if (code.status === 'rejected') throw demoError('docker could not be started', 'run: ecluse doctor --fix', code.reason);
  if (code.value !== 0) throw demoError(`docker import failed: ${said.trim()}`, 'run: ecluse doctor');
  if (written.status === 'rejected') throw written.reason;
}

async function answersAt(host: string, at: { readonly port: number; readonly caPem: string }): Promise<boolean> {
  return await new Promise((resolve) => {
    const outgoing = request(
      {
        host: '127.0.0.1',
        port: at.port,
        path: '/healthz',
        servername: host,
        headers: { host },
        ca: at.caPem,
        agent: false,
        timeout: 2000,
      },
      (response) => {
        response.resume();
        response.once('end', () => {
          resolve(response.statusCode === 200);
        });
      },
    );
    outgoing.once('timeout', () => outgoing.destroy(new Error('no answer')));
    outgoing.once('error', () => {
      resolve(false);
    });
    outgoing.end();
  });
}

function tourOf(config: NodeConfig, host: string, port: number): readonly string[] {
  const bin = join(import.meta.dirname, '..', 'bin');
  const caFile = join(config.dataDir, 'tls', 'ca.pem');
  const target = config.hosts[1]?.name;
  return [
    '',
    '  A tour. In another terminal:',
    '',
    `  export PATH="${bin}:$PATH" ECLUSE_DATA="${config.dataDir}"`,
    `  curl --cacert ${caFile} https://${host}:${String(port)}/count`,
    `  eval "$(ecluse tenant env ${TENANT})"      # docker speaks as tenant ${TENANT} from here on`,
    '  docker ps',
    `  docker run --rm ${IMAGE} /bin/busybox uname -a   # another kernel: gVisor's`,
    `  docker logs -f ${CONTAINER}`,
    ...(target === undefined ? [] : [`  ecluse migrate ${CONTAINER} --to ${target}            # the count goes on`]),
    '  ecluse usage',
    '  ecluse top',
    '',
    `  In a browser: https://${host}:${String(port)} (its certificate is of this node's own CA)`,
    '  Ctrl-C here ends everything.',
    '',
  ];
}

function demoError(message: string, mend: string, cause?: unknown): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_DEMO_FAILED',
    source: 'runtime',
    message: `the demo could not be set up: ${message}`,
    mend,
    cause,
  });
}
