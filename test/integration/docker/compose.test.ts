/** Debian's docker-compose, unmodified: a project with networks, volumes, health, dependencies and a build, over two hosts. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { busyboxTar } from '../../support/docker-api.ts';
import { addTenant, run, startNode } from '../../support/node.ts';
import type { CommandAnswer, TestNode } from '../../support/node.ts';
import { containing } from '../../support/matchers.ts';

const PROJECT = `
version: "2.4"
services:
  db:
    image: bb
    mem_limit: 64m
    command: ["sh", "-c", "sleep 2; echo row > /data/rows; while true; do cat /data/rows | nc -l -p 5432; done"]
    healthcheck: { test: ["CMD", "test", "-f", "/data/rows"], interval: 1s, timeout: 5s, retries: 20 }
    volumes: ["data:/data"]
    networks: { back: { aliases: [database] } }
  web:
    build: { context: ./web, args: { GREETING: hello } }
    mem_limit: 64m
    depends_on: { db: { condition: service_healthy } }
    environment: { DB: database }
    ports: ["127.0.0.1::80"]
    restart: unless-stopped
    networks: [front, back]
  job:
    image: bb
    mem_limit: 64m
    command: ["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do out=$$(nc -w 5 web 80 </dev/null); [ -n \\"$$out\\" ] && echo $$out && exit; sleep 1; done; exit 1"]
    depends_on: [web]
    networks: [front]
networks:
  front: {}
  back: { internal: true }
volumes:
  data: {}
`;

const DOCKERFILE = `
FROM bb
ARG GREETING=none
ENV GREETING=$GREETING
LABEL made.by=compose
COPY serve.sh /serve.sh
RUN chmod 755 /serve.sh && echo built > /built
EXPOSE 80
CMD ["/serve.sh"]
`;

const SERVE = `#!/bin/sh
while true; do (echo "$GREETING $(cat /built) $(nc -w 2 $DB 5432 </dev/null)") | nc -l -p 80; done
`;

let node: TestNode;
let folder: string;

async function compose(...args: readonly string[]): Promise<CommandAnswer> {
  return await run(
    'docker-compose',
    ['--project-directory', folder, '-f', join(folder, 'docker-compose.yml'), '-p', 'shop', ...args],
    {
      env: { ...node.dockerEnv('acme'), COMPOSE_TLS_VERSION: 'TLSv1_2', COMPOSE_HTTP_TIMEOUT: '120' },
      timeoutMs: 180_000,
    },
  );
}

async function composed(...args: readonly string[]): Promise<string> {
  const answer = await compose(...args);
  expect(answer, args.join(' ')).toMatchObject({ exitCode: 0 });
  return answer.stdout;
}

beforeAll(async () => {
  node = await startNode({ hosts: ['a', 'b'] });
  await addTenant(node, 'acme');
  const imported = await node.docker('acme', ['import', '-', 'bb'], await busyboxTar(node.dataDir));
  expect(imported).toMatchObject({ exitCode: 0 });
  folder = join(node.dataDir, 'project');
  await mkdir(join(folder, 'web'), { recursive: true });
  await writeFile(join(folder, 'docker-compose.yml'), PROJECT);
  await writeFile(join(folder, 'web', 'Dockerfile'), DOCKERFILE);
  await writeFile(join(folder, 'web', 'serve.sh'), SERVE);
});

afterAll(async () => {
  await node[Symbol.asyncDispose]();
});

describe('docker-compose', () => {
  test('builds, starts in order of health, resolves names over networks, and serves a published port', async () => {
    await composed('build');
    await composed('up', '-d', 'db', 'web');
    const ps = await composed('ps');
    expect(ps).toMatch(/shop_db_1.*Up \(healthy\)/);
    expect(ps).toMatch(/shop_web_1.*Up.*127\.0\.0\.1:\d+->80\/tcp/);
    const address = (await composed('port', 'web', '80')).trim();
    const [host = '', port = ''] = address.split(':');
    const asked = await run('sh', ['-c', `busybox nc -w 5 ${host} ${port} </dev/null`]);
    expect(asked.stdout).toBe('hello built row\n');
    expect(await compose('run', '--rm', 'job')).toMatchObject({ exitCode: 0, stdout: containing('hello built row') });
  });

  test('logs, exec, scale, restart and events work on the project', async () => {
    expect(await composed('exec', '-T', 'db', 'cat', '/data/rows')).toBe('row\n');
    await composed('up', '-d', '--scale', 'web=2', '--no-recreate', 'web');
    expect((await composed('ps', '-q', 'web')).trim().split('\n')).toHaveLength(2);
    await composed('restart', '-t', '1', 'db');
    expect(await composed('top')).toMatch(/shop_db_1/);
    expect(await composed('logs', '--no-color', '--tail', '5', 'db')).toContain('Attaching to shop_db_1');
    expect(await composed('config')).toContain('condition: service_healthy');
    const networks = (await node.docker('acme', ['network', 'ls', '--format', '{{.Name}}'])).stdout;
    expect(networks).toContain('shop_back');
  });

  test('recreates what changed, keeps the volume’s data, and takes everything down', async () => {
    await writeFile(join(folder, 'docker-compose.yml'), PROJECT.replace('DB: database', 'DB: db'));
    const again = await compose('up', '-d', 'web');
    expect(again).toMatchObject({ exitCode: 0, stderr: containing('Recreating shop_web_1') });
    expect(await composed('exec', '-T', 'db', 'cat', '/data/rows')).toBe('row\n');
    await composed('down');
    const volumes = async (): Promise<string> => (await node.docker('acme', ['volume', 'ls', '-q'])).stdout.trim();
    expect(await volumes()).toBe('shop_data');
    await composed('down', '-v', '--rmi', 'local');
    expect(await volumes()).toBe('');
    expect((await node.docker('acme', ['ps', '-aq'])).stdout).toBe('');
    expect((await node.docker('acme', ['images', '-q', 'shop_web'])).stdout).toBe('');
    expect((await node.docker('acme', ['network', 'ls', '-q', '--filter', 'type=custom'])).stdout).toBe('');
  });
});
