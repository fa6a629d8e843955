/** What a route does with its requests beside leading them to a service. Plain data; what it means for bytes is the proxy's. */

/** A field that is set, or, without a value, taken away. Names in lower case. */
export interface FieldChange {
  readonly name: string;
  /** As it is written: `X-Env`. */
  readonly written: string;
  /** Undefined: all fields of the name go. */
  readonly value: string | undefined;
}

export interface Redirect {
  /** An absolute URL or a path, with `{host}`, `{path}`, `{query}` and `{uri}` (`locationOf`). */
  readonly to: string;
  /** 301, 302, 303, 307 or 308. */
  readonly status: number;
}

export interface FixedResponse {
  /** 200 to 599. */
  readonly status: number;
  readonly body: string;
  readonly contentType: string;
}

/** What requests are counted by: one bucket for each value. */
export type RequestKey =
  | { readonly kind: 'all' }
  | { readonly kind: 'ip' }
  | { readonly kind: 'header' | 'cookie'; readonly name: string };

export interface RateLimit {
  readonly requests: number;
  readonly perMs: number;
  /** As many may come at once. */
  readonly burst: number;
  readonly by: RequestKey;
}

export interface BasicAuth {
  readonly kind: 'basic';
  readonly realm: string;
  /** By name: what `ecluse hash-password` made of the password. */
  readonly users: Readonly<Record<string, string>>;
}

/** A service is asked about each request before it goes on. */
export interface ForwardAuth {
  readonly kind: 'forward';
  readonly serviceId: string;
  readonly path: string;
  readonly timeoutMs: number;
  /** Fields of its answer that go on to the endpoint, in lower case. */
  readonly pass: readonly string[];
}

export interface Mirror {
  readonly serviceId: string;
  /** 0 to 100. */
  readonly percent: number;
}

export interface RouteActions {
  /** As `parsePathPrefix` gives it. */
  readonly stripPrefix?: string | undefined;
  readonly requestFields?: readonly FieldChange[] | undefined;
  readonly responseFields?: readonly FieldChange[] | undefined;
  readonly redirect?: Redirect | undefined;
  readonly respond?: FixedResponse | undefined;
  readonly rateLimit?: RateLimit | undefined;
  readonly auth?: BasicAuth | ForwardAuth | undefined;
  readonly mirror?: Mirror | undefined;
}

/** Whether it answers by itself: then it leads to no service. */
export function answersItself(actions: RouteActions | undefined): boolean {
  return actions?.redirect !== undefined || actions?.respond !== undefined;
}

/** The services that are asked or copied to, beside the one that answers. */
export function helpersOf(actions: RouteActions | undefined): readonly string[] {
  const asked = actions?.auth?.kind === 'forward' ? [actions.auth.serviceId] : [];
  return actions?.mirror === undefined ? asked : [...asked, actions.mirror.serviceId];
}
