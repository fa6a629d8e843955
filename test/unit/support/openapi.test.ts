import { describe, expect, test } from 'vitest';
import { OpenApi } from '../../support/openapi.ts';

const document = {
  swagger: '2.0',
  info: { version: '1.41' },
  produces: ['application/json'],
  definitions: {
    ErrorResponse: { type: 'object', required: ['message'], properties: { message: { type: 'string', 'x-nullable': false } } },
    Thing: {
      type: 'object',
      required: ['Id'],
      properties: {
        Id: { type: 'string' },
        Size: { type: 'integer', format: 'uint16' },
        At: { type: 'string', format: 'dateTime' },
        Kind: { type: 'string', enum: ['one', 'other'] },
        Parts: { type: 'object', additionalProperties: { $ref: '#/definitions/Part' } },
      },
    },
    Part: { type: 'object', 'x-nullable': true, properties: { Names: { type: 'array', items: { type: 'string' } } } },
  },
  paths: {
    '/things/json': { get: { responses: { '200': { schema: { type: 'array', items: { $ref: '#/definitions/Thing' } } } } } },
    '/things/{name}/json': {
      get: {
        responses: {
          '200': { schema: { $ref: '#/definitions/Thing' } },
          '404': { schema: { $ref: '#/definitions/ErrorResponse' } },
        },
      },
    },
  },
};

const api = new OpenApi('1.41', document);

function found(path: string, value: unknown, status = 200, contentType = 'application/json'): readonly string[] {
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  return api.judge({ method: 'GET', path, status, contentType, text }).map((violation) => `${violation.at} | ${violation.found}`);
}

describe('judge()', () => {
  test('finds nothing in what fits', () => {
    expect(
      found('/things/json', [
        { Id: 'x', Size: 1, At: '2026-01-01T00:00:00.5Z', Kind: 'one', Parts: { a: null, b: { Names: ['n'] } } },
      ]),
    ).toEqual([]);
    expect(found('/things/a/b/json', { Id: 'x', More: 1 })).toEqual([]);
    expect(found('/things/x/json', { message: 'no' }, 404)).toEqual([]);
  });

  test('names the place by the schema, not by the value', () => {
    expect(found('/things/x/json', { Id: null, Parts: { anything: { Names: [7] } } })).toEqual([
      'Thing.Id | null',
      'Part.Names[] | number',
    ]);
    expect(found('/things/x/json', { Parts: { a: 7 } })).toEqual(['Thing | missing Id', 'Part | number']);
  });

  test('minds enumerations, times and unsigned numbers', () => {
    expect(found('/things/x/json', { Id: '', Kind: '', At: 'yesterday', Size: -1 })).toEqual([
      'Thing.Size | minimum -1',
      'Thing.At | string "yesterday"',
      'Thing.Kind | empty',
    ]);
  });

  test('minds status, type and route', () => {
    expect(found('/things/x/json', { message: 'no' }, 409)).toEqual(['GET /things/{name}/json | status 409']);
    expect(found('/things/x/json', { Id: '' }, 200, 'text/plain')).toEqual(['GET /things/{name}/json | type text/plain']);
    expect(found('/nothing', {})).toEqual(['GET /nothing | undocumented']);
    expect(found('/things/x/json', 'no JSON')).toEqual(['GET /things/{name}/json | no JSON: no JSON']);
  });

  test('takes the literal path before the one with a parameter', () => {
    expect(api.operationOf('GET', '/things/json')).toBe('GET /things/json');
    expect(api.operationOf('GET', '/things/a/b/json')).toBe('GET /things/{name}/json');
  });
});
