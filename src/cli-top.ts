/** `top`: what containers use, from two readings of their counters. */
import type { AdminClient } from '#admin/client.ts';
import type { ContainerReading } from '#admin/node-control.ts';
import { systemClock } from '#clock';
import { unitPricesAt } from '#metering/invoice.ts';
import { formatBytes } from '#units';
import { writeJson } from './cli-output.ts';
import type { Output } from './cli-output.ts';
import { plainText, tableText } from './cli-text.ts';

const PERIOD_MS = 1000;
/** The node samples each second; a second reading that is due may be a little late. */
const SETTLE_MS = 1500;
const SETTLE_STEP_MS = 100;
/** Prices change on the hour: they are asked for again once a minute. */
const COSTS_ROUNDS = 60;

export interface ContainerLoad {
  readonly id: string;
  readonly tenant: string;
  readonly name: string;
  readonly host: string;
  /** Of one processor; undefined: no two readings of one life of the container yet. */
  readonly cpuPercent: number | undefined;
  readonly memoryBytes: number;
}

/** Turns counters into rates. A counter that was not read anew keeps its rate; one that went down (a move, a restart) begins again. */
export class LoadMeter {
  #last = new Map<string, { readonly reading: ContainerReading; readonly cpuPercent: number | undefined }>();

  /** Takes a round of readings; the busiest come first. */
  take(readings: readonly ContainerReading[]): readonly ContainerLoad[] {
    const next = new Map(readings.map((reading) => [reading.id, { reading, cpuPercent: this.#rateOf(reading) }]));
    this.#last = next;
    return [...next.values()]
      .map(({ reading: { id, tenant, name, host, memoryBytes }, cpuPercent }) => ({
        id,
        tenant,
        name,
        host,
        cpuPercent,
        memoryBytes,
      }))
      .toSorted((one, other) => (other.cpuPercent ?? 0) - (one.cpuPercent ?? 0) || one.name.localeCompare(other.name));
  }

  #rateOf(reading: ContainerReading): number | undefined {
    const before = this.#last.get(reading.id);
    if (before === undefined) return undefined;
    const spanMs = reading.sampledMs - before.reading.sampledMs;
    const usedNs = reading.cpuNs - before.reading.cpuNs;
    if (spanMs <= 0) return before.cpuPercent;
    return usedNs < 0 ? undefined : (usedNs / (spanMs * 1_000_000)) * 100;
  }
}

/** What goes on as it does costs so much an hour: a rate for people, no bill. */
type CostOf = (load: ContainerLoad) => { readonly currency: string; readonly perHour: number } | undefined;

const MICROS = 1e6;
const GIB = 1024 ** 3;

async function costsAt(client: AdminClient, nowMs: number): Promise<CostOf> {
  const books = await client.prices.history();
  return ({ tenant, cpuPercent = 0, memoryBytes }) => {
    const prices = unitPricesAt(books, tenant, nowMs);
    if (prices === undefined) return undefined;
    const [cpu, memory] = [Number(prices.micros('vcpuHour')), Number(prices.micros('memoryGibHour'))];
    return { currency: prices.currency, perHour: ((cpuPercent / 100) * cpu + (memoryBytes / GIB) * memory) / MICROS };
  };
}

export async function runTop(
  client: AdminClient,
  output: Output,
  options: { readonly json: boolean; readonly once: boolean },
): Promise<void> {
  const isLive = !options.once && !options.json && output.isScreen && process.stdin.isTTY;
  if (isLive) await live(client, output);
  else await once(client, output, options);
}

async function once(client: AdminClient, output: Output, options: { readonly json: boolean }): Promise<void> {
  const meter = new LoadMeter();
  let loads = meter.take(await client.readings());
  await systemClock.sleep(PERIOD_MS);
  const endMs = systemClock.monotonicMs() + SETTLE_MS;
  for (;;) {
    loads = meter.take(await client.readings());
    if (loads.every(({ cpuPercent }) => cpuPercent !== undefined) || systemClock.monotonicMs() >= endMs) break;
    await systemClock.sleep(SETTLE_STEP_MS);
  }
  const costOf = await costsAt(client, Date.now());
  if (options.json)
    writeJson(
      output,
      loads.map((load) => ({ ...load, cost: costOf(load) })),
    );
  else output.write(loadTable(loads, costOf));
}

function loadTable(loads: readonly ContainerLoad[], costOf: CostOf): string {
  const costs = loads.map(costOf);
  const currency = costs.find((cost) => cost !== undefined)?.currency;
  const rows = loads.map(({ tenant, name, host, cpuPercent, memoryBytes }, index) => {
    const cells = [tenant, name, host, cpuPercent === undefined ? '-' : cpuPercent.toFixed(1), formatBytes(memoryBytes)];
    return [...cells, ...(currency === undefined ? [] : [costs[index]?.perHour.toFixed(6) ?? '-'])].map(plainText);
  });
  return tableText(['TENANT', 'NAME', 'HOST', 'CPU %', 'MEMORY', ...(currency === undefined ? [] : [`${currency}/H`])], rows);
}

/** What a full screen shows, and no more lines than it has. */
function screenText(loads: readonly ContainerLoad[], nowMs: number, costOf: CostOf): string {
  const known = loads.reduce((sum, { cpuPercent }) => sum + (cpuPercent ?? 0), 0);
  const memory = loads.reduce((sum, { memoryBytes }) => sum + memoryBytes, 0);
  const head = `${new Date(nowMs).toISOString()}   containers ${String(loads.length)}   CPU ${known.toFixed(1)} %   memory ${formatBytes(memory)}   (q ends)`;
  const width = process.stdout.columns;
  return [head, '', ...loadTable(loads, costOf).split('\n')]
    .slice(0, process.stdout.rows - 1)
    .map((line) => line.slice(0, width))
    .join('\r\n');
}

const ENTER_SCREEN = '\u001B[?1049h\u001B[?25l';
const LEAVE_SCREEN = '\u001B[?25h\u001B[?1049l';
const REDRAW = '\u001B[H\u001B[2J';
const CTRL_C = '\u0003';

async function live(client: AdminClient, output: Output): Promise<void> {
  const stop = new AbortController();
  const end = (): void => {
    stop.abort();
  };
  const onKey = (key: Buffer): void => {
    if (['q', 'Q', CTRL_C].includes(key.toString('latin1'))) end();
  };
  const { stdin } = process;
  // Raw: single keys, and Ctrl-C as one of them, so that the screen is always put back.
  stdin.setRawMode(true);
  stdin.on('data', onKey);
  process.once('SIGTERM', end);
  process.once('SIGHUP', end);
  output.write(ENTER_SCREEN);
  try {
    const meter = new LoadMeter();
    let costOf = await costsAt(client, Date.now());
    for (let round = 1; !stop.signal.aborted; round += 1) {
      const loads = meter.take(await client.readings());
      if (round % COSTS_ROUNDS === 0) costOf = await costsAt(client, Date.now());
      output.write(REDRAW + screenText(loads, Date.now(), costOf));
      await systemClock.sleep(PERIOD_MS, stop.signal).catch(() => undefined); // Only the end of it all ends a sleep early.
    }
  } finally {
    output.write(LEAVE_SCREEN);
    stdin.off('data', onKey);
    stdin.setRawMode(false);
    stdin.pause();
    process.off('SIGTERM', end);
    process.off('SIGHUP', end);
  }
}
