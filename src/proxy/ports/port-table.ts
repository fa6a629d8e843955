/** The published ports of a config version, by the address that is listened on. Pure. */
import type { Endpoint, PublishedPort } from '#routing/route-table.ts';
import type { ListenAddress } from '#proxy/protocol.ts';

export type PortTable = ReadonlyMap<string, PublishedPort>;

export function portKey({ protocol, address, port }: Pick<PublishedPort, 'protocol' | 'address' | 'port'>): string {
  return `${protocol} ${address}:${String(port)}`;
}

export function tableOf(ports: readonly PublishedPort[] | undefined): PortTable {
  return new Map((ports ?? []).map((port) => [portKey(port), port]));
}

/** Whether it is the same life of the same container at the same address, spoken to in the same way. */
export function isSameEndpoint(one: Endpoint, other: Endpoint): boolean {
  const isSamePlace = one.generation === other.generation && one.address === other.address && one.port === other.port;
  return one.id === other.id && isSamePlace && JSON.stringify(one.tls) === JSON.stringify(other.tls);
}

/** Whether two listeners would meet: then one of them would take connections from the other. */
export function overlaps(port: PublishedPort, own: ListenAddress): boolean {
  const wild = ['0.0.0.0', '::'];
  return (
    port.protocol === 'tcp' &&
    port.port === own.port &&
    (port.address === own.host || wild.includes(port.address) || wild.includes(own.host))
  );
}
