/** The flags of `service set`, and the service that they say. What values may be is the daemon's to judge (`service-schema.ts`). Pure. */
import type { ServiceSettings } from '#routing/operator/service-schema.ts';
import { countOf } from './cli-flags.ts';
import { usageError } from './cli-spec.ts';
import type { FlagSpec, Given } from './cli-spec.ts';

export const SERVICE_FLAGS: readonly FlagSpec[] = [
  {
    name: 'balance',
    value: 'HOW',
    about: 'least-request (default), round-robin, random-two, hash(header:NAME), hash(cookie:NAME) or hash(ip)',
  },
  {
    name: 'health',
    value: 'PATH',
    about: 'ask each endpoint for this path, and send requests only to those that answer with 2xx or 3xx',
  },
  { name: 'health-interval', value: 'TIME', about: 'from one check to the next (default: 5s)' },
  { name: 'health-timeout', value: 'TIME', about: 'how long a check may take (default: 1s)' },
  { name: 'unhealthy-after', value: 'N', about: 'checks in a row that fail before an endpoint gets no requests (default: 3)' },
  { name: 'healthy-after', value: 'N', about: 'checks in a row that pass before it gets them again (default: 2)' },
  { name: 'connect-timeout', value: 'TIME', about: "how long connecting to an endpoint may take, where not the node's" },
  { name: 'first-byte-timeout', value: 'TIME', about: 'how long an endpoint may take to begin its response' },
  { name: 'idle-timeout', value: 'TIME', about: 'after how long without a byte a body or a WebSocket is cut' },
  { name: 'connections', value: 'N', about: 'most requests that each endpoint gets at once' },
  { name: 'pending', value: 'N', about: 'most requests that wait while all endpoints have as many (default: 0)' },
  { name: 'hold', value: 'TIME', about: 'how long a request waits before it is refused (default: 60s)' },
  { name: 'server-name', value: 'NAME', about: 'what certificates of https endpoints have to be for (default: their addresses)' },
  { name: 'ca', value: 'BUNDLE', about: 'the CA bundle that they have to be of (default: the CAs that Node knows)' },
  { name: 'client-cert', value: 'CERT', about: 'the certificate that https endpoints are shown (ecluse cert ls)' },
  { name: 'insecure', about: 'take any certificate of https endpoints' },
  { name: 'send-proxy', value: 'V', about: 'begin connections with the PROXY protocol, version 1 or 2' },
];

/** All of a service: what is not said is not there. */
export function serviceOfFlags(given: Given): ServiceSettings {
  const balance = given.text('balance');
  const health = healthOf(given);
  const timeouts = givenOf({
    connect: given.text('connect-timeout'),
    firstByte: given.text('first-byte-timeout'),
    idle: given.text('idle-timeout'),
  });
  const [connections, pending] = [numberOf(given, 'connections', 1), numberOf(given, 'pending', 0)];
  const hold = given.text('hold');
  const counts = givenOf({ connections, pending });
  const limits = counts === undefined && hold === undefined ? undefined : { ...counts, ...(hold === undefined ? {} : { hold }) };
  const sendProxy = sendProxyOf(given.text('send-proxy'));
  const tls = tlsOf(given);
  return {
    endpoints: given.operands.slice(1).map(endpointOf),
    ...(balance === undefined ? {} : { balance }),
    ...(health === undefined ? {} : { health }),
    ...(timeouts === undefined ? {} : { timeouts }),
    ...(limits === undefined ? {} : { limits }),
    ...(sendProxy === undefined ? {} : { sendProxy }),
    ...(tls === undefined ? {} : { tls }),
  };
}

function tlsOf(given: Given): ServiceSettings['tls'] {
  const named = givenOf({
    serverName: given.text('server-name'),
    ca: given.text('ca'),
    clientCertificate: given.text('client-cert'),
  });
  return given.has('insecure') ? { ...named, insecure: true } : named;
}

function healthOf(given: Given): ServiceSettings['health'] {
  const path = given.text('health');
  const times = givenOf({ interval: given.text('health-interval'), timeout: given.text('health-timeout') });
  const counts = givenOf({
    unhealthyAfter: numberOf(given, 'unhealthy-after', 1),
    healthyAfter: numberOf(given, 'healthy-after', 1),
  });
  if (path !== undefined) return { path, ...times, ...counts };
  if (times !== undefined || counts !== undefined) throw usageError('a health check needs a path', 'add --health PATH');
  return undefined;
}

function numberOf(given: Given, flag: string, least: number): number | undefined {
  const text = given.text(flag);
  return text === undefined ? undefined : countOf(flag, text, least);
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
