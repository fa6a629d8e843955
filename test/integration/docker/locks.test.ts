/** What holds one container up holds up nothing else: neither what ends it, nor the containers of other tenants on the same host. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { busyboxTar } from '../../support/docker-api.ts';
import { addTenant, startNode } from '../../support/node.ts';
import type { TestNode } from '../../support/node.ts';

let node: TestNode;

beforeAll(async () => {
  node = await startNode({ hosts: ['a'] });
  const rootFs = await busyboxTar(node.dataDir);
  for (const tenant of ['acme', 'globex']) {
    await addTenant(node, tenant);
    await node.docker(tenant, ['import', '-', 'bb'], rootFs);
  }
});

afterAll(async () => {
  await node[Symbol.asyncDispose]();
});

async function out(tenant: string, ...args: readonly string[]): Promise<string> {
  const answer = await node.docker(tenant, args);
  expect(answer, args.join(' ')).toMatchObject({ exitCode: 0 });
  return answer.stdout.trim();
}

/** A container that does not end by SIGTERM, and a stop of it that waits for that. */
async function stopping(name: string): Promise<{ readonly ended: Promise<unknown> }> {
  const program = 'trap "echo asked" TERM; while :; do sleep 0.2; done';
  await out('acme', 'run', '-d', '--name', name, 'bb', '/bin/busybox', 'sh', '-c', program);
  const ended = node.docker('acme', ['stop', '-t', '120', name]);
  await expect.poll(async () => await out('acme', 'logs', name), { timeout: 10_000 }).toBe('asked');
  return { ended };
}

describe('while a stop waits for a program', () => {
  test.each([
    ['kill', ['kill']],
    ['a forced removal', ['rm', '-f']],
  ])('%s ends it at once', async (_what, command) => {
    const { ended } = await stopping('stubborn');
    const startMs = performance.now();
    await out('acme', ...command, 'stubborn');
    await ended;
    expect(performance.now() - startMs).toBeLessThan(60_000);
    await node.docker('acme', ['rm', '-f', 'stubborn']);
  });

  test('the end of another tenant’s container is known', async () => {
    const { ended } = await stopping('stubborn');
    await out('globex', 'run', '-d', '--name', 'short', 'bb', '/bin/busybox', 'sleep', '1');
    await expect
      .poll(async () => await out('globex', 'ps', '-a', '--filter', 'status=exited', '--format', '{{.Names}}'), {
        timeout: 30_000,
      })
      .toBe('short');
    await out('acme', 'kill', 'stubborn');
    await ended;
    await out('acme', 'rm', 'stubborn');
  });
});
