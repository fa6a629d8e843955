/** The OpenAPI document of the admin API: whole, nothing else, and valid. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { ADMIN_ROUTES, adminOpenApi } from '#admin/routes.ts';
import { AdminOpenApi, mapping, resolved, resolvePointer } from '../../support/admin-openapi.ts';

const document = mapping(JSON.parse(JSON.stringify(adminOpenApi())));

interface Operation {
  readonly path: string;
  readonly method: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

const operations: readonly Operation[] = Object.entries(mapping(document['paths'])).flatMap(([path, item]) =>
  Object.entries(mapping(item)).map(([method, fields]) => ({ path, method, fields: mapping(fields) })),
);

function parametersOf({ fields }: Operation): readonly Readonly<Record<string, unknown>>[] {
  const { parameters } = fields;
  return Array.isArray(parameters) ? parameters.map((one: unknown) => resolved(document, one)) : [];
}

/** Every value of the document with its pointer. */
function* nodes(value: unknown, pointer = '#'): Generator<readonly [pointer: string, value: unknown]> {
  yield [pointer, value];
  if (typeof value !== 'object' || value === null) return;
  for (const [key, member] of Object.entries(value))
    yield* nodes(member, `${pointer}/${encodeURIComponent(key.replaceAll('~', '~0').replaceAll('/', '~1'))}`);
}

describe('adminOpenApi()', () => {
  test('docs/admin-api.openapi.json is that of the code (bin/ecluse config-schema --admin-api >docs/admin-api.openapi.json; npx oxfmt docs)', async () => {
    const kept: unknown = JSON.parse(await readFile(join(import.meta.dirname, '../../../docs/admin-api.openapi.json'), 'utf8'));
    expect(kept).toEqual(document);
  });

  test('has every route, and nothing else', () => {
    const told = operations.map(({ method, path }) => `${method.toUpperCase()} ${path}`);
    expect(told.toSorted()).toEqual(ADMIN_ROUTES.map(({ method, path }) => `${method} /v1/${path}`).toSorted());
  });

  test('is of OpenAPI 3.1: its fields are those of an operation, and each has a name of its own and answers', () => {
    expect(document['openapi']).toMatch(/^3\.1\.\d+$/);
    expect(mapping(document['info'])).toMatchObject({
      title: expect.any(String) as unknown,
      version: expect.any(String) as unknown,
    });
    expect(new Set(operations.map(({ fields }) => fields['operationId'])).size).toBe(operations.length);
    const known = ['operationId', 'summary', 'parameters', 'requestBody', 'responses'];
    for (const { fields } of operations) {
      expect(Object.keys(fields).filter((key) => !known.includes(key))).toEqual([]);
      const responses = Object.entries(mapping(fields['responses']));
      expect(responses.map(([status]) => status)).toEqual(expect.arrayContaining(['default']));
      expect(responses.some(([status]) => status.startsWith('2'))).toBe(true);
      for (const [status, response] of responses) {
        expect(status).toMatch(/^(?:[2345]\d\d|default)$/);
        expect(resolved(document, response)['description']).toMatch(/\S/);
      }
    }
  });

  test('declares the parameters of a path, each once and with its meaning, and no others in it', () => {
    for (const operation of operations) {
      const parameters = parametersOf(operation);
      const captured = [...operation.path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
      expect(parameters.filter((one) => one['in'] === 'path').map(({ name }) => name)).toEqual(captured);
      const keys = parameters.map((one) => `${String(one['in'])} ${String(one['name'])}`);
      expect(new Set(keys).size).toBe(keys.length);
      const undescribed = parameters.filter(({ description }) => typeof description !== 'string' || description === '');
      expect(undescribed.map(({ name }) => `${operation.path} ${String(name)}`)).toEqual([]);
      expect(parameters.filter((one) => one['in'] === 'path' && one['required'] !== true)).toEqual([]);
    }
  });

  test('has no reference to what is not there', () => {
    const dangling = [...nodes(document)].flatMap(([pointer, value]) =>
      pointer.endsWith('/$ref') && (typeof value !== 'string' || resolvePointer(document, value) === undefined) ? [pointer] : [],
    );
    expect(dangling).toEqual([]);
  });

  test('its schemas are JSON Schemas', () => {
    const judge = new AdminOpenApi(document);
    const schemas = [...nodes(document)].filter(([pointer]) => /\/schema$|^#\/components\/schemas\/[^/]+$/.test(pointer));
    expect(schemas.length).toBeGreaterThan(50);
    for (const [pointer, schema] of schemas) expect(judge.isSchema(schema), pointer).toBe(true);
    for (const name of ['Status', 'ContainerList', 'EdgeSettings', 'Error'])
      expect(judge.compile(`#/components/schemas/${name}`)).toBeTypeOf('function');
  });

  test('a body that the document refuses is refused, and one that it takes is taken, by the route', () => {
    const judge = new AdminOpenApi(document);
    const bodies = [
      {},
      { name: 'acme' },
      { name: '' },
      { name: 'acme', quota: { containersMax: -1 } },
      { name: 'acme', quota: { containersMax: 3 }, more: 1 },
      { to: 'b' },
      { to: 'b', endSessions: 'yes' },
      { dryRun: true },
      { count: 0 },
      { count: 2 },
      { state: 'suspended' },
      { drainMs: 86_400_001 },
      { operations: [] },
      { operations: [{ op: 'remove-service', name: 'shop' }] },
      [],
      'text',
    ];
    let compared = 0;
    for (const route of ADMIN_ROUTES) {
      if (route.body === undefined) continue;
      const pointer = `#/paths/${encodeURIComponent(`/v1/${route.path}`.replaceAll('/', '~1'))}/${route.method.toLowerCase()}`;
      const validate = judge.compile(`${pointer}/requestBody/content/application~1json/schema`);
      for (const body of bodies) {
        expect(validate(body), `${route.path} ${JSON.stringify(body)}`).toBe(route.body.safeParse(body).success);
        compared += 1;
      }
    }
    expect(compared).toBeGreaterThan(100);
  });
});
