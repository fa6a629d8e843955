/** The OpenAPI 3.1 document of the admin API, from the declarations of its routes: what parses requests and what answers look like. Pure. */
import * as z from 'zod';
import type { AdminRoute, RouteAnswer } from './admin-route.ts';

type Json = Readonly<Record<string, unknown>>;

/** That of the paths, not that of the program. */
const API_VERSION = '1';
const DIALECT = 'https://json-schema.org/draft/2020-12/schema';
const COMPONENTS = '#/components/schemas/';

/** What a path captures, by the segments that it is in. */
const PARAMETERS: Readonly<Record<string, string>> = {
  'tenants/{name}': 'A tenant.',
  'certs/{name}': 'A certificate.',
  'hosts/{name}': 'A host.',
  'prices/{version}': 'The version of a price book, or last.',
  'invoices/{tenant}': 'A tenant, also one that is gone.',
  'containers/{ref}': 'An id, the beginning of one, NAME where it is the only one, or TENANT/NAME with the slash as %2F.',
  'snapshots/{ref}': 'A snapshot: its id, or the beginning of it. For a restore also a container, for its newest one.',
};

/** How errors come, whatever the status (`api-error.ts`). */
const errorSchema = z.object({
  error: z.object({
    code: z.string().describe('ECLUSE_…, for programs.'),
    message: z.string().describe('What and why, for people.'),
    mend: z.string().exactOptional().describe('What to do.'),
  }),
});

/** Answers that many requests can get, by status: name in the document, and what they mean. */
const REFUSALS: Readonly<Record<string, { readonly name: string; readonly description: string }>> = {
  400: { name: 'Invalid', description: 'The request is not valid; the message names what is wrong.' },
  404: { name: 'NotFound', description: 'There is no such thing.' },
  409: { name: 'Refused', description: 'It cannot be done as things are; nothing was changed.' },
  412: { name: 'Changed', description: 'The resource has none of the ETags that If-Match names; nothing was changed.' },
  413: { name: 'TooLong', description: 'The body is too long.' },
  429: { name: 'TooMany', description: 'There are too many of them.' },
  default: { name: 'Failed', description: 'Any other error.' },
};

/** Header fields of requests, by their names in the document. */
const HEADERS = {
  IfMatch: headerOf('If-Match', 'ETags, of which the resource must have one. Without it: whatever there is.'),
  IfNoneMatch: headerOf('If-None-Match', 'ETags of what is there already.'),
  LastEventId: headerOf('Last-Event-ID', 'The sequence number to go on after.'),
} as const;

/** `named`: the schemas of answers by the names that they get in the document. */
export function openApiOf(routes: readonly AdminRoute[], named: Readonly<Record<string, z.ZodType>>): Json {
  const names = new Map(Object.entries({ ...named, Error: errorSchema }).map(([name, schema]) => [schema, name]));
  const paths = new Map<string, Record<string, unknown>>();
  for (const route of routes) {
    const path = `/v1/${route.path}`;
    const item = paths.get(path) ?? {};
    item[route.method.toLowerCase()] = operationOf(route, names);
    paths.set(path, item);
  }
  return {
    openapi: '3.1.1',
    info: {
      title: 'Écluse admin API',
      version: API_VERSION,
      description: 'HTTP and JSON on the admin socket of a node. Who may open the socket commands the node.',
    },
    jsonSchemaDialect: DIALECT,
    servers: [{ url: '/', description: "The node's admin socket." }],
    security: [],
    paths: Object.fromEntries(paths),
    components: { schemas: componentsOf(names), responses: refusalResponses(), parameters: HEADERS },
  };
}

function operationOf(route: AdminRoute, names: ReadonlyMap<z.ZodType, string>): Json {
  const { method, path, summary, body, conditional } = route;
  return {
    operationId: operationIdOf(method, path),
    summary,
    parameters: [
      ...pathParametersOf(path),
      ...queryParametersOf(route.query),
      ...(conditional ? [headerRef('IfMatch')] : []),
      ...(hasTag(route) ? [headerRef('IfNoneMatch')] : []),
      ...(route.answer.kind === 'events' ? [headerRef('LastEventId')] : []),
    ],
    ...(body === undefined
      ? {}
      : { requestBody: { required: true, content: { 'application/json': { schema: inputSchema(body) } } } }),
    responses: { ...answerOf(route.answer, names, hasTag(route)), ...refusalsOf(route) },
  };
}

/** `patchTenantsByName`. */
function operationIdOf(method: string, path: string): string {
  const words = path.split(/[/.]/).map((part) => {
    const name = /^\{(\w+)\}$/.exec(part)?.[1];
    return name === undefined ? capital(part) : `By${capital(name)}`;
  });
  return method.toLowerCase() + words.join('');
}

function capital(word: string): string {
  return word.charAt(0).toUpperCase() + word.slice(1);
}

/** Every answer to a question has an ETag. */
function hasTag({ method, answer }: AdminRoute): boolean {
  return method === 'GET' && answer.kind === 'json';
}

