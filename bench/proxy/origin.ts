/** What the proxies lead to: nginx answering from memory, and a WebSocket echo, both on the load's core. */
import { writeFile } from 'node:fs/promises';
import { Agent, get } from 'node:http';
import { join } from 'node:path';
import { originConfig } from './configs.ts';
import { LOAD_CORE, freePorts, listening } from './stage.ts';
import type { Stage } from './stage.ts';

export interface Origin {
  readonly ports: readonly number[];
  readonly websocketPort: number;
  /** Requests that came in so far, those of this function not counted. */
  readonly requests: () => Promise<number>;
}

const PORTS = 16;

export async function startOrigin(stage: Stage): Promise<Origin> {
  const [websocketPort = 0, statusPort = 0, ...others] = await freePorts(PORTS + 1);
  const ports = [statusPort, ...others];
  const config = stage.path('origin.conf');
  await writeFile(stage.path('16k'), 'b'.repeat(16 * 1024));
  await writeFile(stage.path('1m'), 'c'.repeat(1024 * 1024));
  await writeFile(config, originConfig(stage.directory, ports));
  const argv = ['nginx', '-e', stage.path('origin-start.err'), '-c', config];
  await listening(statusPort, stage.start({ core: LOAD_CORE, argv }));
  const echo = [process.execPath, join(import.meta.dirname, 'programs', 'websocket-origin.ts'), String(websocketPort)];
  await listening(websocketPort, stage.start({ core: LOAD_CORE, argv: echo }));
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  let asked = 0;
  const requests = async (): Promise<number> => {
    asked += 1;
    const text = await textOf(agent, statusPort);
    // "server accepts handled requests", then three numbers, the last of which counts us as well.
    const counted = / (\d+) (\d+) (\d+)/.exec(text)?.[3];
    if (counted === undefined) throw new Error(`the origin's status cannot be read: ${text}`);
    return Number(counted) - asked;
  };
  return { ports, websocketPort, requests };
}

async function textOf(agent: Agent, port: number): Promise<string> {
  return await new Promise((resolve, reject) => {
    get({ agent, port, host: '127.0.0.1', path: '/origin-status' }, (answer) => {
      let text = '';
      answer.setEncoding('utf8').on('data', (piece: string) => {
        text += piece;
      });
      answer.on('end', () => {
        resolve(text);
      });
    }).on('error', reject);
  });
}
