/**
 * Programs with connections of their own, as to a database: a save resets them, and the program has to hear of it. Before a save was made again where it
 * met connections, one of three such programs never answered again (`src/isolation/sandbox-connections.ts`).
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import * as z from 'zod';
import { systemClock, waitFor } from '#clock';
import { ask } from '../../support/http-client.ts';
import { expectNothingLeft } from '../../support/leftovers.ts';
import { startNode } from '../../support/node.ts';
import type { TestNode } from '../../support/node.ts';

const CONNECTIONS = 8;
const ROUNDS = 10;
const HOST = 'client.localhost';
/** Answers what it gets. */
const SERVER = `require('net').createServer((s)=>{s.on('error',()=>{});s.on('data',(d)=>s.write(d))}).listen(7000)`;
/** Keeps its connections busy, and makes those that end anew; tells over HTTP how many are open, and how often it was asked. */
const CLIENT = `const net=require('net');let open=0;let asked=0;
const go=()=>{const s=net.connect(7000,'server');s.on('connect',()=>{open++;s.write('x');s.once('close',()=>open--)});
s.on('data',()=>setTimeout(()=>{if(!s.destroyed)s.write('x')},50));s.on('error',()=>{});s.on('close',()=>setTimeout(go,200))};
for(let i=0;i<${String(CONNECTIONS)};i++)go();
require('http').createServer((q,r)=>{asked++;r.end(JSON.stringify({asked,open}))}).listen(8080)`;

const placedSchema = z.array(z.object({ name: z.string(), host: z.string() }));
const toldSchema = z.object({ asked: z.int(), open: z.int() });

describe('a program with connections of its own', () => {
  let node: TestNode;

  const docker = async (...args: readonly string[]): Promise<string> => {
    const answer = await node.docker('demo', args);
    expect(answer.stderr).toBe('');
    return answer.stdout.trim();
  };
  const told = async (): Promise<z.infer<typeof toldSchema>> => {
    const answer = await ask({ port: node.ports.http, host: HOST, signal: AbortSignal.timeout(10_000) });
    return toldSchema.parse(JSON.parse(answer.body.toString()));
  };
  const allOpen = async (): Promise<void> => {
    const areOpen = async (): Promise<true | undefined> => ((await told()).open === CONNECTIONS ? true : undefined);
    expect(await waitFor(systemClock, areOpen, { limitMs: 15_000, stepMs: 250 })).toBe(true);
  };

  beforeAll(async () => {
    node = await startNode({ demo: true });
    await docker('network', 'create', 'inner');
    await docker('run', '-d', '--name', 'server', '--network', 'inner', '--entrypoint', 'node', 'hello', '-e', SERVER);
    const labels = ['--label', `ecluse.http.host=${HOST}`, '--label', 'ecluse.http.port=8080', '--expose', '8080'];
    await docker('run', '-d', '--name', 'client', '--network', 'inner', ...labels, '--entrypoint', 'node', 'hello', '-e', CLIENT);
    // Until it listens the edge answers for it.
    await waitFor(systemClock, async () => await told().catch(() => undefined), { limitMs: 15_000, stepMs: 250 });
    await allOpen();
  });

  afterAll(async () => {
    await node[Symbol.asyncDispose]();
    await expectNothingLeft(node.dataDir);
  });

  test('wakes, answers, and has its connections again, each time', { timeout: 180_000 }, async () => {
    for (let round = 0; round < ROUNDS; round += 1) {
      const { asked } = await told();
      expect((await node.ecluse('suspend', 'client')).stderr).toBe('');
      await sleep(200);
      expect((await told()).asked).toBeGreaterThan(asked); // Who probes is counted, too.
      await allOpen();
    }
  });

  test('moves, answers, and has its connections again, each time', { timeout: 180_000 }, async () => {
    for (let round = 0; round < ROUNDS; round += 1) {
      const { asked } = await told();
      const placed = placedSchema.parse(JSON.parse((await node.ecluse('ps', '--json')).stdout));
      const to = placed.find(({ name }) => name === 'client')?.host === 'a' ? 'b' : 'a';
      const moved = await node.ecluse('migrate', 'client', '--to', to);
      expect([moved.exitCode, moved.stderr]).toEqual([0, '']);
      expect((await told()).asked).toBeGreaterThan(asked);
      await allOpen();
    }
  });
});
