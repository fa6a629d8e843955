/**
 * Are the bytes that are billed the bytes that went through the sockets?
 *
 * A real node and a container in gVisor that is asked in every way in which bytes move: short requests on kept connections, large bodies in both directions,
 * chunked ones, downloads that their clients break off, upgraded connections, and a published TCP port. Beside it the kernel's own counters (`tcp_info`,
 * which `ss` shows) of each connection that anybody has with the container: at its end, for the kernel tells of each socket that is destroyed, or at
 * the end of the run. The ledger is read from the node's store. What a socket had received and nobody
 * ever read, because its client had gone, is told apart: nobody got it, and it is not billed. A connection's end counts as one byte for the kernel.
 *
 * `--scale N` (1): how much moves. JSON at the end; exit code 1 where they differ by a thousandth.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { Agent, request } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import * as z from 'zod';
import { runCommand } from '#command';
import { DEMO_IMAGE_CHANGES, writeDemoImage } from '../src/demo-image.ts';
import { addTenant, freePort, startNode } from '../test/support/node.ts';
import type { TestNode } from '../test/support/node.ts';
import { machine, versions } from './machine.ts';

const { values } = parseArgs({ options: { scale: { type: 'string', default: '1' } } });
const SCALE = Number(values.scale);
const MIB = 1024 * 1024;
const TENANT = 'acme';
const HOST = 'bytes.localhost';
/** Until the worker has told it, the meter has written it, and idle connections have ended. */
const SETTLE_MS = 13_000;
const bufferSchema = z.instanceof(Buffer);
/** Of what is asked below at scale 1: counters that show less did not see it. */
const INGRESS_MIN = 150 * MIB;
const EGRESS_MIN = 400 * MIB;
const DIFFERENCE_MAX = 0.001;

interface Bytes {
  readonly ingress: number;
  readonly egress: number;
}

/** What the kernel has counted; with one byte for each end (FIN) that was received. */
interface Counted extends Bytes {
  /** Of them: taken by the kernel and never acknowledged; received and never read. */
  readonly unsent: number;
  readonly unread: number;
}

/** A line of `ss`: of one connection. */
function connectionOf(line: string): Counted {
  const [, unread, unsent] = line.split(/\s+/).map(Number);
  const field = (name: string): number => Number(new RegExp(` ${name}:(\\d+)`).exec(line)?.[1] ?? 0);
  return {
    ingress: field('bytes_sent') - field('bytes_retrans'),
    egress: field('bytes_received'),
    unsent: unsent ?? 0,
    unread: unread ?? 0,
  };
}

/** The counters of all connections with an address. */
class KernelCounters implements AsyncDisposable {
  readonly #destroyed: ChildProcess;
  readonly #said: string[] = [];
  readonly #ended: Promise<unknown>;

  constructor() {
    // By the line: what would be kept until there is more of it is not heard.
    this.#destroyed = spawn('stdbuf', ['-oL', 'ss', '-E', '-tinHO'], { stdio: ['ignore', 'pipe', 'inherit'] });
    this.#ended = once(this.#destroyed, 'exit');
    this.#destroyed.stdout?.setEncoding('utf8').on('data', (text: string) => this.#said.push(text));
  }

  async of(address: string): Promise<Counted & { readonly connections: number }> {
    if (this.#destroyed.exitCode !== null || this.#destroyed.signalCode !== null)
      throw new Error('the reader of the kernel ended before its time');
    const stdout = await runCommand('ss', ['-tinHO', 'dst', address]);
    const lines = `${this.#said.join('')}\n${stdout}`.split('\n').filter((line) => {
      const [, , , , peer = ''] = line.split(/\s+/);
      return peer.replace(/^\[::ffff:(.*)\]/, '$1').startsWith(`${address}:`);
    });
    return lines.map(connectionOf).reduce<Counted & { readonly connections: number }>(
      (total, one) => ({
        connections: total.connections + 1,
        ingress: total.ingress + one.ingress,
        egress: total.egress + one.egress,
        unsent: total.unsent + one.unsent,
        unread: total.unread + one.unread,
      }),
      { connections: 0, ingress: 0, egress: 0, unsent: 0, unread: 0 },
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#destroyed.kill();
    await this.#ended;
  }
}

async function main(): Promise<void> {
  const tcpPort = await freePort();
  await using node = await startNode({ hosts: ['a'] });
  await addTenant(node, TENANT, '--domain', 'localhost');
  await using kernel = new KernelCounters();
  const { id, address } = await runApp(node, tcpPort);
  await untilAnswers(node);
  const moved: Record<string, number> = {};
  const agent = new Agent({ keepAlive: true, maxSockets: 20 });
  const load = { node, agent, tcpPort };
  for (const [name, work] of Object.entries(WORKS)) moved[name] = await work(load);
  agent.destroy();
  await sleep(SETTLE_MS);
  const counted = await kernel.of(address);
  const billed = billedOf(node, id);
  const offBy = {
    ingress: billed.ingress / counted.ingress - 1,
    egress: billed.egress / (counted.egress - counted.unread) - 1,
  };
  console.log(
    JSON.stringify(
      {
        question: 'are the bytes that are billed the bytes that went through the sockets',
        machine: machine(),
        versions: versions(),
        asked: moved,
        counted,
        billed,
        offBy,
      },
      undefined,
      2,
    ),
  );
  const isMeasured = counted.ingress > INGRESS_MIN * SCALE && counted.egress > EGRESS_MIN * SCALE;
  if (!isMeasured || !(Math.max(Math.abs(offBy.ingress), Math.abs(offBy.egress)) <= DIFFERENCE_MAX)) process.exitCode = 1;
}

interface Load {
  readonly node: TestNode;
  readonly agent: Agent;
  readonly tcpPort: number;
}

/** Each returns how often it did what it does. */
const WORKS: Readonly<Record<string, (load: Load) => Promise<number>>> = {
  'short requests': async (load) =>
    await each(4000, 20, async (index) => {
      await drained(await ask(load, `/${String((index * 37) % 20_000)}`));
    }),
  'large downloads': async (load) =>
    await each(20, 4, async () => {
      await drained(await ask(load, `/${String(16 * MIB)}`));
    }),
  'chunked downloads': async (load) =>
    await each(20, 4, async () => {
      await drained(await ask(load, `/chunked/${String(4 * MIB)}`));
    }),
  uploads: async (load) =>
    await each(20, 4, async () => {
      await drained(await ask(load, '/sink', Buffer.alloc(8 * MIB)));
    }),
  'downloads broken off': async (load) =>
    await each(20, 4, async () => {
      const response = await ask(load, `/${String(64 * MIB)}`);
      let bytes = 0;
      for await (const chunk of response) {
        bytes += bufferSchema.parse(chunk).length;
        if (bytes > 2 * MIB) break; // Which destroys the connection.
      }
    }),
  'upgraded connections': async ({ node }) =>
    await each(20, 10, async () => {
      const head = `GET / HTTP/1.1\r\nHost: ${HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${Buffer.alloc(16).toString('base64')}\r\n\r\n`;
      await echo(connect(node.ports.http, '127.0.0.1'), head);
    }),
  'a TCP port': async ({ tcpPort }) =>
    await each(20, 10, async () => {
      await echo(connect(tcpPort, '127.0.0.1'), '');
    }),
};

async function each(times: number, atOnce: number, work: (index: number) => Promise<void>): Promise<number> {
  const count = Math.max(1, Math.round(times * SCALE));
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < count) {
      next += 1;
      await work(next);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, lane));
  return count;
}

