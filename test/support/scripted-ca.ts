/** A CA that answers as it is told, over a real server: for what no CA should do. */
import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import * as z from 'zod';
import { systemClock } from '#clock';
import { CaClient } from '#tls/acme/ca-client.ts';
import type { CaSettings } from '#tls/acme/ca-client.ts';
import { openTransport } from '#tls/acme/ca-transport.ts';

const SIGNED = z.object({ protected: z.string(), payload: z.string() });
const HEAD = z.object({ nonce: z.string(), url: z.string(), jwk: z.object({ crv: z.string() }).optional() });

export interface CaReply {
  readonly status: number;
  /** JSON, or text as it is. */
  readonly body?: unknown;
  readonly headers?: Record<string, string>;
}

export interface SignedRequest {
  readonly nonce: string;
  readonly path: string;
  readonly payload: string;
  /** Signed with the key itself, and not in the account's name. */
  readonly isByKey: boolean;
}

export interface ScriptedCa extends AsyncDisposable {
  readonly origin: string;
  /** What its directory says; text: that, and no JSON. */
  directory: unknown;
  /** What is answered to signed requests, one after the other; then what is usual. */
  replies: CaReply[];
  /** What came. */
  signed: SignedRequest[];
  /** A client of it with an account key of its own. */
  readonly client: (eab?: CaSettings['eab']) => Promise<CaClient>;
}

export function problem(type: string, detail = 'no'): object {
  return { type: `urn:ietf:params:acme:error:${type}`, detail };
}

export async function startScriptedCa(): Promise<ScriptedCa> {
  let given = 0;
  const server = createServer((request, response) => void serve(request, response));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const origin = `http://127.0.0.1:${String(typeof address === 'object' && address !== null ? address.port : 0)}`;
  const key = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ type: 'pkcs8', format: 'pem' });
  const ca: ScriptedCa = {
    origin,
    directory: { newNonce: `${origin}/nonce`, newAccount: `${origin}/account`, newOrder: `${origin}/order`, meta: {} },
    replies: [],
    signed: [],
    client: async (eab) => {
      const { send } = openTransport(`${origin}/directory`, undefined);
      const settings = { directory: `${origin}/directory`, email: 'ops@example.com', eab };
      return await CaClient.open({ clock: systemClock, send }, settings, key);
    },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
  return ca;

  function usual(path: string): CaReply {
    if (path === '/account') return { status: 201, body: { status: 'valid' }, headers: { location: `${origin}/account/1` } };
    const identifiers = [{ type: 'dns', value: 'a.test' }];
    const body = { status: 'pending', identifiers, authorizations: [], finalize: `${origin}/finalize` };
    return { status: 201, body, headers: { location: `${origin}/order/1` } };
  }

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const pieces: Buffer[] = [];
    for await (const piece of request) if (Buffer.isBuffer(piece)) pieces.push(piece);
    const path = request.url ?? '';
    given += 1;
    const fresh = { 'replay-nonce': `nonce-${String(given)}` };
    if (path === '/directory') {
      reply(response, { status: 200, body: ca.directory }, {});
      return;
    }
    if (request.method === 'HEAD') {
      response.writeHead(200, fresh).end();
      return;
    }
    const jws = SIGNED.parse(JSON.parse(Buffer.concat(pieces).toString()));
    const head = HEAD.parse(JSON.parse(Buffer.from(jws.protected, 'base64url').toString()));
    const payload = Buffer.from(jws.payload, 'base64url').toString();
    ca.signed.push({ nonce: head.nonce, path, payload, isByKey: head.jwk !== undefined });
    reply(response, ca.replies.shift() ?? usual(path), fresh);
  }
}

function reply(response: ServerResponse, { status, body, headers }: CaReply, more: Record<string, string>): void {
  const isText = typeof body === 'string';
  const json = status >= 400 ? 'application/problem+json' : 'application/json';
  response.writeHead(status, { 'content-type': isText ? 'application/pem-certificate-chain' : json, ...more, ...headers });
  response.end(isText ? body : JSON.stringify(body));
}
