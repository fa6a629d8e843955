/**
 * An engine's build output as the tenant sees it: each line is parsed and built anew, and what was put into the Dockerfile (image ids) is
 * taken back to what the tenant wrote. Pure.
 */
import * as z from 'zod';
import { tryJson } from '#json';
import { withoutEnginePaths } from '#caas/engine/engine-client.ts';
import { ENGINE_DOCKERFILE } from './build-context.ts';
import type { RewrittenDockerfile } from './dockerfile-rewrite.ts';

/** One line of the answer, in Docker's form. */
export type BuildLine = Readonly<Record<string, unknown>>;

export type EngineLine =
  | { readonly kind: 'output'; readonly text: string }
  /** A stage is done; its image. */
  | { readonly kind: 'stage'; readonly imageId: string }
  | { readonly kind: 'failure'; readonly code: number | undefined; readonly message: string };

/** Output of one RUN comes in pieces of 32 KiB, which JSON may write six times as long. */
export const ENGINE_LINE_CHARS_MAX = 1024 * 1024;

const lineSchema = z.union([
  z.object({ stream: z.string() }),
  z.object({ aux: z.object({ ID: z.string().regex(/^sha256:[0-9a-f]{64}$/) }) }),
  z.object({ error: z.string(), errorDetail: z.object({ code: z.int().optional(), message: z.string() }).optional() }),
]);

/** An engine's line; undefined where it says nothing that we pass on. */
export function parseEngineLine(line: string): EngineLine | undefined {
  const parsed = lineSchema.safeParse(tryJson(line));
  if (!parsed.success) return undefined;
  const { data } = parsed;
  if ('stream' in data) return { kind: 'output', text: data.stream };
  if ('aux' in data) return { kind: 'stage', imageId: data.aux.ID };
  return { kind: 'failure', code: data.errorDetail?.code, message: data.errorDetail?.message ?? data.error };
}

/** The engine says that it removed a step's container. */
export function isRemoval(line: EngineLine): boolean {
  return line.kind === 'output' && /^Removing intermediate container [0-9a-f]{12}\n$/.test(line.text);
}

/** Takes back what the rewriting put in. */
export class OriginalWords {
  readonly #rewritten: Pick<RewrittenDockerfile, 'originals' | 'names'>;
  readonly #dockerfile: string;

  constructor(rewritten: Pick<RewrittenDockerfile, 'originals' | 'names'>, dockerfile: string) {
    this.#rewritten = rewritten;
    this.#dockerfile = dockerfile;
  }

  /** Announcements of steps show the instruction as the tenant wrote it. Other output is the tenant's own. */
  output(text: string): string {
    const [, step = '', instruction = ''] = /^(Step \d+\/\d+ : )(.*)$/s.exec(text) ?? [];
    if (step === '') return text;
    const bare = instruction.replace(/\n$/, '');
    const original = this.#rewritten.originals.get(bare);
    return original === undefined ? text : `${step}${original}${instruction.slice(bare.length)}`;
  }

  failure(message: string): string {
    let told = withoutEnginePaths(message).replaceAll(ENGINE_DOCKERFILE, this.#dockerfile);
    for (const [id, name] of this.#rewritten.names) told = told.replaceAll(`sha256:${id}`, name).replaceAll(id, name);
    // Networks of tenants are engine networks of that name.
    return told.replaceAll(/\becluse-[0-9a-f]{6}-[a-z0-9-]+/g, 'default');
  }
}

export function failureLine(message: string, code?: number): BuildLine {
  return { errorDetail: { ...(code === undefined ? {} : { code }), message }, error: message };
}
