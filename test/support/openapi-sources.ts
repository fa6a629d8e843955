/**
 * The published OpenAPI documents of Docker's API, got at test time and kept in a cache outside of the repository.
 *
 * Debian's source package of Docker is the one that must be there: it describes the API that Debian's dockerd speaks, 1.41 on Debian 12.
 * Moby's own module for Go has 1.25 to 1.44; without `go` or its proxy the run goes on without them and says so.
 */
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import * as z from 'zod';
import { reasonOf } from '#errors';
import { run } from './node.ts';

const CACHE = fileURLToPath(new URL('../../node_modules/.cache/docker-openapi', import.meta.url));
/** Only its one file is unpacked: to install it would bring 260 packages along. */
const DEBIAN_PACKAGE = 'golang-github-docker-docker-dev';
const DEBIAN_FILE = './usr/share/gocode/src/github.com/docker/docker/api/swagger.yaml';
/** The first releases whose documents go to 1.44. */
const GO_MODULE = 'github.com/docker/docker@v25.0.6+incompatible';
const FETCH_LIMIT_MS = 120_000;

const documentSchema = z.looseObject({ swagger: z.literal('2.0'), info: z.looseObject({ version: z.string() }) });

export type SwaggerDocument = Readonly<Record<string, unknown>>;

export interface PublishedApi {
  /** By API version, `1.41`. */
  readonly documents: ReadonlyMap<string, SwaggerDocument>;
  /** What could not be had, one line each. */
  readonly leftOut: readonly string[];
}

async function must(
  program: string,
  args: readonly string[],
  options: { readonly cwd?: string; readonly env?: NodeJS.ProcessEnv } = {},
): Promise<string> {
  const { cwd, env } = options;
  // `env -C` because the common runner has no working directory.
  const answer = await run('env', [...(cwd === undefined ? [] : ['-C', cwd]), program, ...args], {
    timeoutMs: FETCH_LIMIT_MS,
    ...(env === undefined ? {} : { env }),
  });
  if (answer.exitCode !== 0)
    throw new Error(`${program} ${args.join(' ')}: ${(answer.stderr || answer.stdout).trim().slice(-500)}`);
  return answer.stdout;
}

/** Old documents have quoted texts that go on in lines too little indented, which Go's parser takes and YAML does not. Joins them. Pure. */
function repaired(yaml: string): string {
  const opens = /^\s*(?:- )?[\w$-]+: +"(?:[^"\\]|\\.)*$/;
  const lines: string[] = [];
  let isOpen = false;
  for (const line of yaml.split('\n')) {
    if (isOpen) {
      lines.push(`${lines.pop() ?? ''} ${line.trim()}`);
      isOpen = !/(?<!\\)"\s*$/.test(line);
    } else {
      lines.push(line);
      isOpen = opens.test(line);
    }
  }
  return lines.join('\n');
}

/** Written whole or not at all, as JSON: parsing the YAML of all versions takes 20 s. */
async function keep(kind: string, yaml: string): Promise<void> {
  const document = documentSchema.parse(parse(repaired(yaml), { maxAliasCount: 0, logLevel: 'error' }));
  const file = join(CACHE, `${kind}-${document.info.version}.json`);
  await writeFile(`${file}.new`, JSON.stringify(document));
  await rename(`${file}.new`, file);
}

async function fetchDebian(folder: string): Promise<void> {
  const download = async (): Promise<string> => await must('apt-get', ['-q', 'download', DEBIAN_PACKAGE], { cwd: folder });
  try {
    await download();
  } catch {
    await must('apt-get', ['-q', 'update']); // The lists may be older than the mirror, or not there at all.
    await download();
  }
  const archive = (await readdir(folder)).find((name) => name.endsWith('.deb')) ?? '';
  await must('sh', ['-c', `dpkg-deb --fsys-tarfile "$1" | tar -x "$2"`, 'sh', archive, DEBIAN_FILE], { cwd: folder });
  await keep('debian', await readFile(join(folder, DEBIAN_FILE), 'utf8'));
}

async function fetchGoModule(folder: string): Promise<void> {
  const env = { ...process.env, GOMODCACHE: join(folder, 'modules'), GOFLAGS: '-modcacherw' };
  const answer = z
    .object({ Dir: z.string() })
    .parse(JSON.parse(await must('go', ['mod', 'download', '-json', GO_MODULE], { cwd: folder, env })));
  const documents = join(answer.Dir, 'docs', 'api');
  const names = (await readdir(documents)).filter((name) => name.endsWith('.yaml'));
  for (const name of names) await keep('moby', await readFile(join(documents, name), 'utf8'));
}

async function cached(kind: string): Promise<readonly string[]> {
  const names = await readdir(CACHE).catch(() => []);
  return names.filter((name) => name.startsWith(`${kind}-`) && name.endsWith('.json'));
}

/** Fetches a kind where the cache has none of it. */
async function ensure(kind: string, fetch: (folder: string) => Promise<void>): Promise<void> {
  if ((await cached(kind)).length > 0) return;
  await mkdir(CACHE, { recursive: true });
  const folder = await mkdtemp(join(tmpdir(), 'ecl-openapi-'));
  try {
    await fetch(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function readCached(kind: string): Promise<readonly (readonly [string, SwaggerDocument])[]> {
  const documents = (await cached(kind)).map(async (name): Promise<readonly [string, SwaggerDocument]> => {
    const document = documentSchema.parse(JSON.parse(await readFile(join(CACHE, name), 'utf8')));
    return [document.info.version, document];
  });
  return await Promise.all(documents);
}

/** All documents that can be had. Debian's must be. */
export async function publishedApi(): Promise<PublishedApi> {
  await ensure('debian', fetchDebian);
  const leftOut: string[] = [];
  try {
    await ensure('moby', fetchGoModule);
  } catch (error) {
    leftOut.push(`the documents of moby's Go module (API 1.25 to 1.44): ${reasonOf(error)}`);
  }
  // Debian's own describes its dockerd, so it stands for its version.
  const documents = new Map([...(await readCached('moby')), ...(await readCached('debian'))]);
  return { documents, leftOut };
}
