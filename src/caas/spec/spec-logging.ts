/**
 * How a container logs: `HostConfig.LogConfig`. Pure. Other drivers than json-file would let the host speak to the network, or write elsewhere on it;
 * rotation is always on, as a log is the one thing that a container writes outside of its own files.
 */
import * as z from 'zod';
import { parseSizeBytes } from '#units';
import { foldFields } from '#caas/docker-api/go-json.ts';
import type { SpecRefusal } from './spec-refusal.ts';

export type LoggingResult = { readonly kind: 'logging'; readonly options: Readonly<Record<string, string>> } | SpecRefusal;

const FILE_BYTES_MAX = 10 * 1024 * 1024;
const FILES_MAX = 3;
/** What the engine gets as it was asked for: which labels and variables `docker logs --details` shows. */
const PASSED = ['labels', 'env', 'labels-regex', 'env-regex'];
/** Taken, and answered by what the platform does anyway. */
const ACCEPTED = ['max-size', 'max-file', 'compress', 'mode', 'max-buffer-size', ...PASSED];

const optionsSchema = z.record(z.string().max(100), z.string().max(1024)).nullish();

function refused(reason: string, isWhole: boolean): SpecRefusal {
  return { kind: 'refused', status: isWhole ? 400 : 403, reason, ...(isWhole ? { isWhole: true as const } : {}) };
}

export function parseLogging(raw: unknown): LoggingResult {
  const folded = foldFields(raw, 'HostConfig.LogConfig', ['Type', 'Config']);
  if (folded.kind === 'refused') return refused(folded.reason, false);
  const type = folded.fields['Type'] ?? '';
  if (type !== '' && type !== 'json-file') return refused('HostConfig.LogConfig.Type: only json-file is supported', false);
  const options = optionsSchema.safeParse(folded.fields['Config']);
  if (!options.success) return refused('HostConfig.LogConfig.Config must be a map of texts', false);
  const unknown = Object.keys(options.data ?? {}).find((key) => !ACCEPTED.includes(key));
  if (unknown === 'tag')
    return refused('HostConfig.LogConfig.Config.tag is not supported: it would show names of the host', false);
  if (unknown !== undefined) return refused(`unknown log opt '${unknown.slice(0, 60)}' for json-file log driver`, true);
  return { kind: 'logging', options: options.data ?? {} };
}

function sizeOf(text: string | undefined): number {
  try {
    return text === undefined ? FILE_BYTES_MAX : Math.min(FILE_BYTES_MAX, Math.max(1, parseSizeBytes(text)));
  } catch {
    return FILE_BYTES_MAX; // Docker's own words for what is no size would come from the engine; the platform's size holds.
  }
}

/** The engine's `LogConfig`: what was asked for, but never more than the platform's own rotation. */
export function engineLogConfig(options: Readonly<Record<string, string>>): Readonly<Record<string, unknown>> {
  const files = Number(options['max-file'] ?? FILES_MAX);
  const passed = Object.entries(options).filter(([key]) => PASSED.includes(key));
  return {
    Type: 'json-file',
    Config: {
      'max-size': String(sizeOf(options['max-size'])),
      'max-file': String(Number.isInteger(files) && files >= 1 ? Math.min(files, FILES_MAX) : FILES_MAX),
      ...Object.fromEntries(passed),
    },
  };
}
