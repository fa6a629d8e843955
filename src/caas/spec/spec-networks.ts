/**
 * Which networks a create request asks for: `HostConfig.NetworkMode`, `HostConfig.Links` and `NetworkingConfig`. Pure.
 *
 * Addresses are the platform's: a container has one, on its tenant's bridge, and networks are membership. What asks for an address, a MAC or an
 * option of a driver is refused, never ignored.
 */
import * as z from 'zod';
import { foldFields } from '#caas/docker-api/go-json.ts';
import type { Fields } from '#caas/docker-api/go-json.ts';

/** A network that a container joins: name, id or prefix of an id, as the client wrote it. */
const wishSchema = z.object({
  network: z.string(),
  aliases: z.array(z.string()),
  /** `container` or `container:alias`, as written. */
  links: z.array(z.string()),
});
export type NetworkWish = z.infer<typeof wishSchema>;

export const networkingSchema = z.object({
  /** `default`, `none`, or the first network's reference: what `HostConfig.NetworkMode` shows. */
  mode: z.string(),
  wishes: z.array(wishSchema),
});
export type NetworkingSpec = z.infer<typeof networkingSchema>;

export type NetworkingResult =
  | { readonly kind: 'networking'; readonly networking: NetworkingSpec }
  | { readonly kind: 'refused'; readonly status: 400 | 403; readonly reason: string; readonly isWhole?: true };

const NETWORKS_MAX = 20;
const NAMES_MAX = 50;
const name = z
  .string()
  .max(255)
  .regex(/^[A-Za-z0-9_][A-Za-z0-9_.-]*$/, 'must be a name of letters, digits, _ . and -');
const link = z
  .string()
  .max(300)
  .regex(/^\/?[A-Za-z0-9_.-]+(?::\/?(?:[A-Za-z0-9_.-]+\/)?[A-Za-z0-9_.-]+)?$/, 'bad format for links');

const endpointSchema = z.object({
  Aliases: z.array(name).max(NAMES_MAX).nullable().default([]),
  Links: z.array(link).max(NAMES_MAX).nullable().default([]),
});

/** What clients send along from an answer they read before: nothing is asked for by it. */
const ANSWERED = [
  'NetworkID',
  'EndpointID',
  'Gateway',
  'IPAddress',
  'IPPrefixLen',
  'IPv6Gateway',
  'GlobalIPv6Address',
  'GlobalIPv6PrefixLen',
  'DNSNames',
];
const ADDRESS_REASON = 'addresses are assigned by the platform';
const ENDPOINT_REASONS: Readonly<Record<string, string>> = {
  MacAddress: ADDRESS_REASON,
  DriverOpts: 'a network here has no driver with options',
  GwPriority: 'a container has one way out',
};

export type EndpointResult =
  | { readonly kind: 'endpoint'; readonly aliases: readonly string[]; readonly links: readonly string[] }
  | { readonly kind: 'refused'; readonly reason: string };

/** One `EndpointSettings`: of create, or of `network connect`. */
export function parseEndpoint(raw: unknown, place: string): EndpointResult {
  const outer = foldFields(raw, place, ['Aliases', 'Links', 'IPAMConfig', ...ANSWERED], ENDPOINT_REASONS);
  if (outer.kind === 'refused') return outer;
  const address = { IPv4Address: ADDRESS_REASON, IPv6Address: ADDRESS_REASON, LinkLocalIPs: ADDRESS_REASON };
  const ipam = foldFields(outer.fields['IPAMConfig'], `${place}.IPAMConfig`, [], address);
  if (ipam.kind === 'refused') return ipam;
  const parsed = endpointSchema.safeParse(outer.fields);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    return {
      kind: 'refused',
      reason: `${[place, ...(issue?.path ?? []).map(String)].join('.')}: ${issue?.message ?? 'invalid'}`,
    };
  }
  return { kind: 'endpoint', aliases: parsed.data.Aliases ?? [], links: parsed.data.Links ?? [] };
}

function refused(status: 400 | 403, reason: string): NetworkingResult {
  return { kind: 'refused', status, reason };
}

