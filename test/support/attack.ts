/**
 * Two tenants on one real node: `acme` attacks, `globex` has one of everything that can be attacked. What must hold after each attack: nothing
 * of globex changed, globex heard nothing, and acme has nothing that it was not given.
 */
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import type { TLSSocket } from 'node:tls';
import * as z from 'zod';
import { buffer } from 'node:stream/consumers';
import { pack } from 'tar-stream';
import { busyboxTar, connectTls, credentialsOf } from './docker-api.ts';
import type { ApiAnswer, ApiCall, Credentials } from './docker-api.ts';
import { engineState, theirState } from './attack-state.ts';
import { imageArchive } from './image-archive.ts';
import { addTenant, startNode } from './node.ts';
import { openSpeaker } from './speaker.ts';
import type { TestNode } from './node.ts';

export const ATTACKER = 'acme';
export const VICTIM = 'globex';

export type Kind = 'container' | 'image' | 'network' | 'volume' | 'exec';

export interface AttackWorld extends AsyncDisposable {
  readonly node: TestNode;
  readonly credentials: Credentials;
  /** The busybox root file system. */
  readonly rootFs: Buffer;
  /** As the attacker. */
  readonly ask: (call: ApiCall) => Promise<ApiAnswer>;
  /** Everything that was asked so. */
  readonly asked: readonly ApiCall[];
  /** Answers to it that say no in another form than Docker’s. */
  readonly misshapen: readonly string[];
  readonly askAsVictim: (call: ApiCall) => Promise<ApiAnswer>;
  /** Everything that the victim's objects can be called, by kind; the first is the whole id or the name. */
  readonly references: Readonly<Record<Kind, readonly string[]>>;
  /** What the victim heard since the last time that this was asked. */
  readonly heard: () => readonly string[];
  /** Streams that the victim holds open and that were cut. */
  readonly cut: () => readonly string[];
  /** The ids and names of everything that the attacker has. */
  readonly belongings: () => Promise<unknown>;
  /** All that the victim can see, and what the engine has. */
  readonly state: () => Promise<unknown>;
}

const idSchema = z.object({ Id: z.string() });
const HEX = /^(?:sha256:)?[0-9a-f]{4,64}$/;

/** A reference of the same shape that means nothing to anybody. */
export function strangerOf(reference: string): string {
  const pick = (alphabet: string): string => alphabet.charAt(randomInt(alphabet.length));
  const registry = /^docker\.io\/(?:library\/)?/.exec(reference)?.[0] ?? '';
  if (registry !== '') return registry + strangerOf(reference.slice(registry.length));
  const at = reference.lastIndexOf('sha256:');
  const [head, tail] = at === -1 ? ['', reference] : [reference.slice(0, at + 7), reference.slice(at + 7)];
  // Digits for digits: one of nothing but digits is a number to the builder.
  const letters = HEX.test(tail.toLowerCase()) ? 'abcdef' : 'abcdefghijklmnopqrstuvwxyz';
  // Not the prefix of an id by chance: its first digit differs, and the rest is random.
  const change = (letter: string, index: number): string => {
    if (!/[A-Za-z0-9]/.test(letter)) return letter;
    const alphabet = /\d/.test(letter) ? '0123456789' : letters;
    const drawn = pick(index === 0 ? alphabet.replace(letter.toLowerCase(), '') : alphabet);
    return /[A-Z]/.test(letter) ? drawn.toUpperCase() : drawn;
  };
  const stem = at > 0 ? strangerOf(reference.slice(0, at - 1)) + head.slice(at - 1) : head;
  return stem + tail.split('').map(change).join('');
}

