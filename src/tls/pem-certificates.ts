/** The certificates of a PEM text that was looked at before; made once for each text. */
import { X509Certificate } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { readPem } from './pem-blocks.ts';

/** Some KB each. There are a hundred authorities at most. */
const KEPT_MAX = 100;
const made = new LRUCache<string, readonly X509Certificate[]>({ max: KEPT_MAX });

export function certificatesIn(pem: string): readonly X509Certificate[] {
  const known = made.get(pem);
  if (known !== undefined) return known;
  const reading = readPem(pem);
  const certificates = reading.kind === 'cut' ? [] : reading.blocks.map(({ text }) => new X509Certificate(text));
  made.set(pem, certificates);
  return certificates;
}
