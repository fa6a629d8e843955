/** Requests on kept connections, for tests that make hundreds of them: at a node's endpoint as a tenant, or at any engine's socket. */
import { Agent as PlainAgent, request as plainRequest } from 'node:http';
import type { ClientRequest, IncomingMessage, RequestOptions } from 'node:http';
import { Agent as SecureAgent, request as secureRequest } from 'node:https';
import { buffer } from 'node:stream/consumers';
import { codeOf, reasonOf } from '#errors';
import type { ApiAnswer, ApiCall, Credentials } from './docker-api.ts';
import type { TestNode } from './node.ts';

export interface Speaker extends Disposable {
  /** Bodies that are no text and no bytes go as JSON; paths go as they are. An upgrade that succeeds is an answer without a text. */
  readonly ask: (call: ApiCall) => Promise<ApiAnswer>;
}

const CONNECTIONS_MAX = 4;
/** An answer that takes longer will not come: better an error with its request than a test that runs out of time. */
const ANSWER_LIMIT_MS = 30_000;

type Send = (options: RequestOptions, onAnswer: (answer: IncomingMessage) => void) => ClientRequest;

function speakerOf(send: Send, to: RequestOptions, agent: PlainAgent): Speaker {
  const respond = async (call: ApiCall): Promise<IncomingMessage> => {
    const { method = 'GET', path, body, headers } = call;
    const isRaw = body === undefined || typeof body === 'string' || Buffer.isBuffer(body);
    const json = isRaw ? {} : { 'content-type': 'application/json' };
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const signal = AbortSignal.timeout(ANSWER_LIMIT_MS);
    const outgoing = send({ ...to, method, path, agent, signal, headers: { host: 'localhost', ...json, ...headers } }, resolve);
    outgoing.on('error', (error) => {
      // The server may end a kept connection in the moment that it is used again.
      if (outgoing.reusedSocket && codeOf(error) === 'ECONNRESET') resolve(respond(call));
      else reject(error);
    });
    outgoing.once('upgrade', (answer: IncomingMessage, socket) => {
      socket.destroy();
      resolve(answer);
    });
    outgoing.end(isRaw ? body : JSON.stringify(body));
    return await promise;
  };
  return {
    ask: async (call) => {
      try {
        const answer = await respond(call);
        const text = answer.statusCode === 101 ? '' : (await buffer(answer)).toString('utf8');
        return { status: answer.statusCode ?? 0, text, headers: answer.headers };
      } catch (error) {
        throw new Error(`${call.method ?? 'GET'} ${call.path}: ${reasonOf(error)}`, { cause: error });
      }
    },
    [Symbol.dispose]: () => {
      agent.destroy();
    },
  };
}

export function openSpeaker(node: TestNode, credentials: Credentials): Speaker {
  const agent = new SecureAgent({ ...credentials, keepAlive: true, maxSockets: CONNECTIONS_MAX });
  return speakerOf(secureRequest, { host: '127.0.0.1', port: node.ports.docker }, agent);
}

export function openSocketSpeaker(socketPath: string): Speaker {
  return speakerOf(plainRequest, { socketPath }, new PlainAgent({ keepAlive: true, maxSockets: CONNECTIONS_MAX }));
}
