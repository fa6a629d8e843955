/**
 * Judges answers by Docker's published OpenAPI (Swagger 2.0) documents: is the status documented, is it of a documented type, and does the
 * body fit the schema? What does not fit is told as plain data, so that known faults of the documents can be listed.
 */
import { Ajv } from 'ajv';
import type { ErrorObject, ValidateFunction } from 'ajv';
import * as z from 'zod';
import type { SwaggerDocument } from './openapi-sources.ts';

/** What one answer has that the document has not. */
export interface Violation {
  readonly version: string;
  /** `GET /containers/{id}/json`. */
  readonly operation: string;
  /** The schema's place, `EndpointSettings.IPAMConfig`; of inline schemas the operation with the place. */
  readonly at: string;
  /** `null`, `string`, `missing Hostname`, `status 409`, `type text/plain`, `undocumented`. */
  readonly found: string;
}

export interface JudgedAnswer {
  readonly method: string;
  /** Without version and query. */
  readonly path: string;
  readonly status: number;
  readonly contentType: string | undefined;
  readonly text: string;
}

const responseSchema = z.looseObject({ schema: z.record(z.string(), z.unknown()).optional() });
const operationSchema = z.looseObject({
  produces: z.array(z.string()).optional(),
  responses: z.record(z.string(), responseSchema),
});
const documentSchema = z.looseObject({
  produces: z.array(z.string()).optional(),
  definitions: z.record(z.string(), z.record(z.string(), z.unknown())),
  paths: z.record(z.string(), z.record(z.string(), z.unknown())),
});

/** RFC 3339, as Go writes times. */
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)$/;
/** Formats that say something about JSON; the others are about the wire or about Go's types. */
const FORMATS = { dateTime: TIME, 'date-time': TIME };
/** What Swagger 2.0 and JSON Schema have in common; the rest is dropped. */
const KEYWORDS = new Set([
  'type',
  'enum',
  'required',
  'minimum',
  'maximum',
  'pattern',
  'minItems',
  'maxItems',
  'minLength',
  'maxLength',
]);
const UNSIGNED = /^uint/;

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * A schema of Swagger 2.0 as JSON Schema: `x-nullable` becomes a choice, what is not about the value is dropped. Each part carries its place,
 * which errors bring back. Pure.
 */
function jsonSchemaOf(schema: unknown, place: string): unknown {
  if (!isObject(schema)) return schema;
  const result: Record<string, unknown> = { place };
  for (const [key, value] of Object.entries(schema)) {
    if (key === 'properties' && isObject(value)) {
      result[key] = Object.fromEntries(
        Object.entries(value).map(([name, inner]) => [name, jsonSchemaOf(inner, `${place}.${name}`)]),
      );
    } else if (key === 'allOf' && Array.isArray(value)) result[key] = value.map((inner) => jsonSchemaOf(inner, place));
    else if (key === 'items') result[key] = jsonSchemaOf(value, `${place}[]`);
    else if (key === 'additionalProperties') result[key] = jsonSchemaOf(value, `${place}.*`);
    else if (key === '$ref') result[key] = `api${String(value)}`;
    else if (key === 'format' && typeof value === 'string') {
      if (Object.hasOwn(FORMATS, value)) result[key] = value;
      else if (UNSIGNED.test(value)) result['minimum'] ??= 0;
    } else if (KEYWORDS.has(key)) result[key] = value;
  }
  return schema['x-nullable'] === true ? { place, anyOf: [{ type: 'null' }, result] } : result;
}

function typeName(value: unknown): string {
  if (value === null) return 'null';
  return Array.isArray(value) ? 'array' : typeof value;
}

const placedSchema = z.looseObject({ place: z.string() });

function foundIn({ keyword, params, data }: ErrorObject): string {
  const { missingProperty }: Record<string, unknown> = params;
  if (keyword === 'required') return `missing ${String(missingProperty)}`;
  if (keyword === 'enum' || keyword === 'format' || keyword === 'pattern')
    return data === '' ? 'empty' : `${typeName(data)} ${JSON.stringify(data)}`;
  return keyword === 'type' ? typeName(data) : `${keyword} ${JSON.stringify(data)}`;
}

interface Operation {
  readonly name: string;
  readonly parts: readonly string[];
  readonly method: string;
  readonly produces: readonly string[];
  readonly responses: z.infer<typeof operationSchema>['responses'];
}

/** One version's document, ready to judge. */
export class OpenApi {
  readonly version: string;
  readonly #ajv: Ajv;
  readonly #definitions: ReadonlySet<string>;
  readonly #operations: readonly Operation[];
  readonly #compiled = new Map<string, ValidateFunction>();