/** What an answer says, whatever it was asked about: the reference is blanked, also where it stands encoded or in part. */
export function essence(answer: ApiAnswer, reference: string): unknown {
  const { date: _date, ...headers } = answer.headers;
  const spellings = [
    reference,
    encodeURIComponent(reference),
    reference.replace(/^\//, ''),
    reference.replace(/^.*sha256:/, ''),
    reference.split(':')[0] ?? '',
    reference.replace(/^docker\.io\/(?:library\/)?/, '').split(':')[0] ?? '',
  ];
  const blank = (text: string): string =>
    spellings.filter((spelling) => spelling !== '').reduce((rest, spelling) => rest.replaceAll(spelling, '‹reference›'), text);
  return { status: answer.status, headers: JSON.parse(blank(JSON.stringify(headers))) as unknown, text: blank(answer.text) };
}

/** An open stream of the victim's; its lines, and whether it was cut. */
class OpenStream {
  readonly #lines: string[] = [];
  #rest = '';
  #isCut = false;
  readonly name: string;
  readonly socket: TLSSocket;

  private constructor(name: string, socket: TLSSocket) {
    this.name = name;
    this.socket = socket;
    socket.setEncoding('utf8').on('data', (chunk: string) => {
      const lines = (this.#rest + chunk).split('\n');
      this.#rest = lines.pop() ?? '';
      this.#lines.push(...lines.filter((line) => line.startsWith('{')));
    });
    socket.on('close', () => {
      this.#isCut = true;
    });
  }

  static async open(node: TestNode, credentials: Credentials, path: string): Promise<OpenStream> {
    const socket = await connectTls(node, credentials);
    const stream = new OpenStream(path, socket);
    socket.write(`GET ${path} HTTP/1.1\r\nhost: localhost\r\n\r\n`);
    await once(socket, 'data');
    return stream;
  }

  take(): readonly string[] {
    return this.#lines.splice(0);
  }

  /** Forgets what came, once a line with this text did. */
  async drain(last: string): Promise<void> {
    const deadlineMs = Date.now() + 5000;
    while (!this.take().some((line) => line.includes(last))) {
      if (Date.now() > deadlineMs) throw new Error(`${this.name}: ${last} did not come`);
      await delay(10);
    }
  }

  get isCut(): boolean {
    return this.#isCut;
  }

  [Symbol.dispose](): void {
    this.socket.destroy();
  }
}

/** What an answer must be for the world to come about. */
async function made(ask: AttackWorld['ask'], call: ApiCall): Promise<string> {
  const answer = await ask(call);
  if (answer.status >= 300) throw new Error(`${call.method ?? 'GET'} ${call.path}: ${String(answer.status)} ${answer.text}`);
  return answer.text;
}

async function madeId(ask: AttackWorld['ask'], call: ApiCall): Promise<string> {
  return idSchema.parse(JSON.parse(await made(ask, call))).Id;
}

const post = (path: string, body?: unknown): ApiCall => ({ method: 'POST', path, ...(body === undefined ? {} : { body }) });

async function load(ask: AttackWorld['ask'], rootFs: Buffer, owner: string, repoTags: readonly string[]): Promise<void> {
  const config = { Env: [`WHO=${owner}`], Cmd: ['sleep', '3600'], Labels: { owner } };
  const body = await imageArchive({ repoTags, rootFs, config });
  await made(ask, { ...post('/images/load', body), headers: { 'content-type': 'application/x-tar' } });
}

/** A tar with one file, the same each time. */
export async function tarWith(name: string, text: string): Promise<Buffer> {
  const packing = pack();
  packing.entry({ name, mtime: new Date(0) }, text);
  packing.finalize();
  return await buffer(packing);
}

/** The victim's layer, byte for byte: whoever has the same bytes must not learn that the victim has them. */
export const RARE = 'ingot'.repeat(1000);

/** A build step that the victim made on an image that anybody can have. */
export function dockerfileOf(base: string): string {
  return `FROM ${base}\nLABEL mined=yes\n`;
}

/** One of everything. Names are words that nothing else has in it. */
async function furnish(ask: AttackWorld['ask'], rootFs: Buffer): Promise<AttackWorld['references']> {
  await load(ask, rootFs, VICTIM, ['quartz:7', 'mica/feldspar:9']);
  await load(ask, await tarWith('rare', RARE), VICTIM, ['opal:1']);
  const dockerfile = await tarWith('Dockerfile', dockerfileOf('quartz:7'));
  await made(ask, { ...post('/build?t=garnet:1', dockerfile), headers: { 'content-type': 'application/x-tar' } });
  const network = await madeId(ask, post('/networks/create', { Name: 'basaltnet', Labels: { vein: 'gold' } }));
  await made(ask, post('/volumes/create', { Name: 'oredata', Labels: { vein: 'gold' } }));
  const container = await madeId(
    ask,
    post('/containers/create?name=granite', {
      Image: 'quartz:7',
      Cmd: ['sh', '-c', 'echo ingot >/ore/file; echo ingot; exec sleep 3600'],
      Labels: { vein: 'gold' },
      HostConfig: { NetworkMode: 'basaltnet', Binds: ['oredata:/ore'], PortBindings: { '80/tcp': [{ HostPort: '' }] } },
    }),
  );
  await made(ask, post('/containers/granite/start'));
  await made(ask, post('/containers/create?name=marble', { Image: 'quartz:7', Cmd: ['sh', '-c', 'echo nugget; exit 3'] }));
  await made(ask, post('/containers/marble/start'));
  await made(ask, post('/containers/marble/wait'));
  await made(ask, post('/containers/create?name=slate', { Image: 'quartz:7' }));
  const exec = await madeId(ask, post('/containers/granite/exec', { Cmd: ['sleep', '3600'], AttachStdout: true }));
  await made(ask, post(`/exec/${exec}/start`, { Detach: true }));
  const image = idSchema.parse(JSON.parse(await made(ask, { path: '/images/quartz:7/json' }))).Id;
  const hex = image.replace('sha256:', '');
  return {
    container: [
      container,
      container.slice(0, 12),
      container.slice(0, 5),
      'granite',
      '/granite',
      container.toUpperCase(),
      'marble',
      'slate',
    ],
    image: [
      image,
      hex,
      hex.slice(0, 12),
      hex.slice(0, 5),
      'quartz:7',
      'docker.io/library/quartz:7',
      'mica/feldspar:9',
      `quartz@${image}`,
    ],
    network: [network, network.slice(0, 12), network.slice(0, 5), 'basaltnet', network.toUpperCase()],
    volume: ['oredata', 'OREDATA', 'oredat'],
    exec: [exec, exec.slice(0, 12), exec.toUpperCase()],
  };
}

/** What the attacker works with. */
async function furnishOwn(ask: AttackWorld['ask'], rootFs: Buffer): Promise<void> {
  await load(ask, rootFs, ATTACKER, ['own:1']);
  await made(ask, post('/networks/create', { Name: 'ownnet' }));
  await made(ask, post('/volumes/create', { Name: 'owndata' }));
  await made(ask, post('/containers/create?name=ownbox', { Image: 'own:1', HostConfig: { NetworkMode: 'ownnet' } }));
  await made(ask, post('/containers/ownbox/start'));
}

const namedSchema = z.array(z.looseObject({ Id: z.string() }));
const volumesSchema = z.object({ Volumes: z.array(z.object({ Name: z.string() })).nullable() });

async function belongingsOf(ask: AttackWorld['ask']): Promise<unknown> {
  const ids = async (path: string, ...fields: readonly string[]): Promise<readonly string[]> => {
    const list = namedSchema.parse(JSON.parse(await made(ask, { path })));
    return list.map((item) => JSON.stringify([item.Id, ...fields.map((field) => item[field])])).toSorted();
  };
  const [containers, networks, images, volumes] = await Promise.all([
    ids('/containers/json?all=1', 'Names', 'State'),
    ids('/networks', 'Name'),
    ids('/images/json?all=1', 'RepoTags'),
    made(ask, { path: '/volumes' }),
  ]);
  return {
    containers,
    networks,
    images,
    volumes: (volumesSchema.parse(JSON.parse(volumes)).Volumes ?? []).map(({ Name }) => Name).toSorted(),
  };
}

const errorSchema = z.strictObject({ message: z.string().min(1) });

function isError({ headers, text }: ApiAnswer): boolean {
  if (headers['content-type']?.startsWith('application/json') !== true) return false;
  try {
    return errorSchema.safeParse(JSON.parse(text)).success;
  } catch {
    return false;
  }
}

export async function openAttackWorld(): Promise<AttackWorld> {
  await using stack = new AsyncDisposableStack();
  const node = stack.use(await startNode({ hosts: ['a'] }));
  for (const tenant of [ATTACKER, VICTIM]) await addTenant(node, tenant);
  const credentials = await credentialsOf(node, ATTACKER);
  const victimCredentials = await credentialsOf(node, VICTIM);
  const attacker = stack.use(openSpeaker(node, credentials));
  const victim = stack.use(openSpeaker(node, victimCredentials));
  const rootFs = await busyboxTar(node.dataDir);
  const references = await furnish(victim.ask, rootFs);
  await furnishOwn(attacker.ask, rootFs);
  const paths = ['/events', '/containers/granite/logs?follow=1&stdout=1', '/containers/granite/stats'];
  const streams: OpenStream[] = [];
  for (const path of paths) streams.push(stack.use(await OpenStream.open(node, victimCredentials, path)));
  const asked: ApiCall[] = [];
  const misshapen: string[] = [];
  const owned = stack.move();
  return {
    node,
    credentials,
    rootFs,
    ask: async (call) => {
      asked.push({ method: call.method ?? 'GET', path: call.path });
      const answer = await attacker.ask(call);
      if (answer.status >= 400 && call.method !== 'HEAD' && !isError(answer)) {
        misshapen.push(`${call.method ?? 'GET'} ${call.path}: ${String(answer.status)} ${answer.text.slice(0, 200)}`);
      }
      return answer;
    },
    asked,
    misshapen,
    askAsVictim: victim.ask,
    references,
    heard: () => streams[0]?.take() ?? [],
    cut: () => streams.filter((stream) => stream.isCut).map((stream) => stream.name),
    belongings: async () => await belongingsOf(attacker.ask),
    state: async () => {
      const state = { theirs: await theirState(victim.ask, references), engine: await engineState(node) };
      await streams[0]?.drain('"Action":"top"'); // The victim's own looks at its container are news for it; this is the last.
      return state;
    },
    [Symbol.asyncDispose]: async () => {
      await owned.disposeAsync();
    },
  };
}
