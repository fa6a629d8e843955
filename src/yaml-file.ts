/** Files that people write: read with a limit, parsed, and every value known by its line. */
import { open } from 'node:fs/promises';
import { LineCounter, isNode, parseDocument } from 'yaml';
import type { Document } from 'yaml';
import { EcluseError, codeOf, reasonOf } from '#errors';
import { pathText } from '#json';

export interface YamlFile {
  readonly name: string;
  readonly value: unknown;
  /** Absent: it was JSON, whose lines are not known. */
  readonly source: { readonly document: Document; readonly lines: LineCounter } | undefined;
}

export interface YamlFileOptions {
  readonly bytesMax: number;
  /** What to look at where the file cannot be read: `check what --config says`. */
  readonly mend: string;
}

/** More problems than these are one mistake, seen many times. */
const PROBLEMS_MAX = 20;
/** Parsing YAML of this size takes a second; what a program wrote is JSON, and goes the short way. */
const JSON_FROM_BYTES = 1024 * 1024;

/** One line a problem. */
export function configInvalid(problems: readonly string[], mend?: string, cause?: unknown): EcluseError {
  const shown = problems.slice(0, PROBLEMS_MAX);
  if (problems.length > shown.length) shown.push(`and ${String(problems.length - shown.length)} more problems`);
  return new EcluseError({
    code: 'ECLUSE_CONFIG_INVALID',
    source: 'config',
    message: shown.join('\n'),
    status: 400,
    cause,
    ...(mend === undefined ? {} : { mend }),
  });
}

/** Errors: ECLUSE_CONFIG_INVALID. */
export async function readYamlFile(path: string, options: YamlFileOptions): Promise<YamlFile> {
  const text = await readText(path, options);
  if (text.length > JSON_FROM_BYTES && text.trimStart().startsWith('{')) {
    try {
      return { name: path, value: JSON.parse(text), source: undefined };
    } catch {
      // It is YAML that begins like JSON, or neither: the parser of YAML says where.
    }
  }
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, logLevel: 'error', prettyErrors: false });
  const faults = document.errors.map((error) => {
    const { line, col } = lines.linePos(error.pos[0]);
    return `${path}:${String(line)}: not YAML: ${reasonOf(error)} (column ${String(col)})`;
  });
  if (faults.length > 0) throw configInvalid(faults);
  try {
    // An empty file is an empty mapping: every key is optional.
    return { name: path, value: document.toJS() ?? {}, source: { document, lines } };
  } catch (error) {
    throw configInvalid([`${path}: not YAML: ${reasonOf(error)}`], undefined, error);
  }
}

/** Reads at most one byte more than is allowed, from whatever the path is: a pipe (`--config <(…)`) has no size to ask for. */
async function readBounded(path: string, bytesMax: number): Promise<Buffer> {
  await using handle = await open(path);
  const chunks: Buffer[] = [];
  let length = 0;
  while (length <= bytesMax) {
    const buffer = Buffer.allocUnsafe(Math.min(bytesMax + 1 - length, JSON_FROM_BYTES));
    const { bytesRead } = await handle.read(buffer, 0, buffer.length);
    if (bytesRead === 0) break;
    chunks.push(buffer.subarray(0, bytesRead));
    length += bytesRead;
  }
  return Buffer.concat(chunks);
}

async function readText(path: string, { bytesMax, mend }: YamlFileOptions): Promise<string> {
  let bytes: Buffer;
  try {
    bytes = await readBounded(path, bytesMax);
  } catch (error) {
    const why: Readonly<Record<string, string>> = {
      ENOENT: 'no such file',
      EISDIR: 'it is a directory',
      EACCES: 'this user may not read it',
    };
    throw configInvalid([`${path}: ${why[codeOf(error) ?? ''] ?? reasonOf(error)}`], mend, error);
  }
  if (bytes.length > bytesMax) {
    const most = `${String(bytesMax / 1024 ** 2)} MiB`;
    throw configInvalid([`${path}: the file has more than ${most}`], `${mend}: a configuration is much smaller`);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    throw configInvalid([`${path}: the file is not UTF-8 text`], mend, error);
  }
}

/** The line of a value, or of the nearest thing around it; 0 where the file has none (a flag set it). */
export function lineOf(path: readonly PropertyKey[], file: YamlFile | undefined): number {
  if (file?.source === undefined) return 0;
  const { document, lines } = file.source;
  const node = path.length === 0 ? document.contents : document.getIn(path, true);
  const start = isNode(node) ? node.range?.[0] : undefined;
  if (start !== undefined) return lines.linePos(start).line;
  return path.length === 0 ? 0 : lineOf(path.slice(0, -1), file);
}

/** A problem at its place in a file. */
export function placedProblem(
  file: YamlFile | undefined,
  path: readonly PropertyKey[],
  why: string,
): { readonly line: number; readonly text: string } {
  const line = lineOf(path, file);
  const place = `${file?.name ?? 'command line'}${line === 0 ? '' : `:${String(line)}`}`;
  return { line, text: path.length === 0 ? `${place}: ${why}` : `${place}: ${pathText(path)}: ${why}` };
}
