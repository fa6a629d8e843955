/**
 * One route of the admin API: what it takes, what it answers, and what it does. Routes are written as declarations, from which both come: how requests
 * are parsed and answers sent, and the OpenAPI document (`openapi.ts`). So neither can say what the other does not do.
 */
import * as z from 'zod';
import type { Clock } from '#clock';
import { entityTagOf, preconditionOf, refusePrecondition } from './entity-tag.ts';
import type { Precondition } from './entity-tag.ts';
import type { EventStreams } from './event-stream.ts';
import { exactJson } from './exact-json.ts';
import { queryOf, readJson, sendJson } from './exchange.ts';
import type { Exchange } from './exchange.ts';
import { BODY_BYTES_MAX } from './limits.ts';
import type { NodeControl } from './node-control.ts';
import { parseRequest } from './requests.ts';

export interface RouteContext {
  readonly control: NodeControl;
  readonly clock: Clock;
  readonly streams: EventStreams;
}

export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

/** What a request gets where nothing is wrong. */
export type RouteAnswer =
  | { readonly kind: 'json'; readonly status: 200 | 201 | 202; readonly schema: z.ZodType }
  /** 204. */
  | { readonly kind: 'nothing' }
  /** 200, line by line: `{"progress":…}`, then `{"report":…}` or `{"error":…}`. */
  | { readonly kind: 'lines'; readonly progress: z.ZodType; readonly report: z.ZodType }
  /** 200, server-sent events without an end. */
  | { readonly kind: 'events' };

export interface AdminRoute {
  readonly method: Method;
  /** Segments after `/v1`; `{name}` captures one. */
  readonly path: string;
  /** What it does, in a few words. */
  readonly summary: string;
  readonly query: z.ZodObject;
  /** Undefined: none is read. */
  readonly body: z.ZodType | undefined;
  readonly answer: RouteAnswer;
  /** Whether `If-Match` is asked: by the ETag of the resource that it changes. */
  readonly conditional: boolean;
  /** Statuses of errors, besides those that follow from the rest. */
  readonly refusals: readonly number[];
  readonly handle: (exchange: Exchange, context: RouteContext) => Promise<void>;
}

/** The names that a path captures. */
type ParameterOf<P extends string> = P extends `${string}{${infer N}}${infer Rest}` ? N | ParameterOf<Rest> : never;

/** Plain data that nobody changes. */
type Frozen<T> = T extends (infer E)[] ? readonly Frozen<E>[] : T extends object ? { readonly [K in keyof T]: Frozen<T[K]> } : T;

/** What a handler is given: nothing that was not parsed. */
export interface Given<P extends string, Q extends z.ZodType, B extends z.ZodType> extends RouteContext {
  readonly captured: (name: ParameterOf<P>) => string;
  readonly query: z.output<Q>;
  readonly body: z.output<B>;
  /** Of a route that is `conditional`. */
  readonly ifMatch: Precondition;
  readonly exchange: Exchange;
}

const NO_QUERY = z.strictObject({});
type NoQuery = typeof NO_QUERY;
type NoBody = z.ZodUndefined;

type ParseBody = <S extends z.ZodType>(schema: S, value: unknown) => z.output<S>;

interface Declaration<P extends string, Q extends z.ZodObject, B extends z.ZodType> {
  readonly path: P;
  readonly summary: string;
  readonly query?: Q;
  readonly body?: B;
  /** How the body is parsed; absent: the first fault is said. */
  readonly parseBody?: ParseBody;
  /** Absent: as all bodies. */
  readonly bodyBytesMax?: number;
  readonly conditional?: boolean;
  readonly refusals?: readonly number[];
}

interface JsonDeclaration<P extends string, Q extends z.ZodObject, B extends z.ZodType, A extends z.ZodType> extends Declaration<
  P,
  Q,
  B
> {
  readonly method: Method;
  readonly answer: A;
  /** Absent: 200. */
  readonly status?: 201 | 202;
  /** The ETag that is told with the answer. Absent: of a `GET` that of its answer, of others none. */
  readonly tag?: (answer: Frozen<z.output<A>>) => string;
  readonly handle: (given: Given<P, Q, B>) => Promise<Frozen<z.output<A>>>;
}

/** A route that answers with JSON. */
export function jsonRoute<
  const P extends string,
  A extends z.ZodType,
  Q extends z.ZodObject = NoQuery,
  B extends z.ZodType = NoBody,
