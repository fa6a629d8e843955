/** A request to the admin API, as its client makes it. */

export interface Call {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly path: string;
  readonly body?: object;
  readonly headers?: Readonly<Record<string, string>>;
  readonly bigints?: ReadonlySet<string>;
  /** Silence that is no fault; absent: two minutes. */
  readonly patienceMs?: number;
}

export function withQuery(path: string, query: Readonly<Record<string, string | undefined>>): string {
  const search = new URLSearchParams(
    Object.entries(query).flatMap(([key, value]) => (value === undefined ? [] : [[key, value]])),
  );
  return search.size === 0 ? path : `${path}?${search.toString()}`;
}
