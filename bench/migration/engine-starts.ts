/** How often the node's engines started a container: what a wake costs, whoever counts it, shows there. */
import { join } from 'node:path';
import { run } from '../../test/support/node.ts';
import type { Scene } from './scene.ts';

const HOSTS = ['a', 'b'];

/** Containers that engines started since `sinceMs` (of the clock of the machine). */
export async function engineStartsSince(scene: Scene, sinceMs: number): Promise<number> {
  const counts = await Promise.all(
    HOSTS.map(async (host) => await startsOf(join(scene.node.dataDir, 'hosts', host, 'docker.sock'), sinceMs)),
  );
  return counts.reduce((sum, count) => sum + count, 0);
}

async function startsOf(socket: string, sinceMs: number): Promise<number> {
  const between = ['--since', (sinceMs / 1000).toFixed(3), '--until', (Date.now() / 1000).toFixed(3)];
  const what = ['--filter', 'type=container', '--filter', 'event=start', '--format', '{{.ID}}'];
  const { exitCode, stdout, stderr } = await run('docker', ['--host', `unix://${socket}`, 'events', ...between, ...what]);
  if (exitCode !== 0) throw new Error(`the engine's events: ${stderr.trim()}`);
  return stdout.split('\n').filter((line) => line !== '').length;
}