  constructor(version: string, document: SwaggerDocument) {
    const parsed = documentSchema.parse(document);
    this.version = version;
    this.#definitions = new Set(Object.keys(parsed.definitions));
    this.#ajv = new Ajv({
      allErrors: true,
      strict: false,
      verbose: true,
      formats: FORMATS,
      validateSchema: false,
      inlineRefs: false,
    });
    const definitions = Object.fromEntries(
      Object.entries(parsed.definitions).map(([name, schema]) => [name, jsonSchemaOf(schema, name)]),
    );
    this.#ajv.addSchema({ $id: 'api', definitions });
    this.#operations = Object.entries(parsed.paths).flatMap(([path, methods]) =>
      Object.entries(methods).flatMap(([method, raw]) => {
        const operation = operationSchema.safeParse(raw).data;
        if (operation === undefined) return []; // `parameters` of a whole path.
        const produces = operation.produces ?? parsed.produces ?? [];
        return [
          {
            name: `${method.toUpperCase()} ${path}`,
            parts: path.split('/'),
            method: method.toUpperCase(),
            produces,
            responses: operation.responses,
          },
        ];
      }),
    );
  }

  get operations(): readonly string[] {
    return this.#operations.map(({ name }) => name);
  }

  /** Literal parts win over parameters: `/containers/json` is no container. Names of images may have slashes. */
  operationOf(method: string, path: string): string | undefined {
    return this.#find(method, path)?.name;
  }

  #find(method: string, path: string): Operation | undefined {
    const parts = path.split('/');
    const fits = (pattern: readonly string[]): boolean => {
      const name = pattern.findIndex((part) => part === '{name}');
      const more = name === -1 ? 0 : parts.length - pattern.length;
      if (more < 0 || (name === -1 && parts.length !== pattern.length)) return false;
      return pattern.every(
        (part, index) => part.startsWith('{') || part === parts[name !== -1 && index > name ? index + more : index],
      );
    };
    const candidates = this.#operations.filter((operation) => operation.method === method && fits(operation.parts));
    const literals = ({ parts: pattern }: Operation): number => pattern.filter((part) => !part.startsWith('{')).length;
    return candidates.toSorted((one, other) => literals(other) - literals(one))[0];
  }

  /** Everything that an answer has and the document has not. */
  judge(answer: JudgedAnswer): readonly Violation[] {
    const operation = this.#find(answer.method, answer.path);
    const say = (at: string, found: string): Violation => ({
      version: this.version,
      operation: operation?.name ?? `${answer.method} ${answer.path}`,
      at,
      found,
    });
    if (operation === undefined) return [say(`${answer.method} ${answer.path}`, 'undocumented')];
    const response = operation.responses[String(answer.status)] ?? operation.responses['default'];
    if (response === undefined)
      return [
        say(operation.name, `status ${String(answer.status)}`),
        ...this.judgeAs('ErrorResponse', answer.text, operation.name),
      ];
    const type = (answer.contentType ?? '').replace(/;.*$/, '').trim();
    const wrongType =
      answer.text !== '' && answer.status < 400 && !operation.produces.includes(type)
        ? [say(operation.name, `type ${type}`)]
        : [];
    const { schema } = response;
    // Binary answers and lines of JSON have schemas that say no more than that.
    if (schema === undefined || schema['type'] === 'string' || schema['type'] === 'file') return wrongType;
    return [
      ...wrongType,
      ...this.#violations(this.#compile(`${operation.name} ${String(answer.status)}`, schema), answer.text, operation.name),
    ];
  }

  /** For lines of streams, whose schemas stand among the definitions without an operation that names them. */
  judgeAs(definition: string, text: string, operation: string): readonly Violation[] {
    if (!this.#definitions.has(definition)) return [{ version: this.version, operation, at: definition, found: 'undocumented' }];
    return this.#violations(this.#compile(`definition ${definition}`, { $ref: `#/definitions/${definition}` }), text, operation);
  }

  #compile(key: string, schema: unknown): ValidateFunction {
    const known = this.#compiled.get(key);
    if (known !== undefined) return known;
    const validate = this.#ajv.compile(z.record(z.string(), z.unknown()).parse(jsonSchemaOf(schema, key)));
    this.#compiled.set(key, validate);
    return validate;
  }

  #violations(validate: ValidateFunction, text: string, operation: string): readonly Violation[] {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      return [{ version: this.version, operation, at: operation, found: `no JSON: ${text.slice(0, 60)}` }];
    }
    if (validate(value)) return [];
    // A choice with null fails three times: for null, for the schema, and as a choice. What the schema said is told.
    const errors = (validate.errors ?? []).filter(
      ({ keyword, schemaPath }) => keyword !== 'anyOf' && !schemaPath.endsWith('/anyOf/0/type'),
    );
    return errors.map((error) => ({
      version: this.version,
      operation,
      at: placedSchema.parse(error.parentSchema).place,
      found: foundIn(error),
    }));
  }
}
