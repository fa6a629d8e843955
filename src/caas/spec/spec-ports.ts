/**
 * Which ports a create request publishes: `HostConfig.PortBindings` and `PublishAllPorts`. Pure.
 *
 * A wish becomes a port of the tenant's address when the container starts (`published-ports.ts`). What no engine would take is refused with moby's
 * words.
 */
import { isIP } from 'node:net';
import * as z from 'zod';
import { foldFields } from '#caas/docker-api/go-json.ts';
import type { Fields } from '#caas/docker-api/go-json.ts';

const bindingSchema = z.object({
  /** As given: empty, or an IP address. */
  hostIp: z.string(),
  /** As given: empty or `0` (any free port), a port, or a range `8000-8010` (any free port of it). */
  hostPort: z.string(),
});

export const portSpecSchema = z.object({
  /** As given, `80` or `80/tcp`: what `HostConfig.PortBindings` shows. */
  key: z.string(),
  protocol: z.enum(['tcp', 'udp']),
  containerPort: z.int(),
  bindings: z.array(bindingSchema),
});

/** One key of `PortBindings`. */
export type PortSpec = z.infer<typeof portSpecSchema>;
export type PortBinding = z.infer<typeof bindingSchema>;

export type PortsResult =
  | { readonly kind: 'ports'; readonly ports: readonly PortSpec[]; readonly publishAll: boolean }
  | { readonly kind: 'refused'; readonly status: 400; readonly reason: string };

/** What of a specification says which ports are published. */
export interface PortsOfSpec {
  readonly ports: readonly PortSpec[];
  readonly publishAll: boolean;
  /** Keys like `80/tcp` and `53/udp`: what image and request expose (`exposedKeys`). */
  readonly exposedPorts: readonly string[];
}

/** One port that a container wants to have published. */
export interface PortWish {
  readonly protocol: 'tcp' | 'udp';
  readonly containerPort: number;
  readonly hostIp: string;
  /** Undefined: any free port. */
  readonly range: { readonly first: number; readonly last: number } | undefined;
}

/** More than a quota allows; bounds what is read and kept. */
const BINDINGS_MAX = 1000;
const PORT_MAX = 65_535;

function refused(reason: string): PortsResult {
  return { kind: 'refused', status: 400, reason };
}

function quoted(text: string): string {
  return JSON.stringify(text.slice(0, 60));
}

function invalidPort(text: string): string {
  return `invalid port specification: ${quoted(text)}`;
}

function numberOf(text: string): number | undefined {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN;
  return port <= PORT_MAX ? port : undefined;
}

/** The ports that a `HostPort` allows; undefined: any; `invalid` where it is none. A protocol behind a slash says nothing, as in moby. */
export function hostRangeOf(hostPort: string): PortWish['range'] | 'invalid' {
  const [ports = ''] = hostPort.split('/');
  if (ports === '') return undefined;
  const [from = '', to = from, ...more] = ports.split('-');
  const first = numberOf(from);
  const last = numberOf(to);
  if (first === undefined || last === undefined || last < first || more.length > 0) return 'invalid';
  return first === 0 ? undefined : { first, last };
}

/** `80/tcp`, `80` or `53/UDP`; a text says why it is none that can be published. */
function parseKey(key: string): Pick<PortSpec, 'protocol' | 'containerPort'> | string {
  const [port = '', protocol = 'tcp', ...more] = key.split('/');
  const containerPort = numberOf(port);
  if (containerPort === undefined || containerPort === 0) return invalidPort(port);
  const lower = protocol === '' ? 'tcp' : protocol.toLowerCase();
  if (lower === 'sctp') return `port ${quoted(key)} cannot be published: the data plane forwards tcp and udp`;
  if ((lower !== 'tcp' && lower !== 'udp') || more.length > 0)
    return `invalid port specification: ${quoted(key)}: unknown protocol`;
  return { protocol: lower, containerPort };
}

function textOf(fields: Fields, key: string, place: string): string | { readonly reason: string } {
  const value = fields[key] ?? '';
  return typeof value === 'string' ? value : { reason: `${place}.${key} must be a string` };
}

