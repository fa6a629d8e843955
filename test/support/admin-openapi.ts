/** The OpenAPI document of the admin API as a judge of what a running one answers. */
import { Ajv2020 } from 'ajv/dist/2020.js';
import type { ValidateFunction } from 'ajv/dist/2020.js';
import { parseExactJson } from '#admin/exact-json.ts';

type Json = Readonly<Record<string, unknown>>;

/** The name that the document has for the validator; references in it are resolved by it. */
const DOCUMENT_ID = 'https://ecluse.test/admin-api';

export function mapping(value: unknown): Json {
  return typeof value === 'object' && value !== null ? { ...value } : {};
}

/** What a JSON pointer names, after a `#`; undefined: nothing. */
export function resolvePointer(document: unknown, reference: string): unknown {
  if (!reference.startsWith('#/')) return undefined;
  const steps = reference
    .slice(2)
    .split('/')
    .map((step) => decodeURIComponent(step).replaceAll('~1', '/').replaceAll('~0', '~'));
  return steps.reduce<unknown>((node, step) => mapping(node)[step], document);
}

/** Follows references until there is something of its own. */
export function resolved(document: unknown, node: unknown): Json {
  const { $ref: reference } = mapping(node);
  return typeof reference === 'string' ? resolved(document, resolvePointer(document, reference)) : mapping(node);
}

export class AdminOpenApi {
  readonly #document: Json;
  readonly #ajv: Ajv2020;

  constructor(document: Json) {
    this.#document = document;
    this.#ajv = new Ajv2020({ strict: true, allErrors: true, allowUnionTypes: true, validateFormats: false });
    // A document is no schema, but its members are found in it by their pointers.
    this.#ajv.addVocabulary(Object.keys(document));
    this.#ajv.addSchema({ $id: DOCUMENT_ID, ...document });
  }

  /** Whether the dialect of the document takes it. */
  isSchema(schema: unknown): boolean {
    return this.#ajv.validateSchema(mapping(schema)) === true;
  }

  /** The schema that lies at a pointer, compiled. Errors: where it is no JSON Schema. */
  compile(pointer: string): ValidateFunction {
    return this.#ajv.compile({ $ref: `${DOCUMENT_ID}${pointer}` });
  }

  /** What is wrong with an answer, or nothing. `path`: as the document has it. */
  faultsOf(
    asked: { readonly method: string; readonly path: string },
    answer: { readonly status: number; readonly text: string },
  ): readonly string[] {
    const where = [asked.path, asked.method.toLowerCase(), 'responses'];
    const responses = mapping(resolvePointer(this.#document, pointerOf(['paths', ...where])));
    const status = String(answer.status) in responses ? String(answer.status) : 'default';
    const named = mapping(responses[status])['$ref'];
    const base = typeof named === 'string' ? named : pointerOf(['paths', ...where, status]);
    const content = mapping(mapping(resolvePointer(this.#document, base))['content']);
    const [type] = Object.keys(content);
    if (type === undefined) return answer.text === '' ? [] : [`status ${status} has no body in the document`];
    if (type === 'text/event-stream') return [];
    const validate = this.compile(`${base}/content/${escaped(type)}/schema`);
    const lines = type === 'application/x-ndjson' ? answer.text.trim().split('\n') : [answer.text];
    return lines.flatMap((line) => {
      if (validate(parseExactJson(line, new Set()))) return [];
      return (validate.errors ?? []).map(
        ({ instancePath, message = '', params }) => `${instancePath} ${message} ${JSON.stringify(params)}`,
      );
    });
  }
}

function escaped(step: string): string {
  return encodeURIComponent(step.replaceAll('~', '~0').replaceAll('/', '~1'));
}

function pointerOf(steps: readonly string[]): string {
  return `#/${steps.map(escaped).join('/')}`;
}