function pathParametersOf(path: string): readonly Json[] {
  return [...path.matchAll(/(\w+\/\{(\w+)\})/g)].map(([, segments = '', name = '']) => ({
    name,
    in: 'path',
    required: true,
    description: PARAMETERS[segments] ?? '',
    schema: { type: 'string', minLength: 1 },
  }));
}

function queryParametersOf(query: z.ZodObject): readonly Json[] {
  const { properties, required } = inputSchema(query);
  const isRequired = (name: string): boolean => Array.isArray(required) && required.includes(name);
  return Object.entries(mappingOf(properties)).map(([name, schema]) => ({
    name,
    in: 'query',
    required: isRequired(name),
    description: mappingOf(schema)['description'] ?? '',
    schema,
  }));
}

function mappingOf(value: unknown): Json {
  return typeof value === 'object' && value !== null ? { ...value } : {};
}

function headerOf(name: string, description: string): Json {
  return { name, in: 'header', required: false, description, schema: { type: 'string' } };
}

function headerRef(name: keyof typeof HEADERS): Json {
  return { $ref: `#/components/parameters/${name}` };
}

function answerOf(answer: RouteAnswer, names: ReadonlyMap<z.ZodType, string>, isTagged: boolean): Json {
  switch (answer.kind) {
    case 'json': {
      const headers = isTagged ? { headers: { ETag: { description: 'Of this answer.', schema: { type: 'string' } } } } : {};
      return {
        [answer.status]: { description: 'Done.', ...headers, ...contentOf('application/json', refTo(answer.schema, names)) },
      };
    }
    case 'nothing':
      return { 204: { description: 'Done.' } };
    case 'lines': {
      const line = (name: string, schema: Json): Json => ({
        type: 'object',
        properties: { [name]: schema },
        required: [name],
        additionalProperties: false,
      });
      const { error } = mappingOf(mappingOf(inputSchema(errorSchema))['properties']);
      const oneOf = [
        line('progress', refTo(answer.progress, names)),
        line('report', refTo(answer.report, names)),
        line('error', mappingOf(error)),
      ];
      const description = 'Line by line, each as the schema says: any number of progress, then a report or an error.';
      return { 200: { description, ...contentOf('application/x-ndjson', { oneOf }) } };
    }
    case 'events': {
      const description = 'Without an end: each event has the sequence number, the kind, and the change as JSON.';
      return { 200: { description, ...contentOf('text/event-stream', { type: 'string' }) } };
    }
  }
}

/** What follows from the declaration, and what it says besides. */
function refusalsOf(route: AdminRoute): Json {
  const takes = route.body !== undefined || Object.keys(route.query.shape).length > 0;
  const statuses = new Set([
    ...(takes ? [400] : []),
    ...(route.path.includes('{') ? [404] : []),
    ...(route.conditional ? [412] : []),
    ...(route.body === undefined ? [] : [413]),
    ...route.refusals,
  ]);
  const refusals = [...[...statuses].map(String), 'default'].map((status): [string, Json] => {
    const name = REFUSALS[status]?.name;
    if (name === undefined) throw new Error(`the document does not say what status ${status} means`);
    return [status, { $ref: `#/components/responses/${name}` }];
  });
  return {
    ...(hasTag(route) ? { 304: { description: 'It is what If-None-Match names.' } } : {}),
    ...Object.fromEntries(refusals),
  };
}

function refusalResponses(): Json {
  const content = contentOf('application/json', { $ref: `${COMPONENTS}Error` });
  return Object.fromEntries(
    Object.values(REFUSALS).map(({ name, description }): [string, Json] => [name, { description, ...content }]),
  );
}

function contentOf(type: string, schema: Json): Json {
  return { content: { [type]: { schema } } };
}

/** Errors: where an answer has no name, which a test would show. */
function refTo(schema: z.ZodType, names: ReadonlyMap<z.ZodType, string>): Json {
  const name = names.get(schema);
  if (name === undefined) throw new Error('an answer of the admin API has no name in answers.ts');
  return { $ref: `${COMPONENTS}${name}` };
}

/** A request's side of a schema: before defaults and transformations. */
function inputSchema(schema: z.ZodType): Json {
  const { $schema: _dialect, ...rest } = z.toJSONSchema(schema, { io: 'input' });
  return rest;
}

function componentsOf(names: ReadonlyMap<z.ZodType, string>): Json {
  const registry = z.registry<{ readonly id: string }>();
  for (const [schema, id] of names) registry.add(schema, { id });
  const { schemas } = z.toJSONSchema(registry, {
    io: 'output',
    uri: (id) => `${COMPONENTS}${id}`,
    unrepresentable: 'any',
    override: ({ zodSchema, jsonSchema }) => {
      // What JSON has only one kind of number for.
      if (zodSchema instanceof z.core.$ZodBigInt) jsonSchema.type = 'integer';
    },
  });
  return Object.fromEntries(Object.entries(schemas).map(([name, { $schema: _dialect, $id: _id, ...schema }]) => [name, schema]));
}
