/** How cases are written down: an attack as data, and what must come of it. */
import { expect } from 'vitest';
import * as z from 'zod';
import { essence, strangerOf } from '../../../support/attack.ts';
import type { AttackWorld, Kind } from '../../../support/attack.ts';
import type { ApiAnswer, ApiCall } from '../../../support/docker-api.ts';
import type { Row } from './rows.ts';

export interface AttackCase {
  readonly row: Row;
  readonly name: string;
  readonly run: (world: AttackWorld) => Promise<void>;
}

export function post(path: string, body?: unknown): ApiCall {
  return { method: 'POST', path, ...(body === undefined ? {} : { body }) };
}

export function get(path: string): ApiCall {
  return { path };
}

export function remove(path: string): ApiCall {
  return { method: 'DELETE', path };
}

/** A create request; a string is the exact bytes of the body. */
export function create(body: string | Readonly<Record<string, unknown>>, query = ''): ApiCall {
  const path = `/containers/create${query}`;
  if (typeof body !== 'string') return post(path, { Image: 'own:1', ...body });
  return { method: 'POST', path, body, headers: { 'content-type': 'application/json' } };
}

/** A create request with these fields of HostConfig. */
export function hosted(fields: Readonly<Record<string, unknown>>): ApiCall {
  return create({ HostConfig: fields });
}

export function filtersQuery(filters: unknown): string {
  return `filters=${encodeURIComponent(JSON.stringify(filters))}`;
}

export const UPGRADE = { connection: 'Upgrade', upgrade: 'tcp' } as const;

/** The message of an answer that must be an error in Docker's form. */
export function messageOf(answer: ApiAnswer): string {
  expect(answer.headers['content-type'], answer.text).toMatch(/^application\/json/);
  return z.strictObject({ message: z.string().min(1) }).parse(JSON.parse(answer.text)).message;
}

/** An object of the victim's must be answered as one that nobody has. */
export async function expectIndistinct(
  world: AttackWorld,
  references: readonly string[],
  callOf: (reference: string) => ApiCall,
): Promise<void> {
  for (const reference of references) {
    const stranger = strangerOf(reference);
    const theirs = await world.ask(callOf(reference));
    const nobodys = await world.ask(callOf(stranger));
    expect(essence(theirs, reference), `${reference} against ${stranger}`).toEqual(essence(nobodys, stranger));
    expect(theirs.text).not.toMatch(/gold|ingot|nugget|WHO=globex/);
  }
}

type Calls = Readonly<Record<string, (reference: string) => ApiCall>>;

/** One case a call, each with everything that the victim's objects of that kind can be called. */
export function indistinct(row: Row, kind: Kind, calls: Calls): readonly AttackCase[] {
  return Object.entries(calls).map(([name, callOf]) => ({
    row,
    name: `${name}: another tenant’s ${kind} is answered like one that does not exist`,
    run: async (world) => {
      await expectIndistinct(world, world.references[kind], callOf);
    },
  }));
}

export interface Expected {
  readonly status?: readonly number[];
  readonly says?: RegExp;
}

/** An attack that is refused, in Docker's form. */
export function refused(
  row: Row,
  name: string,
  call: ApiCall,
  { status = [400, 403, 404], says = /./ }: Expected = {},
): AttackCase {
  return {
    row,
    name,
    run: async ({ ask }) => {
      const answer = await ask(call);
      expect(status, `${String(answer.status)} ${answer.text}`).toContain(answer.status);
      expect(messageOf(answer)).toMatch(says);
    },
  };
}

/** Several of a kind, by name. */
export function allRefused(row: Row, calls: Readonly<Record<string, ApiCall>>, expected: Expected = {}): readonly AttackCase[] {
  return Object.entries(calls).map(([name, call]) => refused(row, name, call, expected));
}

/** Asks and insists on success. */
export async function succeed(world: Pick<AttackWorld, 'ask'>, call: ApiCall): Promise<string> {
  const answer = await world.ask(call);
  expect(answer.status, `${call.method ?? 'GET'} ${call.path}: ${answer.text}`).toBeLessThan(300);
  return answer.text;
}
