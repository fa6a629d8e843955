/**
 * The documents are true: their commands run, their configurations load, their links lead somewhere.
 *
 * Every `sh` block runs as it stands, all blocks of a document in one shell and in order, as a reader types them. Only the demo's ports are
 * replaced by the test's, where they follow `localhost` or `127.0.0.1`. The first command that fails ends a document. A block that cannot
 * run here says why, in a word after `sh`.
 */
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { loadConfig } from '#config';
import { anchorsOf, fencedBlocks, relativeLinks } from '../../support/doc-examples.ts';
import { run, startNode } from '../../support/node.ts';
import type { NodePorts, TestNode } from '../../support/node.ts';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));

/** Why an `sh` block is not run. */
const NOT_RUN: ReadonlySet<string> = new Set([
  'as-root-once', // It installs on the machine, or takes the ports of a real node.
  'in-checkout', // It runs the checks and tests themselves.
  'interactive', // It ends by Ctrl-C only.
  'needs-systemd',
  'other-machine', // It needs what this machine does not have.
]);
/** What a `yaml` block is, where it is no configuration of a node. None so far. */
const OTHER_YAML: ReadonlySet<string> = new Set<string>();
/** Blocks that are shown and not executed. `sh` is the only language of commands. */
const LANGUAGES: ReadonlySet<string> = new Set(['sh', 'yaml', 'json', 'text', 'ini']);

/** On a busy machine the longest guide took 80 s. */
const DOCUMENT_LIMIT_MS = 240_000;

async function documents(): Promise<readonly string[]> {
  const below = await readdir(join(ROOT, 'docs'), { recursive: true });
  return [
    'README.md',
    ...below
      .filter((name) => name.endsWith('.md'))
      .toSorted()
      .map((name) => join('docs', name)),
  ];
}

const DOCUMENTS = await documents();

async function textOf(document: string): Promise<string> {
  return await readFile(join(ROOT, document), 'utf8');
}

function withPorts(script: string, ports: NodePorts): string {
  const byDefault: Readonly<Record<string, number>> = {
    8080: ports.http,
    8443: ports.https,
    2376: ports.docker,
    9180: ports.metrics,
  };
  return script.replaceAll(/((?:localhost|127\.0\.0\.1):)(\d+)\b/g, (all, host: string, port: string) =>
    byDefault[port] === undefined ? all : `${host}${String(byDefault[port])}`,
  );
}

/** One script of all blocks that run; each says its line first, so that the one that failed can be named. */
function scriptOf(markdown: string): string {
  const blocks = fencedBlocks(markdown).filter(({ language, words }) => language === 'sh' && words.length === 0);
  return blocks.map(({ line, text }) => `echo '>>> line ${String(line)}' >&2\n${text}`).join('');
}

test.each(DOCUMENTS)('%s: every block says what it is', async (document) => {
  const faults = fencedBlocks(await textOf(document)).flatMap(({ line, language, words }) => {
    const allowed = language === 'sh' ? NOT_RUN : language === 'yaml' ? OTHER_YAML : new Set<string>();
    const unknown = LANGUAGES.has(language) ? words.filter((word) => !allowed.has(word)) : [language];
    return unknown.map((word) => `line ${String(line)}: "${word}"`);
  });
  expect(faults).toEqual([]);
});

test.each(DOCUMENTS)('%s: every link leads to a file or a heading', async (document) => {
  const faults: string[] = [];
  for (const { line, target } of relativeLinks(await textOf(document))) {
    const [path = '', anchor] = target.split('#', 2);
    const file = path === '' ? join(ROOT, document) : resolve(ROOT, dirname(document), path);
    const isKnown = existsSync(file) && (anchor === undefined || anchorsOf(await readFile(file, 'utf8')).has(anchor));
    if (!isKnown) faults.push(`line ${String(line)}: ${target}`);
  }
  expect(faults).toEqual([]);
});

test.each(DOCUMENTS)('%s: every configuration loads', async (document) => {
  const folder = await mkdtemp('/tmp/ecl-docs-');
  try {
    for (const { language, words, line, text } of fencedBlocks(await textOf(document))) {
      if (language !== 'yaml' || words.length > 0) continue;
      const file = join(folder, `line-${String(line)}.yaml`);
      await writeFile(file, text);
      const none = { http: undefined, https: undefined, docker: undefined, metrics: undefined };
      await expect(loadConfig({ file, dataDir: undefined, demo: false, overrides: none })).resolves.toBeDefined();
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

const withCommands: string[] = [];
for (const document of DOCUMENTS) if (scriptOf(await textOf(document)) !== '') withCommands.push(document);

let node: TestNode | undefined;

beforeAll(async () => {
  node = await startNode({ demo: true });
});

afterAll(async () => {
  await node?.[Symbol.asyncDispose]();
});

test.each(withCommands)('%s: every command does what it says', async (document) => {
  if (node === undefined) throw new Error('there is no node');
  // A home of its own: contexts and credentials of whoever runs the tests stay as they are.
  const home = join(node.dataDir, 'reader', document.replaceAll('/', '-'));
  await mkdir(home, { recursive: true });
  const env = {
    PATH: `${join(ROOT, 'bin')}:${process.env['PATH'] ?? ''}`,
    HOME: home,
    DOCKER_CONFIG: join(home, '.docker'),
    DOCKER_HOST: 'unix:///nowhere', // Until the document says otherwise: never a Docker of this machine.
    ECLUSE_DATA: node.dataDir,
    LC_ALL: 'C',
  };
  // The README is read in the checkout; what the guides write goes to a folder of their own.
  const folder = document === 'README.md' ? ROOT : home;
  const script = `set -euo pipefail\ncd '${folder}'\n${withPorts(scriptOf(await textOf(document)), node.ports)}`;
  const { exitCode, stdout, stderr } = await run('bash', ['-c', script], { env, timeoutMs: DOCUMENT_LIMIT_MS });
  expect(exitCode, `${document}: the last line named below failed\n${stderr}\n--- it had printed\n${stdout}`).toBe(0);
});
