/** `scripts/verify-ledger.mjs` as a module: the program that tenants have, which knows nothing of ours. */
import { fileURLToPath } from 'node:url';
import * as z from 'zod';

export const VERIFIER = fileURLToPath(new URL('../../scripts/verify-ledger.mjs', import.meta.url));

const verdictSchema = z.object({ fits: z.boolean(), why: z.string().optional(), rows: z.number().optional() });
type Verdict = z.output<typeof verdictSchema>;

const moduleSchema = z.object({
  verifyExport: z.custom<(text: string, key?: string) => unknown>((value) => typeof value === 'function'),
  verifyPieces: z.custom<(pieces: Iterable<Buffer>, key?: string) => unknown>((value) => typeof value === 'function'),
});

export async function verifyText(text: string, key?: string): Promise<Verdict> {
  const module: unknown = await import(VERIFIER);
  return verdictSchema.parse(moduleSchema.parse(module).verifyExport(text, key));
}

/** `pieces`: the bytes of an export, cut wherever. */
export async function verifyPieces(pieces: Iterable<Buffer>, key?: string): Promise<Verdict> {
  const module: unknown = await import(VERIFIER);
  return verdictSchema.parse(moduleSchema.parse(module).verifyPieces(pieces, key));
}
