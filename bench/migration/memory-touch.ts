/**
 * What it costs on this machine to touch memory: virtual machines may give free memory back to their host, and pay when they use it again. Saves and
 * restores are bound by it, so results are told beside it.
 */
import { open, rm } from 'node:fs/promises';

const MIB = 1024 * 1024;
const FILE_MIB = 1024;

/** Milliseconds for a GiB of memory-backed file. */
export async function touchMsPerGib(): Promise<number> {
  const path = `/dev/shm/ecluse-bench-${String(process.pid)}`;
  const piece = Buffer.alloc(4 * MIB, 1);
  try {
    await using file = await open(path, 'w');
    const startMs = performance.now();
    for (let at = 0; at < FILE_MIB * MIB; at += piece.length) await file.write(piece);
    return Math.round(performance.now() - startMs);
  } finally {
    await rm(path, { force: true });
  }
}
