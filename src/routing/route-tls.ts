/**
 * What routes and services want of TLS. A handshake comes before the request: what routes want of it counts for their host, and the strictest of them has its
 * way. Plain data and pure.
 */
import { levelsOf } from './match.ts';
import type { CompiledRoute, RouteTable } from './route-table.ts';

/** Certificates of CAs that clients' or endpoints' certificates are judged by. Each is trusted by itself, a root or not. */
export interface CaBundle {
  readonly name: string;
  readonly pem: string;
}

export interface ClientCertificateRule {
  /** The name of a CA bundle. */
  readonly caBundle: string;
  /** `required`: who has none that is valid is refused; `optional`: goes on without an identity. */
  readonly mode: 'required' | 'optional';
  /** Whether endpoints are told whose it is. */
  readonly forward: boolean;
}

export type TlsVersion = 'TLSv1.2' | 'TLSv1.3';

export interface RouteTls {
  readonly clientCertificate?: ClientCertificateRule | undefined;
  /** The least version of handshakes. Absent: that of the node. */
  readonly minVersion?: TlsVersion | undefined;
  /** The value of `Strict-Transport-Security`. Absent: what its endpoints say. */
  readonly hsts?: string | undefined;
  /** Whether plain HTTP is sent to HTTPS. Absent: as the node does. */
  readonly redirect?: boolean | undefined;
}

/** How an endpoint is spoken to. */
export interface EndpointTls {
  /** For SNI and the check of its certificate. Absent: its address is checked, and no name is sent. */
  readonly serverName?: string | undefined;
  /** The name of a CA bundle. Absent: the CAs that Node knows. */
  readonly caBundle?: string | undefined;
  /** Its certificate is not looked at. */
  readonly insecure?: boolean | undefined;
  /** The name of the certificate that it is shown. */
  readonly clientCertificate?: string | undefined;
}

/** What handshakes for a name have to be. */
export interface HandshakeWish {
  /** Names of the CA bundles whose certificates clients are asked for, sorted. Empty: they are not asked. */
  readonly caBundles: readonly string[];
  readonly minVersion: TlsVersion;
}

/** PERF: lists of routes are immutable, and change seldom. */
const wishes = new WeakMap<readonly CompiledRoute[], HandshakeWish | undefined>();

/** Whether a route wants anything of handshakes. */
export function wishesHandshake({ tls }: { readonly tls?: RouteTls | undefined }): boolean {
  return tls?.clientCertificate !== undefined || tls?.minVersion === 'TLSv1.3';
}

/** Undefined: nothing but what the node wants. `name` as `normaliseRequestHost` gives it. */
export function handshakeWishOf(table: RouteTable, name: string): HandshakeWish | undefined {
  if (table.handshakeRoutes === 0) return undefined;
  const found = levelsOf(table, name)
    .map(wishOf)
    .filter((wish) => wish !== undefined);
  return found.length <= 1 ? found[0] : united(found);
}

function wishOf(routes: readonly CompiledRoute[]): HandshakeWish | undefined {
  if (wishes.has(routes)) return wishes.get(routes);
  const own = routes.filter(({ route }) => wishesHandshake(route)).map(({ route }) => ownWish(route.tls ?? {}));
  const wish = own.length === 0 ? undefined : united(own);
  wishes.set(routes, wish);
  return wish;
}

function ownWish({ clientCertificate, minVersion = 'TLSv1.2' }: RouteTls): HandshakeWish {
  return { caBundles: clientCertificate === undefined ? [] : [clientCertificate.caBundle], minVersion };
}

function united(all: readonly HandshakeWish[]): HandshakeWish {
  return {
    caBundles: [...new Set(all.flatMap(({ caBundles }) => caBundles))].toSorted(),
    minVersion: all.some(({ minVersion }) => minVersion === 'TLSv1.3') ? 'TLSv1.3' : 'TLSv1.2',
  };
}
