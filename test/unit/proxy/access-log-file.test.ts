import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, open as openFile, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { AccessLogFile } from '#proxy/access-log-file.ts';
import type { AccessLogFileOptions, LogHandle } from '#proxy/access-log-file.ts';
import { LINE_BYTES_MAX } from '#proxy/access-log-line.ts';
import { createRecord } from '#proxy/record.ts';
import type { ExchangeRecord } from '#proxy/record.ts';

const FAST = { flushMs: 5, retryMs: 20, disposeMs: 200 };
/** Room for two buffers. */
const SMALL = 2 * (64 * 1024 + LINE_BYTES_MAX);

let folder: string;
let file: string;
let reports: string[];

const log = pino(
  { level: 'info', base: null, timestamp: false },
  {
    write: (line: string) => {
      reports.push(line);
    },
  },
);

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'access-log-'));
  file = join(folder, 'logs', 'access.jsonl');
  reports = [];
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

function numbered(index: number): ExchangeRecord {
  return { ...createRecord('192.0.2.1', undefined), requestId: Buffer.from(String(index)), status: 200 };
}

function writeLines(accessLog: AccessLogFile, from: number, to: number): void {
  for (let index = from; index < to; index += 1) accessLog.write(numbered(index), 1);
}

/** The numbers of the lines of a text, each of which is whole. */
function numbersIn(text: string): number[] {
  if (text === '') return [];
  expect(text.endsWith('\n')).toBe(true);
  return text
    .slice(0, -1)
    .split('\n')
    .map((line) => {
      expect(JSON.parse(line)).toBeDefined();
      return Number(/"requestId":"(\d+)"/.exec(line)?.[1]);
    });
}

async function numbersOf(path: string): Promise<number[]> {
  return numbersIn(await readFile(path, 'utf8'));
}

function upTo(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index);
}

function failure(code: string): Error {
  return Object.assign(new Error(`${code}: planted`), { code });
}

/** Opens the real file; each write asks `plan` how many octets it takes, or what it throws. */
function planned(plan: (length: number) => number | Error): AccessLogFileOptions['open'] {
  return async (path): Promise<LogHandle> => {
    await mkdir(join(path, '..'), { recursive: true });
    const handle = await openFile(path, 'a');
    return {
      write: async (bytes, offset, length) => {
        const taken = plan(length);
        if (taken instanceof Error) throw taken;
        return taken === 0 ? { bytesWritten: 0 } : await handle.write(bytes, offset, Math.min(length, taken));
      },
      stat: async () => await handle.stat(),
      close: async () => {
        await handle.close();
      },
    };
  };
}

