/** The progress of an engine's long work, line by line: read with limits, and rebuilt from an allow-list for tenants. */
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import * as z from 'zod';
import { tryJson } from '#json';
import { withoutEnginePaths } from './engine-client.ts';

const LINE_CHARS_MAX = 64 * 1024;

const lineSchema = z.record(z.string(), z.unknown());
export type ProgressLine = Readonly<Record<string, unknown>>;
/** Takes a line to where it is read; resolves when there is room for the next. */
export type ProgressSink = (line: ProgressLine) => Promise<void>;

const progressSchema = z.object({
  status: z.string(),
  id: z.string().optional(),
  progress: z.string().optional(),
  progressDetail: z.object({ current: z.number().optional(), total: z.number().optional() }).optional(),
});

/** The JSON lines of a progress stream. An engine that writes something else here says nothing that we could use. */
export async function* jsonLines(stream: Readable): AsyncGenerator<ProgressLine> {
  for await (const line of createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY })) {
    if (line.trim() === '' || line.length > LINE_CHARS_MAX) continue;
    const parsed = lineSchema.safeParse(tryJson(line));
    if (parsed.success) yield parsed.data;
  }
}

/** A failure in a progress stream, as Docker writes it. */
export function errorLine(message: string): ProgressLine {
  const told = withoutEnginePaths(message);
  return { errorDetail: { message: told }, error: told };
}

/** An engine's progress line, rebuilt, with the engine's names replaced; undefined for a line of another kind. */
export function progressLine(line: ProgressLine, rename: (text: string) => string = (text) => text): ProgressLine | undefined {
  const parsed = progressSchema.safeParse(line);
  if (!parsed.success) return undefined;
  const { status, id, progress, progressDetail } = parsed.data;
  return {
    status: rename(status),
    ...(progressDetail === undefined ? {} : { progressDetail }),
    ...(progress === undefined ? {} : { progress }),
    ...(id === undefined ? {} : { id: rename(id) }),
  };
}

/** Why an engine's work failed, if the line says so. */
export function failureOf(line: ProgressLine): string | undefined {
  return typeof line['error'] === 'string' ? line['error'] : undefined;
}
