/**
 * What routing knows: plain, structured-cloneable data. It crosses process borders, so it holds no functions and no class instances.
 */

/** One address a service can be reached at. */
export interface Endpoint {
  readonly id: string;
  /** An IP address, never a name: a lookup would be I/O on the request path. */
  readonly address: string;
  readonly port: number;
  /** Name of the Écluse host it runs on. */
  readonly hostName: string;
  /** Grows when the same endpoint moves to another address; connections of an older generation are never reused. */
  readonly generation: number;
  /** It takes no requests until it is woken; its address means nothing meanwhile. Absent: it is awake. */
  readonly state?: 'asleep' | undefined;
}

/** What a route leads to. */
export interface Service {
  readonly id: string;
  readonly tenant: string;
  readonly endpoints: readonly Endpoint[];
  /** The version of the PROXY protocol that its endpoints want every connection to begin with. Absent: none. */
  readonly sendProxy?: 1 | 2 | undefined;
}

export interface Route {
  /** Exact, or `*.example.com` (one label), or `*`. */
  readonly host: string;
  /** A prefix by segments: `/x` and `/x/` are the same and match `/x` and `/x/…`, not `/xy`. */
  readonly pathPrefix: string;
  readonly serviceId: string;
  /** Whether CONNECT is passed on to the endpoint. Absent: it is refused. */
  readonly connect?: boolean | undefined;
}

/** A port that a container holds on an address of the node: bytes and datagrams go to its endpoint as they are. */
export interface PublishedPort {
  readonly protocol: 'tcp' | 'udp';
  /** An IP address of the node, or `0.0.0.0`. */
  readonly address: string;
  readonly port: number;
  readonly tenant: string;
  readonly endpoint: Endpoint;
}

/** All routes and services of one config version, as the control plane sends them. */
export interface RouteConfig {
  readonly version: number;
  readonly services: readonly Service[];
  readonly routes: readonly Route[];
  /** Of containers that run. Absent: none. */
  readonly ports?: readonly PublishedPort[] | undefined;
}

/** A route with its service resolved. `prefix` has no trailing slash, so the root is the empty string. */
export interface CompiledRoute {
  readonly prefix: string;
  readonly route: Route;
  readonly service: Service;
}

/** The immutable, compiled set of all routes of one config version. Each list has its longest prefix first. */
export interface RouteTable {
  readonly version: number;
  readonly services: ReadonlyMap<string, Service>;
  readonly byExactHost: ReadonlyMap<string, readonly CompiledRoute[]>;
  /** Keyed by what follows `*.`. */
  readonly byWildcardHost: ReadonlyMap<string, readonly CompiledRoute[]>;
  readonly byAnyHost: readonly CompiledRoute[];
}
