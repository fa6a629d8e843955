/**
 * The actions of routes as a worker needs them: bytes, names and keys, made when a route is used first.
 *
 * PERF: routes without actions never come here.
 */
import { createHash } from 'node:crypto';
import type { FieldChange, RouteActions } from '#routing/actions.ts';
import { answersItself } from '#routing/actions.ts';
import { routeKeyOf } from '#routing/merge.ts';
import type { Route } from '#routing/route-table.ts';
import type { OwnField, OwnResponse } from '#proxy/error-response.ts';
import { foldedName } from '#proxy/http1/octets.ts';
import type { FieldEdits } from '#proxy/http1/rewrite.ts';

export interface PreparedActions {
  readonly actions: RouteActions;
  /** The same for the same route and rate limit in all workers and versions; short, since each bucket is kept by it. */
  readonly limiterId: string;
  /** The Host that endpoints get; empty: the one that the client named. */
  readonly host: Buffer;
  readonly requestFields: FieldEdits | undefined;
  /** What is changed of responses over plain HTTP, and over TLS. */
  readonly plain: AnswerFields;
  readonly secure: AnswerFields;
  /** Of a route that responds itself. */
  readonly response: OwnResponse | undefined;
  /** Whether a request has to pass something before it goes on, or never does. */
  readonly isGated: boolean;
}

export interface AnswerFields {
  /** Of endpoints' responses. */
  readonly edits: FieldEdits | undefined;
  /** Of our own. */
  readonly own: readonly OwnField[];
}

const NOTHING = Buffer.alloc(0);
const NO_ACTIONS: RouteActions = {};
/** Tells endpoints who was let through by name and password. */
export const USER_FIELD = 'X-Forwarded-User';

/** By route: one that did not change keeps what was made for it. */
export class ActionBook {
  readonly #prepared = new WeakMap<Route, PreparedActions>();

  /** Undefined: the route does nothing with its requests but lead them on. */
  of(route: Route): PreparedActions | undefined {
    const { actions, tls } = route;
    if (actions === undefined && tls?.hsts === undefined) return undefined;
    const known = this.#prepared.get(route);
    if (known !== undefined) return known;
    const prepared = prepareActions(route, actions ?? NO_ACTIONS);
    this.#prepared.set(route, prepared);
    return prepared;
  }
}

function prepareActions(route: Route, actions: RouteActions): PreparedActions {
  const { requestFields = [], responseFields = [], rateLimit, auth } = actions;
  const host = requestFields.find(({ name }) => name === 'host')?.value ?? '';
  return {
    actions,
    limiterId: rateLimit === undefined ? '' : hashOf(`${route.host} ${routeKeyOf(route)}\n${JSON.stringify(rateLimit)}`),
    host: Buffer.from(host, 'latin1'),
    requestFields: fieldEdits(
      requestFields.filter(({ name }) => name !== 'host'),
      namesOf(auth),
    ),
    plain: answerFields(responseFields),
    secure: answerFields([...responseFields, ...hstsOf(route)]),
    response: responseOf(actions),
    isGated: rateLimit !== undefined || auth !== undefined || answersItself(actions),
  };
}

function answerFields(changes: readonly FieldChange[]): AnswerFields {
  return {
    edits: fieldEdits(changes, []),
    own: changes.map((change) => ({ name: change.name, line: change.value === undefined ? undefined : lineOf(change) })),
  };
}

/** RFC 6797 §7.2: never over plain HTTP. A field that the route sets by that name is what it wants. */
function hstsOf({ tls, actions }: Route): readonly FieldChange[] {
  const name = 'strict-transport-security';
  const isSet = actions?.responseFields?.some((change) => change.name === name) === true;
  return tls?.hsts === undefined || isSet ? [] : [{ name, written: 'Strict-Transport-Security', value: tls.hsts }];
}

function hashOf(text: string): string {
  return createHash('sha256').update(text).digest('base64url');
}

/** Fields that nobody may send where they say who was let through, and the password, which is for us alone. */
function namesOf(auth: RouteActions['auth']): readonly string[] {
  if (auth === undefined) return [];
  return auth.kind === 'basic' ? ['authorization', USER_FIELD.toLowerCase()] : auth.pass;
}

function responseOf({ respond }: RouteActions): OwnResponse | undefined {
  if (respond === undefined) return undefined;
  const { status, body, contentType } = respond;
  const fields = body === '' ? [] : [['Content-Type', contentType] as const];
  return { status, fields, body: Buffer.from(body).toString('latin1') };
}

/** `names`: what goes in any case. */
function fieldEdits(changes: readonly FieldChange[], names: readonly string[]): FieldEdits | undefined {
  if (changes.length + names.length === 0) return undefined;
  return {
    drops: [...changes.map(({ name }) => name), ...names].map(foldedName),
    lines: changes.length === 0 ? NOTHING : Buffer.from(changes.map(lineOf).join(''), 'latin1'),
  };
}

function lineOf({ written, value }: FieldChange): string {
  return value === undefined ? '' : `${written}: ${value}\r\n`;
}
