/**
 * An exec that ends as soon as it began, on a machine so busy that runsc looks for its child's end a third of a second later than it means to: the
 * kernel delays the call. Without what `ecluse-runsc` does about it every exec of this file ends with 126, and what it ended with is lost.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { findProgram } from '#isolation/program-path.ts';
import { busyboxTar } from '../../support/docker-api.ts';
import { addTenant, startNode } from '../../support/node.ts';
import type { TestNode } from '../../support/node.ts';

const BUSYBOX = '/bin/busybox';
/** More than a short exec takes. */
const WAIT_DELAY_US = 300_000;

let node: TestNode;
let folder: string;

/** Stands before runsc in the path. `-D`: the child of who calls it is runsc, as it would be without the tracer. */
function slowRunsc(runsc: string): string {
  const tracer = `strace -D -f -o /dev/null -e trace=wait4 -e inject=wait4:delay_enter=${String(WAIT_DELAY_US)}`;
  return `#!/bin/sh\ncase " $* " in *" exec "*) exec ${tracer} ${runsc} "$@" ;; *) exec ${runsc} "$@" ;; esac\n`;
}

beforeAll(async () => {
  const runsc = findProgram('runsc');
  if (runsc === undefined) throw new Error('there is no runsc');
  folder = await mkdtemp(join(tmpdir(), 'ecl-'));
  await writeFile(join(folder, 'runsc'), slowRunsc(runsc), { mode: 0o755 });
  vi.stubEnv('PATH', `${folder}:${process.env['PATH'] ?? ''}`);
  node = await startNode({ hosts: ['a'] });
  await addTenant(node, 'acme');
  await node.docker('acme', ['import', '-', 'bb'], await busyboxTar(node.dataDir));
  await node.docker('acme', ['run', '-d', '--name', 'box', 'bb', BUSYBOX, 'sleep', '1000']);
});

afterAll(async () => {
  await node[Symbol.asyncDispose]();
  vi.unstubAllEnvs();
  await rm(folder, { recursive: true });
});

test('its exit code and output arrive', async () => {
  const answer = await node.docker('acme', ['exec', 'box', BUSYBOX, 'sh', '-c', 'echo out; echo bad >&2; exit 3']);
  expect(answer).toEqual({ exitCode: 3, stdout: 'out\n', stderr: 'bad\n' });
});

test('so do those of one with a terminal', async () => {
  const answer = await node.docker('acme', ['exec', '-t', 'box', BUSYBOX, 'sh', '-c', 'test -t 0 && echo a terminal; exit 4']);
  expect(answer).toEqual({ exitCode: 4, stdout: 'a terminal\r\n', stderr: '' });
});

test('what cannot be run is said', async () => {
  const answer = await node.docker('acme', ['exec', 'box', '/bin/nosuch']);
  expect(answer.exitCode).toBe(126); // As Docker's client makes of it.
  expect(answer.stdout).toMatch(/^OCI runtime exec failed: .*\/bin\/nosuch.*no such file or directory/);
});
