/** The version of the package that this process runs. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Reads it from package.json, so that it is written in one place. */
export function packageVersion(): string {
  const manifest: unknown = JSON.parse(readFileSync(join(import.meta.dirname, '..', 'package.json'), 'utf8'));
  const isManifest = typeof manifest === 'object' && manifest !== null && 'version' in manifest;
  return isManifest ? String(manifest.version) : 'unknown';
}
