/**
 * Ports in Docker's JSON: `Ports` of a list, `NetworkSettings.Ports` and `HostConfig.PortBindings` of an inspect. Pure.
 *
 * The address is shown as it was asked for: `0.0.0.0` where none was, so that clients go on to the host of DOCKER_HOST, as they do with Docker. Docker
 * shows a second line for `::`; published ports are reached by IPv4 here, and clients that take any line take the right one.
 */
import type { PublishedPortRow } from '#state/published-ports.ts';
import { exposedKeys, hostRangeOf, keyOf } from '#caas/spec/spec-ports.ts';
import type { PortBinding, PortSpec, PortsOfSpec } from '#caas/spec/spec-ports.ts';

/** One entry of `Ports` in `GET /containers/json`. */
export interface PortSummary {
  readonly IP?: string;
  readonly PrivatePort: number;
  readonly PublicPort?: number;
  readonly Type: 'tcp' | 'udp';
}

interface HostBinding {
  readonly HostIp: string;
  readonly HostPort: string;
}

/** What decides over the ports that are shown. */
export interface ShownPorts {
  readonly spec: PortsOfSpec;
  readonly rows: readonly PublishedPortRow[];
  /** Nothing is shown of a container that does not run, or has no network. */
  readonly isUp: boolean;
}

function isWithin(hostPort: string, port: number): boolean {
  const range = hostRangeOf(hostPort);
  return range !== 'invalid' && (range === undefined || (port >= range.first && port <= range.last));
}

/** The bindings of one exposed port in moby's order; each row goes to the narrowest binding that it can come from. */
function bindingsOf({ spec, rows }: ShownPorts, key: string): readonly HostBinding[] {
  const left: PortBinding[] = spec.ports
    .filter((port) => keyOf(port.containerPort, port.protocol) === key)
    .flatMap((port) => port.bindings)
    .toSorted((one, other) => width(one.hostPort) - width(other.hostPort));
  return rows
    .filter((row) => keyOf(row.containerPort, row.protocol) === key)
    .map((row) => {
      const index = left.findIndex((binding) => isWithin(binding.hostPort, row.port));
      const [binding] = index === -1 ? [] : left.splice(index, 1);
      const given = binding?.hostIp ?? '';
      return { HostIp: given === '' || given === '::' ? '0.0.0.0' : given, HostPort: String(row.port) };
    });
}

function width(hostPort: string): number {
  const range = hostRangeOf(hostPort);
  return range === undefined || range === 'invalid' ? Infinity : range.last - range.first;
}

function keysOf({ spec, isUp }: ShownPorts): readonly string[] {
  return isUp ? exposedKeys(spec.ports, Object.fromEntries(spec.exposedPorts.map((key) => [key, {}]))) : [];
}

/** `NetworkSettings.Ports`: exposed ports with their bindings, or null. */
export function portMapView(shown: ShownPorts): Readonly<Record<string, readonly HostBinding[] | null>> {
  return Object.fromEntries(
    keysOf(shown).map((key) => {
      const bindings = bindingsOf(shown, key);
      return [key, bindings.length === 0 ? null : bindings];
    }),
  );
}

/** `Ports` of a list. */
export function portListView(shown: ShownPorts): readonly PortSummary[] {
  return keysOf(shown).flatMap((key): readonly PortSummary[] => {
    const PrivatePort = Number.parseInt(key, 10);
    const Type = key.endsWith('/udp') ? 'udp' : 'tcp';
    const bindings = bindingsOf(shown, key);
    if (bindings.length === 0) return [{ PrivatePort, Type }];
    return bindings.map(({ HostIp, HostPort }) => ({ IP: HostIp, PrivatePort, PublicPort: Number(HostPort), Type }));
  });
}

/** `HostConfig.PortBindings`, as it was given. */
export function portBindingsView(ports: readonly PortSpec[]): Readonly<Record<string, readonly HostBinding[]>> {
  return Object.fromEntries(
    ports.map(({ key, bindings }) => [key, bindings.map(({ hostIp, hostPort }) => ({ HostIp: hostIp, HostPort: hostPort }))]),
  );
}
