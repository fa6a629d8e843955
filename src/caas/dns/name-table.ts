/**
 * Which names a container may ask for, and what they are. Pure: an index over members as they are at one moment, asked with the address that a
 * question came from. Nobody learns of a container with which it shares no network.
 */

export interface NameMembership {
  readonly networkId: string;
  readonly networkName: string;
  /** On a tenant's predefined network no name is known but by links, as in Docker. */
  readonly isPredefined: boolean;
  readonly aliases: readonly string[];
  /** Names that only this container uses for others. */
  readonly links: readonly { readonly containerId: string; readonly alias: string }[];
}

export interface NameMember {
  readonly containerId: string;
  readonly name: string;
  readonly address: string;
  /** In the order in which they are asked. */
  readonly memberships: readonly NameMembership[];
  /** Whether the rest of the world's names may be asked for: false where all its networks are internal, because a question carries data too. */
  readonly hasWayOut: boolean;
  /** Not known to run. It asks all the same, because its first question comes before the news of its start; nobody finds it. */
  readonly isHidden?: boolean;
}

export type NameAnswer =
  | { readonly kind: 'addresses'; readonly addresses: readonly string[] }
  /** Not ours: the machine's resolvers may know. */
  | { readonly kind: 'unknown' }
  /** Not ours, and this container may ask nobody else. */
  | { readonly kind: 'withheld' };

export type ReverseAnswer =
  | { readonly kind: 'names'; readonly names: readonly string[] }
  /** An address of ours that the asker does not share a network with, or that nobody has. */
  | { readonly kind: 'absent' }
  | { readonly kind: 'unknown' }
  | { readonly kind: 'withheld' };

export interface NameTable {
  readonly lookup: (source: string, name: string) => NameAnswer;
  readonly reverse: (source: string, address: string) => ReverseAnswer;
}

interface NetworkNames {
  /** By name in lower case. */
  readonly addresses: Map<string, string[]>;
  readonly members: Set<string>;
}

const SHORT_ID_LENGTH = 12;

/** `octets`: of the node's hosts. A source that is no member (a build's container) knows only the rest of the world's names. */
export function nameTableOf(members: readonly NameMember[], octets: readonly number[]): NameTable {
  const askers = new Map(members.map((member) => [member.address, member]));
  const shown = members.filter(({ isHidden }) => isHidden !== true);
  const byAddress = new Map(shown.map((member) => [member.address, member]));
  const byId = new Map(shown.map((member) => [member.containerId, member]));
  const networks = indexOf(shown);
  const otherwise = (asker: NameMember | undefined): NameAnswer & ReverseAnswer =>
    asker === undefined || asker.hasWayOut ? { kind: 'unknown' } : { kind: 'withheld' };

  const inNetwork = (membership: NameMembership, name: string): readonly string[] => {
    const network = networks.get(membership.networkId);
    const linked = membership.links
      .map(({ containerId, alias }) => ({ alias, target: byId.get(containerId) }))
      .filter(({ alias, target }) => {
        if (target === undefined || network?.members.has(target.containerId) !== true) return false;
        return alias.toLowerCase() === name || (membership.isPredefined && ownNamesOf(target).includes(name));
      })
      .flatMap(({ target }) => (target === undefined ? [] : [target.address]));
    return linked.length > 0 ? linked : (network?.addresses.get(name) ?? []);
  };

  return {
    lookup(source, name): NameAnswer {
      const asker = askers.get(source);
      const wanted = name.toLowerCase();
      for (const membership of asker?.memberships ?? []) {
        const addresses = inNetwork(membership, wanted);
        if (addresses.length > 0) return { kind: 'addresses', addresses };
      }
      // `name.network` means the name in that network.
      const dot = wanted.lastIndexOf('.');
      for (const membership of asker?.memberships ?? []) {
        if (dot < 1 || membership.networkName.toLowerCase() !== wanted.slice(dot + 1)) continue;
        const addresses = inNetwork(membership, wanted.slice(0, dot));
        if (addresses.length > 0) return { kind: 'addresses', addresses };
      }
      return otherwise(asker);
    },
    reverse(source, address): ReverseAnswer {
      const asker = askers.get(source);
      const target = byAddress.get(address);
      const shared = (asker?.memberships ?? []).filter(
        ({ networkId, isPredefined }) =>
          !isPredefined && target?.memberships.some((membership) => membership.networkId === networkId) === true,
      );
      if (target !== undefined && shared.length > 0) {
        return { kind: 'names', names: shared.map(({ networkName }) => `${target.name}.${networkName}`) };
      }
      return octets.some((octet) => address.startsWith(`10.${String(octet)}.`)) ? { kind: 'absent' } : otherwise(asker);
    },
  };
}

function ownNamesOf(member: NameMember): readonly string[] {
  return [member.name.toLowerCase(), member.containerId.slice(0, SHORT_ID_LENGTH)];
}

function indexOf(members: readonly NameMember[]): ReadonlyMap<string, NetworkNames> {
  const networks = new Map<string, NetworkNames>();
  for (const member of members) {
    for (const { networkId, isPredefined, aliases } of member.memberships) {
      const network = networks.get(networkId) ?? { addresses: new Map<string, string[]>(), members: new Set<string>() };
      networks.set(networkId, network);
      network.members.add(member.containerId);
      if (isPredefined) continue;
      for (const name of new Set([...ownNamesOf(member), ...aliases.map((alias) => alias.toLowerCase())])) {
        const addresses = network.addresses.get(name);
        if (addresses === undefined) network.addresses.set(name, [member.address]);
        else addresses.push(member.address);
      }
    }
  }
  return networks;
}
