/**
 * Compares the sums that invoices are made of with the chain that they are sums of. They are read some at a time while rows go on to be added to them:
 * each page says up to which row its sums are, and rows after that are added here when the chain is looked through.
 */
import type { Clock } from '#clock';
import type { ChainFault, HashedRow } from '#metering/chain-check.ts';
import { addQuantities, mapQuantities, QUANTITY_NAMES, resourceName } from '#metering/ledger-chain.ts';
import type { ChainPoint, Quantities } from '#metering/ledger-chain.ts';
import { QUANTITY_COLUMNS } from '#state/ledger.ts';
import type { Sql } from '#state/sql.ts';
import { countSubjects, readSumsPage, SUM_TABLES } from '#state/usage-sums.ts';
import type { SubjectKey, SubjectSums, SumTable } from '#state/usage-sums.ts';

/** A tenant's sums are kept for each container on a host, and once more for everything on a host. */
type Kind = 'containers' | 'tenant';
const KINDS: readonly Kind[] = ['containers', 'tenant'];
const WHAT: Readonly<Record<Kind, string>> = { containers: 'of its containers', tenant: 'of all that it used' };

const NOTHING: Quantities = mapQuantities(() => 0n);
const MEND = 'issue no invoice of it, because these sums are what it is made of; restore the store from a backup that fits';

/** A page has as much as is read in some 20 ms, in which nothing else is done. */
const [PAGE_FIRST, PAGE_MAX] = [8, 512];
const [PAGE_FAST_MS, PAGE_SLOW_MS] = [10, 25];
const PROGRESS_MS = 1000;

export interface SumsCheck {
  /** Rows up to it are in all sums. */
  readonly rolled: number;
  /** A row after `rolled`, or any other, after the sums were read. */
  readonly row: (row: HashedRow) => void;
  /** At the chain's end. */
  readonly fault: (at: ChainPoint) => ChainFault | undefined;
}

interface Page {
  readonly from: SubjectKey;
  readonly rolled: number;
}

export async function readSumsCheck(
  { sql, clock }: { readonly sql: Sql; readonly clock: Clock },
  tenant: string,
  onProgress: (subjects: number, of: number) => void,
): Promise<SumsCheck> {
  const of = await countSubjects(sql, tenant);
  const [pages, sums]: [Page[], SumsSoFar] = [[], new SumsSoFar()];
  let [limit, count, toldMs] = [PAGE_FIRST, 0, clock.monotonicMs()];
  for (let from: SubjectKey | undefined = { container: '', host: '' }; from !== undefined;) {
    const beganMs = clock.monotonicMs();
    const page = await readSumsPage(sql, tenant, from, limit);
    sums.add(page.sums);
    pages.push({ from, rolled: page.rolled });
    count = page.next === undefined ? of : Math.min(of, count + limit);
    const nowMs = clock.monotonicMs();
    if (nowMs - beganMs > PAGE_SLOW_MS) limit = Math.max(1, limit >> 1);
    else if (nowMs - beganMs < PAGE_FAST_MS) limit = Math.min(PAGE_MAX, limit * 2);
    from = page.next;
    await new Promise(setImmediate); // Nothing else of the node waits for it.
    if (nowMs - toldMs < PROGRESS_MS) continue;
    toldMs = nowMs;
    onProgress(count, of);
  }
  return createSumsCheck(pages, sums);
}

/** What the tables add up to. */
class SumsSoFar {
  readonly #sums = new Map<string, Quantities>();
  /** The first that is in hours something else than in days. */
  unlike: string | undefined;

  add(sums: readonly SubjectSums[]): void {
    const subjects = new Map<string, Map<SumTable, SubjectSums>>();
    for (const one of sums) {
      const key = `${one.table} ${one.container === '' ? 'tenant' : 'containers'}`;
      this.#sums.set(key, addQuantities(this.#sums.get(key) ?? NOTHING, one));
      const subject = `${one.container} ${one.host}`;
      subjects.set(subject, (subjects.get(subject) ?? new Map<SumTable, SubjectSums>()).set(one.table, one));
    }
    for (const tables of subjects.values()) this.unlike ??= unlikeText(tables);
  }

  of(table: SumTable, kind: Kind): Quantities {
    return this.#sums.get(`${table} ${kind}`) ?? NOTHING;
  }
}

/** Both tables are written together: what one of them says of a subject, the other does. */
function unlikeText(tables: ReadonlyMap<SumTable, SubjectSums>): string | undefined {
  const [subject] = tables.values();
  if (subject === undefined) return undefined;
  const [hours, days] = SUM_TABLES.map((table): Quantities => tables.get(table) ?? NOTHING);
  const name = QUANTITY_NAMES.find((one) => hours?.[one] !== days?.[one]);
  if (name === undefined) return undefined;
  const { container, host } = subject;
  const whose = container === '' ? 'everything' : resourceName({ container, name: '' });
  return `${QUANTITY_COLUMNS[name]} of ${whose} on ${host} is ${String(hours?.[name])} in usage_hour and ${String(days?.[name])} in usage_day`;
}

function createSumsCheck(pages: readonly Page[], sums: SumsSoFar): SumsCheck {
  const rolled = pages.map((page) => page.rolled);
  const [least, most] = [Math.min(...rolled), Math.max(...rolled)];
  const later: Record<Kind, Quantities> = { containers: NOTHING, tenant: NOTHING };
  /** Whether the row was in the sums when these were read. */
  const isSummed = (number: number, key: SubjectKey): boolean =>
    number <= least || (number <= most && number <= (pages.findLast(({ from }) => !isBefore(key, from))?.rolled ?? 0));
  return {
    rolled: least,
    row: (row) => {
      const { number, container, host } = row;
      if (!isSummed(number, { container, host })) later.containers = addQuantities(later.containers, row);
      if (!isSummed(number, { container: '', host })) later.tenant = addQuantities(later.tenant, row);
    },
    fault: ({ number, totals }) => {
      const summed = `rows up to ${String(most)} are said to be in the sums`;
      if (most > number) return { number, text: `${summed}, and the chain ends at ${String(number)}`, mend: MEND };
      const first = sums.unlike === undefined ? '' : `; ${sums.unlike}`;
      for (const table of SUM_TABLES) {
        for (const kind of KINDS) {
          const [is, all] = [sums.of(table, kind), totals];
          const name = QUANTITY_NAMES.find((one) => is[one] !== all[one] - later[kind][one]);
          if (name === undefined) continue;
          const should = all[name] - later[kind][name];
          const text = `${table}: ${QUANTITY_COLUMNS[name]} ${WHAT[kind]} adds up to ${String(is[name])}, and by the chain to ${String(should)} (${summed})`;
          return { number, text: `${text}${first}`, mend: MEND };
        }
      }
      return sums.unlike === undefined ? undefined : { number, text: `the sums do not fit: ${sums.unlike}`, mend: MEND };
    },
  };
}

function isBefore(one: SubjectKey, other: SubjectKey): boolean {
  return one.container === other.container ? one.host < other.host : one.container < other.container;
}
