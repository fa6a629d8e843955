/**
 * What routing knows. Services, routes, ports, configs and deltas are plain, structured-cloneable data that crosses process borders; the compiled table is
 * each worker's own.
 */

import type { RouteActions } from './actions.ts';
import type { PathPattern } from './path-pattern.ts';
import type { RouteConditions } from './route-conditions.ts';
import type { CaBundle, RouteTls, EndpointTls } from './route-tls.ts';
import type { ShardedMap } from '#sharded-map';

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
  /** When its program was started, by the wall clock: it may not listen for a moment. Absent: it is not ours to start. */
  readonly startedMs?: number | undefined;
  /** Its share of the requests beside the others'; a whole number from 0, which takes nothing new. Absent: 1. */
  readonly weight?: number | undefined;
  /** How it is spoken to over TLS. Absent: in the clear. */
  readonly tls?: EndpointTls | undefined;
}

/** Which endpoint takes a request. `name`: of a header field in lower case, or of a cookie. */
export type Balance =
  | { readonly kind: 'least-request' | 'round-robin' | 'random-two' | 'hash-ip' }
  | { readonly kind: 'hash-header' | 'hash-cookie'; readonly name: string };

/** Those of its exchanges that are not the node's, each in ms. */
export interface ServiceTimeouts {
  readonly connectMs?: number | undefined;
  readonly firstByteMs?: number | undefined;
  /** Of bodies, WebSockets and the like in which nothing moves. */
  readonly idleMs?: number | undefined;
}

/** What it may have at once. Of the whole node; a worker keeps its share (`shareOf`). */
export interface ServiceLimits {
  /** Requests at each endpoint, upgraded streams included. Absent: what a worker may have at any endpoint. */
  readonly connections?: number | undefined;
  /** Requests that wait while all endpoints have that many. Absent: none. */
  readonly pending?: number | undefined;
  /** How long a request waits, for an endpoint that is full, frozen or asleep. Absent: as long as others. */
  readonly holdMs?: number | undefined;
}

/** How each of its endpoints is asked whether it is well: a GET, and a status of 2xx or 3xx. */
export interface HealthCheck {
  readonly path: string;
  /** From one check to the next. */
  readonly intervalMs: number;
  /** For the connection and the whole head of the answer. */
  readonly timeoutMs: number;
  /** Checks in a row that fail before it gets no requests, and that pass before it gets them again. */
  readonly unhealthyAfter: number;
  readonly healthyAfter: number;
}

/** What an operator wants of a service besides its endpoints. */
export interface ServicePolicy {
  readonly balance: Balance;
  /** Absent: all are the node's. */
  readonly timeouts?: ServiceTimeouts | undefined;
  /** Absent: those of all services. */
  readonly limits?: ServiceLimits | undefined;
  /** Absent: nobody asks, all are taken for well. */
  readonly health?: HealthCheck | undefined;
}

/** What a route leads to. */
export interface Service {
  readonly id: string;
  readonly tenant: string;
  readonly endpoints: readonly Endpoint[];
  /** The version of the PROXY protocol that its endpoints want every connection to begin with. Absent: none. */
  readonly sendProxy?: 1 | 2 | undefined;
  /** INVARIANT: there, where an endpoint has a weight. PERF: absent for services that want nothing, as those of containers: one look tells. */
  readonly policy?: ServicePolicy | undefined;
}

export interface SplitShare {
  readonly serviceId: string;
  /** A whole number from 0. */
  readonly weight: number;
}

export interface Route {
  /** Exact, or `*.example.com` (one label), or `*`. */
  readonly host: string;
  /**
   * A prefix by segments: `/x` and `/x/` are the same and match `/x` and `/x/…`, not `/xy`. Or `=/x`, that path alone. Or `~` and an expression of
   * RE2, found anywhere in the path unless it has anchors.
   */
  readonly path: string;
  /** Those it is for. Absent: all. */
  readonly methods?: readonly string[] | undefined;
  /** Header fields and the values that they must have. Absent: none. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** The first of `split`, where there is one. Empty: it answers itself, by its actions. */
  readonly serviceId: string;
  /** Whose requests they are, of a route without a service. */
  readonly tenant?: string | undefined;
  readonly actions?: RouteActions | undefined;
  /** What it wants of TLS. Absent: nothing. */
  readonly tls?: RouteTls | undefined;
  /** Its requests go to several services, each by its share of the weights. Absent: all go to `serviceId`. */
  readonly split?: readonly SplitShare[] | undefined;
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
  /** Those that routes and services name. Absent: none. */
  readonly caBundles?: readonly CaBundle[] | undefined;
}

/** What changes from one version to the next. */
export interface RouteDelta {
  /** The version that it changes. */
  readonly base: number;
  readonly version: number;
  /** New, or as they are from now on. */
  readonly services: readonly Service[];
  readonly removedServices: readonly string[];
  /** All routes of each host that changed; none: it has none any more. */
  readonly hosts: readonly { readonly host: string; readonly routes: readonly Route[] }[];
  /** All of them. Absent: as before. */
  readonly caBundles?: readonly CaBundle[] | undefined;
}

/** A route as it is asked about. */
export interface CompiledRoute {
  readonly pattern: PathPattern;
  /** Undefined: every request to host and path meets them. */
  readonly conditions: RouteConditions | undefined;
  readonly route: Route;
  /** Of its service, which is looked up when it is matched: a service that changes touches no route. */
  readonly tenant: string;
  /** For a route that is split: a request that matches goes on as one of these. */
  readonly arms: SplitArms | undefined;
  /** For an arm: the route that is split. */
  readonly whole: CompiledRoute | undefined;
}

/** Each arm is a route to one service only. */
export interface SplitArms {
  readonly total: number;
  readonly list: readonly { readonly upTo: number; readonly route: CompiledRoute }[];
}

/** The immutable, compiled set of all routes of one config version. */
export interface RouteTable {
  readonly version: number;
  readonly services: ShardedMap<Service>;
  /** By host as routes name it: exact, `*.example.com`, `*`. Each list has what is asked first first (`compile.ts`). */
  readonly hosts: ShardedMap<readonly CompiledRoute[]>;
  /** How many routes lead to a service. */
  readonly uses: ShardedMap<number>;
  /** By id, once for each service that has it. */
  readonly endpoints: ShardedMap<readonly Endpoint[]>;
  /** By name; a few. */
  readonly caBundles: ReadonlyMap<string, CaBundle>;
  /** How many routes want something of handshakes. */
  readonly handshakeRoutes: number;
}
