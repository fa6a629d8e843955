/** The rows of the tables of hostile requests. */
import type { RawMessage } from './raw-message.ts';

/** A request as the endpoint is to understand it. */
export interface Faithful {
  readonly method: string;
  readonly target: string;
  readonly framing: RawMessage['framing'];
  readonly body: string;
  /** Which of the two endpoints. */
  readonly host: 'a' | 'b';
  /** Names of fields that are there, and of those that are not. */
  readonly has: readonly string[];
  readonly lacks: readonly string[];
}

export interface HostileRequest {
  readonly name: string;
  readonly bytes: string;
  /** What endpoints get, in order, and nothing else. */
  readonly passes: readonly Faithful[];
  /** Statuses that the edge may refuse with after that; none: there is no refusal. */
  readonly refusal: readonly number[];
  /** The fault is in the body: a request that is begun and never whole may reach the endpoint. */
  readonly late: boolean;
  /** The client ends after the bytes. */
  readonly ends: boolean;
  readonly secure: boolean;
}

/** Zero bytes upstream, and one of these statuses. */
export function refused(name: string, bytes: string, ...refusal: readonly number[]): HostileRequest {
  return { name, bytes, passes: [], refusal, late: false, ends: false, secure: false };
}

export function late(name: string, bytes: string, ...refusal: readonly number[]): HostileRequest {
  return { ...refused(name, bytes, ...refusal), late: true };
}

/** Never whole, because the client ends: there may be no answer. */
export function unfinished(name: string, bytes: string): HostileRequest {
  return { ...late(name, bytes), ends: true };
}

/** Goes on, as one request unless there are more. */
export function passed(name: string, bytes: string, ...passes: readonly Partial<Faithful>[]): HostileRequest {
  return { ...refused(name, bytes), passes: passes.map(faithful) };
}

/** Goes on at first and is refused then. */
export function mixed(
  name: string,
  bytes: readonly string[],
  passes: readonly Partial<Faithful>[],
  ...refusal: readonly number[]
): HostileRequest {
  return { ...passed(name, bytes.join(''), ...passes), refusal };
}

/** What is not said is as in `POST /p` with a length or, where there is no body, in `GET`. */
function faithful(known: Partial<Faithful>): Faithful {
  const hasBody = known.body !== undefined || known.framing !== undefined;
  return {
    method: hasBody ? 'POST' : 'GET',
    target: '/p',
    framing: hasBody ? 'fixed' : 'none',
    body: '',
    host: 'a',
    has: [],
    lacks: [],
    ...known,
  };
}