/** One `PortBinding`; a text says what is wrong with it. */
function parseBinding(raw: unknown, place: string): PortBinding | string {
  const folded = foldFields(raw, place, ['HostIp', 'HostPort']);
  if (folded.kind === 'refused') return folded.reason;
  const hostIp = textOf(folded.fields, 'HostIp', place);
  const hostPort = textOf(folded.fields, 'HostPort', place);
  if (typeof hostIp !== 'string') return hostIp.reason;
  if (typeof hostPort !== 'string') return hostPort.reason;
  if (hostIp !== '' && isIP(hostIp) === 0) return `${place}.HostIp: ${quoted(hostIp)} is not an IP address`;
  if (hostPort.length > 20 || hostRangeOf(hostPort) === 'invalid') return invalidPort(hostPort);
  return { hostIp, hostPort };
}

function parseEntry(key: string, raw: unknown): PortSpec | string {
  const parsed = parseKey(key);
  if (typeof parsed === 'string') return parsed;
  const place = `HostConfig.PortBindings[${quoted(key)}]`;
  if (raw !== null && !Array.isArray(raw)) return `${place} must be a list`;
  const bindings: PortBinding[] = [];
  for (const entry of raw ?? []) {
    const binding = parseBinding(entry, place);
    if (typeof binding === 'string') return binding;
    bindings.push(binding);
  }
  return { key, ...parsed, bindings };
}

/** Reads the two fields of a folded `HostConfig`. */
export function parsePorts(host: Fields): PortsResult {
  const all = host['PublishAllPorts'] ?? false;
  if (typeof all !== 'boolean') return refused('HostConfig.PublishAllPorts must be true or false');
  const given = host['PortBindings'] ?? {};
  if (typeof given !== 'object' || Array.isArray(given)) return refused('HostConfig.PortBindings must be an object');
  const ports: PortSpec[] = [];
  for (const [key, raw] of Object.entries(given)) {
    const spec = parseEntry(key, raw);
    if (typeof spec === 'string') return refused(spec);
    ports.push(spec);
  }
  const count = ports.reduce((sum, { bindings }) => sum + Math.max(1, bindings.length), 0);
  if (count > BINDINGS_MAX) return refused(`HostConfig.PortBindings: more than ${String(BINDINGS_MAX)} ports`);
  return { kind: 'ports', ports, publishAll: all };
}

/** The ports that are exposed: by image and request, and by what is published of them. Sorted; ports of other protocols are left out. */
export function exposedKeys(
  ports: readonly PortSpec[],
  ...exposed: readonly (Readonly<Record<string, unknown>> | null | undefined)[]
): readonly string[] {
  const keys = new Set(ports.map(({ containerPort, protocol }) => keyOf(containerPort, protocol)));
  for (const key of exposed.flatMap((map) => Object.keys(map ?? {}))) {
    const parsed = parseKey(key);
    if (typeof parsed !== 'string') keys.add(keyOf(parsed.containerPort, parsed.protocol));
  }
  return [...keys].toSorted();
}

/** `80/tcp`. */
export function keyOf(containerPort: number, protocol: 'tcp' | 'udp'): string {
  return `${String(containerPort)}/${protocol}`;
}

function wishesOfKey(spec: PortsOfSpec, key: string): readonly PortWish[] {
  const parsed = parseKey(key);
  if (typeof parsed === 'string') return [];
  const bindings = spec.ports.filter((port) => keyOf(port.containerPort, port.protocol) === key).flatMap((port) => port.bindings);
  if (bindings.length === 0) return spec.publishAll ? [{ ...parsed, hostIp: '', range: undefined }] : [];
  return bindings.map(({ hostIp, hostPort }) => {
    const range = hostRangeOf(hostPort);
    return { ...parsed, hostIp, range: range === 'invalid' ? undefined : range };
  });
}

/** What a container wants to have when it starts. Those that name their port come first: a free choice must not take it away from them. */
export function portWishes(spec: PortsOfSpec): readonly PortWish[] {
  const wishes = exposedKeys(spec.ports, Object.fromEntries(spec.exposedPorts.map((key) => [key, {}]))).flatMap((key) =>
    wishesOfKey(spec, key),
  );
  const freedom = ({ range }: PortWish): number => (range === undefined ? PORT_MAX : range.last - range.first);
  return wishes.toSorted((one, other) => freedom(one) - freedom(other));
}