/** Why a network mode is none that a sandbox can have. */
function modeRefusal(mode: string): string | undefined {
  if (mode === 'host') return 'HostConfig.NetworkMode: host is not possible: it would reach outside of the sandbox';
  if (mode.startsWith('container:')) {
    return 'HostConfig.NetworkMode: container:… is not possible: every container has a sandbox, and a network interface, of its own';
  }
  if (mode.length > 255 || !/^[A-Za-z0-9][A-Za-z0-9_.-]*$/.test(mode))
    return `HostConfig.NetworkMode: "${mode.slice(0, 60)}" is no network`;
  return undefined;
}

function wishesOf(endpoints: Fields): NetworkingResult | readonly NetworkWish[] {
  const wishes: NetworkWish[] = [];
  for (const [network, raw] of Object.entries(endpoints)) {
    const refusal = network === 'none' ? undefined : modeRefusal(network);
    if (refusal !== undefined) return refused(400, refusal.replace('HostConfig.NetworkMode', 'NetworkingConfig.EndpointsConfig'));
    const endpoint = parseEndpoint(raw, `NetworkingConfig.EndpointsConfig.${network}`);
    if (endpoint.kind === 'refused') return refused(403, endpoint.reason);
    wishes.push({
      network: network === 'default' ? 'bridge' : network,
      aliases: [...endpoint.aliases],
      links: [...endpoint.links],
    });
  }
  return wishes;
}

function linksOf(raw: unknown): readonly string[] | undefined {
  const links = z.array(link).max(NAMES_MAX).nullish().safeParse(raw);
  return links.success ? (links.data ?? []) : undefined;
}

/** `HostConfig.NetworkMode`, and the links that belong to its network. */
function parseMode(
  host: Fields,
): NetworkingResult | { readonly kind: 'mode'; readonly mode: string; readonly links: readonly string[] } {
  const given = host['NetworkMode'] ?? '';
  if (typeof given !== 'string') return refused(400, 'HostConfig.NetworkMode must be a text');
  const mode = given === '' || given === 'bridge' ? 'default' : given;
  const refusal = mode === 'default' ? undefined : modeRefusal(mode);
  if (refusal !== undefined) return refused(400, refusal);
  const links = linksOf(host['Links']);
  if (links === undefined) return refused(400, 'HostConfig.Links: bad format for links');
  if (mode !== 'none' || links.length === 0) return { kind: 'mode', mode, links };
  return refused(
    400,
    "conflicting options: container type network can't be used with links. This would result in undefined behavior",
  );
}

/** `several`: whether a container may join several networks when it is made (Docker: from API 1.44 on). */
export function parseNetworking(host: Fields, networkingConfig: unknown, several: boolean): NetworkingResult {
  const asked = parseMode(host);
  if (asked.kind !== 'mode') return asked;
  const { mode, links } = asked;
  const outer = foldFields(networkingConfig, 'NetworkingConfig', ['EndpointsConfig']);
  if (outer.kind === 'refused') return refused(403, outer.reason);
  const endpoints = outer.fields['EndpointsConfig'] ?? {};
  if (typeof endpoints !== 'object' || Array.isArray(endpoints))
    return refused(400, 'NetworkingConfig.EndpointsConfig must be an object');
  const wishes = wishesOf({ ...endpoints });
  if ('kind' in wishes) return wishes;
  if (wishes.length > NETWORKS_MAX)
    return refused(400, `NetworkingConfig.EndpointsConfig: more than ${String(NETWORKS_MAX)} networks`);
  if (!several && wishes.length > 1) {
    const names = wishes.map((wish) => wish.network).join(', ');
    return {
      kind: 'refused',
      status: 400,
      reason: `Container cannot be connected to network endpoints: ${names}`,
      isWhole: true,
    };
  }
  return { kind: 'networking', networking: { mode, wishes: mode === 'none' ? [] : [...joined(mode, wishes, links)] } };
}

/** The mode's network first; without one that is named, those of NetworkingConfig alone (moby, `updateContainerNetworkSettings`). */
function joined(mode: string, wishes: readonly NetworkWish[], links: readonly string[]): readonly NetworkWish[] {
  const network = mode === 'default' ? 'bridge' : mode;
  const own = wishes.find((wish) => wish.network === network);
  const rest = wishes.filter((wish) => wish !== own);
  if (own === undefined && mode === 'default' && rest.length > 0 && links.length === 0) return rest;
  const first = own ?? { network, aliases: [], links: [] };
  return [{ ...first, links: [...first.links, ...links] }, ...rest];
}