describe('AccessLogFile', () => {
  test('makes the folder, and appends lines soon, for the owner and its group', async () => {
    await using accessLog = new AccessLogFile(log, file, FAST);
    writeLines(accessLog, 0, 3);
    await vi.waitFor(async () => {
      expect(await numbersOf(file)).toEqual([0, 1, 2]);
    });
    const { mode } = await stat(file);
    expect(mode & 0o777 & ~0o640).toBe(0);
    writeLines(accessLog, 3, 4);
    await vi.waitFor(async () => {
      expect(await numbersOf(file)).toEqual([0, 1, 2, 3]);
    });
    expect(reports).toEqual([]);
  });

  test('goes on after what is there', async () => {
    await mkdir(join(folder, 'logs'));
    await writeFile(file, '{"requestId":"7"}\n');
    const accessLog = new AccessLogFile(log, file, FAST);
    writeLines(accessLog, 0, 2);
    await accessLog[Symbol.asyncDispose]();
    expect(await numbersOf(file)).toEqual([7, 0, 1]);
  });

  test('keeps the order over many buffers, and loses nothing at the end', async () => {
    const accessLog = new AccessLogFile(log, file);
    writeLines(accessLog, 0, 1500);
    await delay(5);
    writeLines(accessLog, 1500, 4000);
    await accessLog[Symbol.asyncDispose]();
    await accessLog[Symbol.asyncDispose]();
    expect(await numbersOf(file)).toEqual(upTo(4000));
    expect(accessLog.droppedLines).toBe(0);
    accessLog.write(numbered(1), 1);
    accessLog.reopen();
    expect(accessLog.droppedLines).toBe(1);
  });

  test('neither loses nor splits a line when files are rotated under it', async () => {
    const accessLog = new AccessLogFile(log, file, FAST);
    writeLines(accessLog, 0, 500);
    await vi.waitFor(() => {
      expect(existsSync(file)).toBe(true);
    });
    for (let turn = 1; turn <= 6; turn += 1) {
      await rename(file, `${file}.${String(turn)}`);
      writeLines(accessLog, turn * 500, turn * 500 + 250);
      accessLog.reopen();
      writeLines(accessLog, turn * 500 + 250, turn * 500 + 500);
      await vi.waitFor(() => {
        expect(existsSync(file)).toBe(true);
      });
    }
    await accessLog[Symbol.asyncDispose]();
    const texts = await Promise.all([1, 2, 3, 4, 5, 6].map(async (turn) => await readFile(`${file}.${String(turn)}`, 'utf8')));
    for (const text of texts) numbersIn(text);
    expect(numbersIn([...texts, await readFile(file, 'utf8')].join(''))).toEqual(upTo(3500));
    expect(accessLog.droppedLines).toBe(0);
  });

  test('a disk that is full costs the lines that find no room, and is said once', async () => {
    const accessLog = new AccessLogFile(log, '/dev/full', { ...FAST, bytesMax: SMALL });
    writeLines(accessLog, 0, 10);
    await delay(100);
    writeLines(accessLog, 10, 2000);
    const before = accessLog.droppedLines;
    expect(before).toBeGreaterThan(1000);
    expect(before).toBeLessThan(2000);
    await delay(50);
    await accessLog[Symbol.asyncDispose]();
    expect(accessLog.droppedLines).toBe(2000);
    expect(reports).toHaveLength(1);
    expect(reports[0]).toContain('ENOSPC');
  });

  test('a path that cannot be opened is tried again, and what was kept is written', async () => {
    await writeFile(join(folder, 'logs'), 'no folder');
    const accessLog = new AccessLogFile(log, file, FAST);
    writeLines(accessLog, 0, 3);
    await vi.waitFor(() => {
      expect(reports).toHaveLength(1);
    });
    await delay(60);
    expect(reports).toHaveLength(1);
    await rm(join(folder, 'logs'));
    await vi.waitFor(async () => {
      expect(await numbersOf(file)).toEqual([0, 1, 2]);
    });
    await accessLog[Symbol.asyncDispose]();
    expect(reports.map((line) => /"msg":"([^"]*)"/.exec(line)?.[1])).toEqual([
      'access log cannot be written',
      'access log is written again',
    ]);
    expect(accessLog.droppedLines).toBe(0);
  });

  test('makes a folder that vanished anew', async () => {
    await using accessLog = new AccessLogFile(log, file, FAST);
    writeLines(accessLog, 0, 1);
    await vi.waitFor(async () => {
      expect(await numbersOf(file)).toEqual([0]);
    });
    await rm(join(folder, 'logs'), { recursive: true });
    await delay(FAST.retryMs + 5);
    writeLines(accessLog, 1, 2);
    await vi.waitFor(async () => {
      expect(await numbersOf(file)).toEqual([1]);
    });
  });

  test('goes on where a write took a part, or none for now', async () => {
    const steps = [100, failure('EAGAIN'), 1, failure('EAGAIN'), 300, failure('EIO'), 5, 0, 70];
    const accessLog = new AccessLogFile(log, file, { ...FAST, open: planned(() => steps.shift() ?? 1_000_000) });
    writeLines(accessLog, 0, 20);
    await vi.waitFor(async () => {
      expect(await numbersOf(file)).toEqual(upTo(20));
    });
    await accessLog[Symbol.asyncDispose]();
    // One streak: nothing was wholly written between the two failures.
    expect(reports.filter((line) => line.includes('cannot be written'))).toHaveLength(1);
  });

  test('writes the line that broke off as a whole where another file follows', async () => {
    const steps = [1000];
    let full = true;
    const open = planned(() => steps.shift() ?? (full ? failure('ENOSPC') : 1_000_000));
    const accessLog = new AccessLogFile(log, file, { ...FAST, open });
    writeLines(accessLog, 0, 20);
    await vi.waitFor(() => {
      expect(reports).toHaveLength(1);
    });
    await rename(file, `${file}.1`);
    accessLog.reopen(); // As a rotation says it: by itself the old file is given up only when it is looked for next.
    full = false;
    await accessLog[Symbol.asyncDispose]();
    const old = await readFile(`${file}.1`, 'utf8');
    expect(old).toHaveLength(1000);
    const whole = old.slice(0, old.lastIndexOf('\n') + 1);
    expect([...numbersIn(whole), ...(await numbersOf(file))]).toEqual(upTo(20));
  });

  test('does not wait for ever for a disk that does not answer', async () => {
    let answer = (): void => undefined;
    const open = async (path: string): Promise<LogHandle> => {
      const handle = await planned(() => 1_000_000)(path);
      return {
        ...handle,
        write: async (_bytes, _offset, length) =>
          await new Promise((resolve) => {
            answer = () => {
              resolve({ bytesWritten: length });
            };
          }),
      };
    };
    const accessLog = new AccessLogFile(log, file, { ...FAST, disposeMs: 50, open });
    writeLines(accessLog, 0, 5);
    await delay(30);
    writeLines(accessLog, 5, 8);
    const startMs = performance.now();
    await accessLog[Symbol.asyncDispose]();
    expect(performance.now() - startMs).toBeLessThan(500);
    expect(accessLog.droppedLines).toBe(8);
    answer();
    await delay(10);
  });

  test('lines of several writers of one file stay whole', async () => {
    const logs = [new AccessLogFile(log, file, FAST), new AccessLogFile(log, file, FAST)];
    for (const accessLog of logs) writeLines(accessLog, 0, 1000);
    await Promise.all(logs.map(async (accessLog) => await accessLog[Symbol.asyncDispose]()));
    expect((await numbersOf(file)).toSorted((one, other) => one - other)).toEqual(upTo(1000).flatMap((index) => [index, index]));
  });
});
