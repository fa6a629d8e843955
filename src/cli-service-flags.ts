/** The flags of `service set`, and the service that they say. What values may be is the daemon's to judge (`service-schema.ts`). Pure. */
import type { ServiceSettings } from '#routing/operator/service-schema.ts';
import { usageError } from './cli-spec.ts';
import type { FlagSpec, Given } from './cli-spec.ts';

export const SERVICE_FLAGS: readonly FlagSpec[] = [
  {
    name: 'balance',
    value: 'HOW',
    about: 'least-request (default), round-robin, random-two, hash(header:NAME), hash(cookie:NAME) or hash(ip)',
  },
  { name: 'connect-timeout', value: 'TIME', about: "how long connecting to an endpoint may take, where not the node's" },
  { name: 'first-byte-timeout', value: 'TIME', about: 'how long an endpoint may take to begin its response' },
  { name: 'idle-timeout', value: 'TIME', about: 'after how long without a byte a body or a WebSocket is cut' },
  { name: 'send-proxy', value: 'V', about: 'begin connections with the PROXY protocol, version 1 or 2' },
];

/** All of a service: what is not said is not there. */
export function serviceOfFlags(given: Given): ServiceSettings {
  const balance = given.text('balance');
  const timeouts = givenOf({
    connect: given.text('connect-timeout'),
    firstByte: given.text('first-byte-timeout'),
    idle: given.text('idle-timeout'),
  });
  const sendProxy = sendProxyOf(given.text('send-proxy'));
  return {
    endpoints: given.operands.slice(1).map(endpointOf),
    ...(balance === undefined ? {} : { balance }),
    ...(timeouts === undefined ? {} : { timeouts }),
    ...(sendProxy === undefined ? {} : { sendProxy }),
  };
}

/** What was given of a part of a service; undefined: nothing. */
function givenOf<V>(values: Readonly<Record<string, V | undefined>>): Record<string, V> | undefined {
  const given = Object.entries(values).filter((entry): entry is [string, V] => entry[1] !== undefined);
  return given.length === 0 ? undefined : Object.fromEntries(given);
}

/** `http://127.0.0.1:9001`, or with its weight `http://127.0.0.1:9001=3`. */
function endpointOf(text: string): ServiceSettings['endpoints'][number] {
  const at = text.lastIndexOf('=');
  if (at === -1) return text;
  const weight = text.slice(at + 1);
  if (!/^\d{1,4}$/.test(weight)) throw usageError(`"${weight}" is no weight of an endpoint`, 'write http://ADDRESS:PORT=WEIGHT');
  return { url: text.slice(0, at), weight: Number(weight) };
}

function sendProxyOf(text: string | undefined): 1 | 2 | undefined {
  if (text === undefined) return undefined;
  if (text !== '1' && text !== '2') throw usageError(`--send-proxy cannot be "${text}"`, 'use 1 or 2');
  return text === '1' ? 1 : 2;
}
