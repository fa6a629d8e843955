/** What a tenant used by the hour, from the sums and from the rows that are not in them yet. The sums must not move meanwhile: `LedgerKeeper` sees to it. */
import { hourOf } from '#metering/hour-pieces.ts';
import type { PricedHour } from '#metering/usage-lines.ts';
import { quantitiesOf, readNamedRows } from '#state/ledger.ts';
import type { Sql } from '#state/sql.ts';
import { HOURS_START, readHoursPage, readRolled, readRowSums, readTenantHours } from '#state/usage-rollups.ts';
import type { HourCursor, HoursQuery } from '#state/usage-rollups.ts';

/** Hours that are read at once, and priced: some 5 ms, in which nothing else is done. */
const PAGE_ROWS = 300;

/** Gives all hours of one container at a time. Requests are answered between pages, so neither time nor memory hangs on how many containers there were. */
export async function eachContainer(sql: Sql, query: HoursQuery, take: (hours: readonly PricedHour[]) => void): Promise<void> {
  const rolled = await readRolled(sql, query.tenant);
  const rows = (await readNamedRows(sql, query, 'not-summed')).map((row): PricedHour => ({
    ...quantitiesOf(row),
    container: row.container,
    name: row.name,
    startMs: hourOf(row.fromMs),
  }));
  const notSummed = Map.groupBy(rows, ({ container }) => container);
  let own: PricedHour[] = [];
  const finish = (): void => {
    const container = own[0]?.container ?? '';
    own.push(...(notSummed.get(container) ?? []));
    notSummed.delete(container);
    if (own.length > 0) take(own);
    own = [];
  };
  for (let after: HourCursor | undefined = HOURS_START; after !== undefined;) {
    const page = await readHoursPage(sql, query, after, PAGE_ROWS);
    for (const hour of page.hours) {
      if (own[0] !== undefined && own[0].container !== hour.container) finish();
      own.push(hour);
    }
    after = page.next;
    await new Promise(setImmediate);
  }
  finish();
  for (const hours of notSummed.values()) take(hours);
  // While a node is replaced the next one may sum up: what it moved would count twice.
  if ((await readRolled(sql, query.tenant)) !== rolled)
    throw new Error(`the ledger of ${query.tenant} was summed up by another process meanwhile: try again`);
}

/** All containers together: some hundred hours for a month, however many there were. */
export async function hoursOfTenant(sql: Sql, query: HoursQuery): Promise<readonly PricedHour[]> {
  const summed = await readTenantHours(sql, query);
  const rows = await readRowSums(sql, { ...query, by: 'hour' }, 'not-summed');
  return [...summed, ...rows.map((row) => ({ ...row, container: '', name: '', startMs: Date.parse(row.key) }))];
}