async function ask({ node, agent }: Load, path: string, body?: Buffer): Promise<IncomingMessage> {
  const sent = request({
    agent,
    host: '127.0.0.1',
    port: node.ports.http,
    path,
    method: body === undefined ? 'GET' : 'POST',
    headers: { host: HOST },
  });
  sent.end(body);
  const answered = Promise.withResolvers<IncomingMessage>();
  sent.once('response', answered.resolve).once('error', answered.reject);
  return await answered.promise;
}

async function drained(response: IncomingMessage): Promise<void> {
  response.resume();
  await once(response, 'end');
  if (response.statusCode !== 200) throw new Error(`answered with ${String(response.statusCode)}`);
}

/** Sends what comes back, a MiB of it, and ends. */
async function echo(socket: Socket, head: string): Promise<void> {
  socket.write(head);
  socket.write(Buffer.alloc(MIB, 'y'));
  let bytes = 0;
  for await (const chunk of socket) {
    bytes += bufferSchema.parse(chunk).length;
    if (bytes >= MIB + head.length) break;
    if (bytes >= MIB && !socket.writableEnded) socket.end();
  }
  socket.destroy();
}

async function runApp(node: TestNode, tcpPort: number): Promise<{ readonly id: string; readonly address: string }> {
  const archive = join(node.dataDir, 'image.tar');
  const text = await readFile(fileURLToPath(new URL('metering/programs/bytes-app.js', import.meta.url)), 'utf8');
  await writeDemoImage(archive, [{ kind: 'text', path: '/app/bytes-app.js', text }]);
  const changes = DEMO_IMAGE_CHANGES.map((change) => change.replace('hello.js', 'bytes-app.js'));
  const docker = async (...args: readonly string[]): Promise<string> => {
    const { exitCode, stdout, stderr } = await node.docker(TENANT, args);
    if (exitCode !== 0) throw new Error(stderr);
    return stdout.trim();
  };
  await docker('import', ...changes.flatMap((change) => ['--change', change]), archive, 'bytes');
  const labels = [`ecluse.http.host=${HOST}`, 'ecluse.http.port=8080'].flatMap((label) => ['--label', label]);
  const id = await docker('run', '-d', '--memory', '256m', '-p', `127.0.0.1:${String(tcpPort)}:9000`, ...labels, 'bytes');
  return { id, address: stringOf(node, `SELECT address AS value FROM container WHERE id = '${id}'`) };
}

async function untilAnswers(node: TestNode): Promise<void> {
  for (let tries = 0; tries < 100; tries += 1) {
    const socket = connect(node.ports.http, '127.0.0.1');
    socket.write(`GET /1 HTTP/1.1\r\nHost: ${HOST}\r\nConnection: close\r\n\r\n`);
    const [first] = z.tuple([bufferSchema]).parse(await once(socket, 'data'));
    socket.destroy();
    if (first.toString().startsWith('HTTP/1.1 200')) return;
    await sleep(200);
  }
  throw new Error('the app does not answer');
}

function stringOf(node: TestNode, sql: string): string {
  using store = new DatabaseSync(join(node.dataDir, 'ecluse.db'), { readOnly: true });
  return z.object({ value: z.string() }).parse(store.prepare(sql).get()).value;
}

function billedOf(node: TestNode, id: string): Bytes & { readonly requests: number } {
  using store = new DatabaseSync(join(node.dataDir, 'ecluse.db'), { readOnly: true });
  const sql =
    'SELECT SUM(ingress_bytes) AS ingress, SUM(egress_bytes) AS egress, SUM(requests) AS requests FROM ledger WHERE container = ?';
  return z.object({ ingress: z.number(), egress: z.number(), requests: z.number() }).parse(store.prepare(sql).get(id));
}

await main();
