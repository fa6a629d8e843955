/**
 * Handshakes of one process, one after the other on each of some lanes, until its time is over: `node client.ts SPEC`, a line of JSON at the end. A session
 * that is resumed is the last one that its lane was given, whichever worker gave it.
 */
import { connect } from 'node:tls';
import type { SecureVersion } from 'node:tls';
import * as z from 'zod';
import { reasonOf } from '#errors';

const { port, host, seconds, lanes, version, groups, resumes, asks } = z
  .object({
    port: z.int(),
    host: z.string(),
    seconds: z.number(),
    lanes: z.int(),
    version: z.enum(['TLSv1.2', 'TLSv1.3']),
    /** For the key exchange, as OpenSSL writes them: `X25519:P-256`. */
    groups: z.string(),
    resumes: z.boolean(),
    asks: z.boolean(),
  })
  .parse(JSON.parse(process.argv[2] ?? ''));

interface Done {
  readonly resumed: boolean;
  readonly tookMs: number;
  readonly session: Buffer | undefined;
}

/** Ends when the peer has closed: then what it had to do for this connection is done. */
async function handshake(session: Buffer | undefined): Promise<Done> {
  const { promise, resolve, reject } = Promise.withResolvers<Done>();
  const startMs = performance.now();
  let [tookMs, resumed]: [number, boolean] = [Number.NaN, false];
  let given: Buffer | undefined;
  const versions: { readonly minVersion: SecureVersion; readonly maxVersion: SecureVersion } = {
    minVersion: version,
    maxVersion: version,
  };
  const socket = connect({
    host: '127.0.0.1',
    port,
    servername: host,
    rejectUnauthorized: false,
    ecdhCurve: groups,
    ...versions,
    ...(session === undefined ? {} : { session }),
  });
  socket.on('error', reject);
  socket.on('session', (ticket) => {
    given = ticket;
    // Of TLS 1.3 it comes after the handshake.
    if (!asks) socket.end();
  });
  socket.on('secureConnect', () => {
    tookMs = performance.now() - startMs;
    resumed = socket.isSessionReused();
    if (asks) socket.write(`GET / HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
    // A resumed session may be followed by no other ticket.
    else if (given !== undefined || resumed) socket.end();
  });
  socket.on('close', () => {
    if (Number.isNaN(tookMs)) reject(new Error('closed before the handshake was over'));
    else resolve({ resumed, tookMs, session: given });
  });
  socket.resume();
  return await promise;
}

const endMs = performance.now() + seconds * 1000;
let [count, offered, resumed] = [0, 0, 0];
const tookMs: number[] = [];
const errors: string[] = [];

async function lane(): Promise<void> {
  let session: Buffer | undefined;
  while (performance.now() < endMs && errors.length === 0) {
    try {
      const done = await handshake(resumes ? session : undefined);
      count += 1;
      offered += resumes && session !== undefined ? 1 : 0;
      resumed += done.resumed ? 1 : 0;
      tookMs.push(done.tookMs);
      session = done.session ?? session;
    } catch (error) {
      errors.push(reasonOf(error));
    }
  }
}

await Promise.all(Array.from({ length: lanes }, lane));
const sorted = tookMs.toSorted((one, other) => one - other);
const at = (share: number): number => sorted[Math.floor(share * (sorted.length - 1))] ?? Number.NaN;
process.stdout.write(`${JSON.stringify({ count, offered, resumed, p50Ms: at(0.5), p99Ms: at(0.99), errors })}\n`);