>(declared: JsonDeclaration<P, Q, B, A>): AdminRoute {
  const { method, answer, status = 200, tag, handle } = declared;
  return {
    ...common(declared),
    method,
    answer: { kind: 'json', status, schema: answer },
    handle: async (exchange, context) => {
      const value = await handle(await givenOf(declared, method, exchange, context));
      const etag = tag?.(value) ?? (method === 'GET' ? entityTagOf(value) : undefined);
      sendJson(exchange, status, value, etag);
    },
  };
}

/** A route that answers that it is done. */
export function doneRoute<const P extends string, Q extends z.ZodObject = NoQuery, B extends z.ZodType = NoBody>(
  declared: Declaration<P, Q, B> & {
    readonly method: Exclude<Method, 'GET'>;
    readonly handle: (given: Given<P, Q, B>) => Promise<void>;
  },
): AdminRoute {
  const { method, handle } = declared;
  return {
    ...common(declared),
    method,
    answer: { kind: 'nothing' },
    handle: async (exchange, context) => {
      await handle(await givenOf(declared, method, exchange, context));
      exchange.response.writeHead(204).end();
    },
  };
}

/**
 * A route whose work takes its time, and is told line by line. The work goes on where the client leaves: a move is one transaction, and its end is in
 * the change log. What is refused before anything happened has the error's own status.
 */
export function linesRoute<
  const P extends string,
  G extends z.ZodType,
  R extends z.ZodType,
  Q extends z.ZodObject = NoQuery,
  B extends z.ZodType = NoBody,
>(
  declared: Declaration<P, Q, B> & {
    readonly progress: G;
    readonly report: R;
    readonly handle: (given: Given<P, Q, B>, say: (progress: Frozen<z.output<G>>) => void) => Promise<Frozen<z.output<R>>>;
  },
): AdminRoute {
  const { progress, report, handle } = declared;
  return {
    ...common(declared),
    method: 'POST',
    answer: { kind: 'lines', progress, report },
    handle: async (exchange, context) => {
      const { response } = exchange;
      const write = (line: object): void => {
        if (!response.headersSent)
          response.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' });
        if (response.writable) response.write(`${exactJson(line)}\n`);
      };
      const told = await handle(await givenOf(declared, 'POST', exchange, context), (step) => {
        write({ progress: step });
      });
      write({ report: told });
      response.end();
    },
  };
}

/** A stream of events. Its handler sends it. */
export function eventsRoute<const P extends string, Q extends z.ZodObject>(
  declared: Pick<Declaration<P, Q, NoBody>, 'path' | 'summary' | 'refusals'> & {
    readonly query: Q;
    readonly handle: AdminRoute['handle'];
  },
): AdminRoute {
  return { ...common(declared), method: 'GET', answer: { kind: 'events' }, handle: declared.handle };
}

function common(
  declared: Declaration<string, z.ZodObject, z.ZodType>,
): Pick<AdminRoute, 'path' | 'summary' | 'query' | 'body' | 'conditional' | 'refusals'> {
  const { path, summary, query = NO_QUERY, body, conditional = false, refusals = [] } = declared;
  return { path, summary, query, body, conditional, refusals };
}

async function givenOf<P extends string, Q extends z.ZodObject, B extends z.ZodType>(
  declared: Declaration<P, Q, B>,
  method: Method,
  exchange: Exchange,
  context: RouteContext,
): Promise<Given<P, Q, B>> {
  const query = parseRequest(declared.query ?? NO_QUERY, queryOf(exchange), 'query');
  const { body: schema, parseBody = parseAnyBody, bodyBytesMax = BODY_BYTES_MAX } = declared;
  const body = schema === undefined ? undefined : parseBody(schema, await readJson(exchange, bodyBytesMax));
  const header = exchange.request.headers['if-match'];
  if (declared.conditional !== true && method !== 'GET') refusePrecondition(header, `${method} ${declared.path}`);
  const ifMatch = declared.conditional === true ? preconditionOf(header) : undefined;
  const captured = (name: ParameterOf<P>): string => exchange.captured[name] ?? '';
  const given = { ...context, captured, query, body, ifMatch, exchange };
  // The declaration without a query or body is the one whose type is `NoQuery` or `NoBody`, which the compiler cannot follow.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- see above
  return given as Given<P, Q, B>;
}

const parseAnyBody: ParseBody = (schema, value) => parseRequest(schema, value, 'body');
