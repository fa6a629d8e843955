/** What a route asks of a request besides its host and path: methods, and header fields with an exact value. */
import { isFieldValue, isToken } from './header-field.ts';

/** What is looked at of a request, where a route asks for it. */
export interface RequestFacts {
  /** As it was sent; methods are case-sensitive (RFC 9110 §9.1). */
  readonly requestMethod: () => string;
  /** The value of a field by its lower-case name, those of several lines joined by `, ` (RFC 9110 §5.3); undefined where it is not there. */
  readonly requestField: (name: string) => string | undefined;
}

export interface RouteConditions {
  /** Empty: any. */
  readonly methods: readonly string[];
  /** Names in lower case, sorted. */
  readonly fields: readonly (readonly [name: string, value: string])[];
}

export type ConditionsReading =
  | { readonly kind: 'conditions'; readonly conditions: RouteConditions | undefined }
  | { readonly kind: 'invalid'; readonly reason: string };

const VALUE_LENGTH_MAX = 1024;
const METHODS_MAX = 16;
const FIELDS_MAX = 16;

function invalid(reason: string): { readonly kind: 'invalid'; readonly reason: string } {
  return { kind: 'invalid', reason };
}

/** Reads them. Undefined: every request meets them. */
export function parseConditions(
  methods: readonly string[] | undefined,
  headers: Readonly<Record<string, string>> | undefined,
): ConditionsReading {
  const names = [...new Set(methods ?? [])];
  const fields = Object.entries(headers ?? {}).map(([name, value]) => [name.toLowerCase(), value] as const);
  if (methods?.length === 0) return invalid('methods is empty; leave it away for all of them');
  const fault = methodsFault(names) ?? fieldsFault(fields);
  if (fault !== undefined) return invalid(fault);
  if (names.length === 0 && fields.length === 0) return { kind: 'conditions', conditions: undefined };
  return {
    kind: 'conditions',
    conditions: { methods: names.toSorted(), fields: fields.toSorted(([one], [other]) => (one < other ? -1 : 1)) },
  };
}

const KNOWN_METHODS: ReadonlySet<string> = new Set([
  'GET',
  'HEAD',
  'POST',
  'PUT',
  'DELETE',
  'CONNECT',
  'OPTIONS',
  'TRACE',
  'PATCH',
]);

function methodsFault(names: readonly string[]): string | undefined {
  if (names.length > METHODS_MAX) return `more than ${String(METHODS_MAX)} methods`;
  for (const name of names) {
    if (!isToken(name)) return `"${name.slice(0, 80)}" is no method`;
    const upper = name.toUpperCase();
    if (name !== upper && KNOWN_METHODS.has(upper)) return `the method "${name}" is written ${upper}`;
  }
  return undefined;
}

function fieldsFault(fields: RouteConditions['fields']): string | undefined {
  if (fields.length > FIELDS_MAX) return `more than ${String(FIELDS_MAX)} header fields`;
  const seen = new Set<string>();
  for (const [name, value] of fields) {
    if (!isToken(name)) return `"${name.slice(0, 80)}" is no name of a header field`;
    if (seen.has(name)) return `the header field ${name} is there twice`;
    if (!isFieldValue(value, VALUE_LENGTH_MAX)) return `the value of the header field ${name} cannot be sent`;
    seen.add(name);
  }
  return undefined;
}

export function meets(facts: RequestFacts, { methods, fields }: RouteConditions): boolean {
  if (methods.length > 0 && !methods.includes(facts.requestMethod())) return false;
  return fields.every(([name, value]) => facts.requestField(name) === value);
}

/** Negative where `one` is more specific: more fields first, then fewer methods, any method last. */
export function compareConditions(one: RouteConditions | undefined, other: RouteConditions | undefined): number {
  const byFields = (other?.fields.length ?? 0) - (one?.fields.length ?? 0);
  return byFields === 0 ? breadthOf(one) - breadthOf(other) : byFields;
}

function breadthOf(conditions: RouteConditions | undefined): number {
  const count = conditions?.methods.length ?? 0;
  return count === 0 ? METHODS_MAX + 1 : count;
}

/** The same for two routes that no request can tell apart. */
export function conditionsKey(conditions: RouteConditions | undefined): string {
  return conditions === undefined ? '' : JSON.stringify([conditions.methods, conditions.fields]);
}
