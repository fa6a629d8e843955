/** How an endpoint dies: one plan for each request, as plain data, in an order that a seed gives. */

export interface DyingPlan {
  readonly id: string;
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE';
  readonly framing: 'fixed' | 'chunked' | 'untilClose';
  /** Octets of the response that are written before the end; all of them where it is its length. */
  readonly octets: number;
  readonly end: 'fin' | 'reset' | 'stay';
  /** Whether it dies when the head of the request is there, or when the whole request is. */
  readonly at: 'head' | 'whole';
}

export const PAYLOAD = 'The quick brown fox jumps over the lazy dog.';
export const REQUEST_BODY = 'x'.repeat(3000);

const HALF = PAYLOAD.length / 2;
const CHUNKS = [PAYLOAD.slice(0, HALF), PAYLOAD.slice(HALF)].map((part) => `${part.length.toString(16)}\r\n${part}\r\n`).join('');
const HEADS = {
  fixed: `HTTP/1.1 200 OK\r\nX-Up: 1\r\nContent-Length: ${String(PAYLOAD.length)}\r\n\r\n`,
  chunked: 'HTTP/1.1 200 OK\r\nX-Up: 1\r\nTransfer-Encoding: chunked\r\n\r\n',
  untilClose: 'HTTP/1.1 200 OK\r\nX-Up: 1\r\n\r\n',
} as const;

export function headLength(framing: DyingPlan['framing']): number {
  return HEADS[framing].length;
}

/** The whole response. */
export function responseOf(plan: Pick<DyingPlan, 'framing' | 'method'>): string {
  const { framing, method } = plan;
  if (method === 'HEAD') return HEADS[framing];
  return HEADS[framing] + (framing === 'chunked' ? `${CHUNKS}0\r\nX-Sum: 1\r\n\r\n` : PAYLOAD);
}

export function hasBody(method: DyingPlan['method']): boolean {
  return method === 'POST' || method === 'PUT';
}

const METHODS = ['GET', 'POST', 'PUT', 'HEAD', 'DELETE'] as const;
const FRAMINGS = ['fixed', 'chunked', 'untilClose'] as const;
/** Of four requests one is answered whole and its connection stays: others die on connections that were used before. */
const HEALTHY_EACH = 4;

/** `count` plans that die: every octet of every framing by both ends, then more at random; and the healthy ones between them. */
export function dyingPlans(count: number, seed: number): DyingPlan[] {
  const random = randomOf(seed);
  const pick = <T>(from: readonly [T, ...T[]]): T => from[Math.floor(random() * from.length)] ?? from[0];
  const plans: Omit<DyingPlan, 'id'>[] = [];
  const add = (framing: DyingPlan['framing'], octets: number, end: 'fin' | 'reset'): void => {
    // HEAD has no octets after its head to die at.
    const methods = octets <= headLength(framing) ? METHODS : (['GET', 'POST', 'PUT', 'DELETE'] as const);
    const method = pick(methods);
    const at = hasBody(method) ? pick(['whole', 'whole', 'head'] as const) : 'whole';
    plans.push({ method, framing, octets, end, at });
  };
  for (const framing of FRAMINGS)
    for (const end of ['fin', 'reset'] as const)
      for (let octets = 0; octets <= responseOf({ framing, method: 'GET' }).length; octets += 1) add(framing, octets, end);
  while (plans.length < count) {
    const framing = pick(FRAMINGS);
    // The first octet decides whether a request may be sent again.
    const octets = pick([0, 0, 1, Math.floor(random() * (responseOf({ framing, method: 'GET' }).length + 1))] as const);
    add(framing, octets, pick(['fin', 'reset'] as const));
  }
  const all: Omit<DyingPlan, 'id'>[] = plans.slice(0, count).flatMap((plan, index) => {
    if (index % HEALTHY_EACH !== 0) return [plan];
    const framing = pick(['fixed', 'chunked'] as const);
    const method = pick(METHODS);
    return [
      plan,
      { method, framing, octets: responseOf({ framing, method }).length, end: 'stay' as const, at: 'whole' as const },
    ];
  });
  return shuffled(all, random).map((plan, index) => ({ ...plan, id: `d${String(index)}` }));
}

/** Fisher and Yates. */
function shuffled<T>(items: readonly T[], random: () => number): T[] {
  const out = [...items];
  for (let index = out.length - 1; index > 0; index -= 1) {
    const other = Math.floor(random() * (index + 1));
    const [one, two] = [out[index], out[other]];
    if (one === undefined || two === undefined) continue;
    out[index] = two;
    out[other] = one;
  }
  return out;
}

/** Numbers in [0, 1) from a seed (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
