import { generateKeyPair, webcrypto } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import { promisify } from 'node:util';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { SimulatedClock } from '../../support/simulated-clock.ts';

const START_MS = 1_800_000_000_000;
const DAY_MS = 86_400_000;

async function portOf(server: ReturnType<typeof createServer>): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

describe('SimulatedClock', () => {
  test('wakes sleepers in the order of their times, and those of one time as they fell asleep', async () => {
    const waits = fc.array(fc.integer({ min: 0, max: 50 }), { maxLength: 30 });
    await fc.assert(
      fc.asyncProperty(waits, async (given) => {
        using clock = new SimulatedClock(START_MS);
        const woken: { readonly ms: number; readonly index: number; readonly atMs: number }[] = [];
        const all = given.map(async (ms, index) => {
          await clock.sleep(ms);
          woken.push({ ms, index, atMs: clock.nowMs() - START_MS });
        });
        await clock.advance(50);
        await Promise.all(all);
        const expected = given.map((ms, index) => ({ ms, index, atMs: ms }));
        expect(woken).toEqual(expected.toSorted((one, other) => one.ms - other.ms || one.index - other.index));
      }),
      { numRuns: 25 },
    );
  });

  test('wakes those who fall asleep again meanwhile', async () => {
    using clock = new SimulatedClock(START_MS);
    let ticks = 0;
    const ticker = (async () => {
      while (ticks < 100) {
        await clock.sleep(DAY_MS);
        ticks += 1;
      }
    })();
    await clock.advance(90 * DAY_MS);
    expect([ticks, clock.nowMs(), clock.monotonicMs()]).toEqual([90, START_MS + 90 * DAY_MS, 90 * DAY_MS]);
    await clock.during(ticker, 10 * DAY_MS);
    expect(ticks).toBe(100);
  });

  test('does not go on while bytes, files and keys are under way', async () => {
    using clock = new SimulatedClock(START_MS);
    await using server = createServer((request, response) => {
      request.resume();
      response.end('x'.repeat(200_000));
    });
    const port = await portOf(server);
    const work = async (): Promise<void> => {
      const answer = await fetch(`http://127.0.0.1:${String(port)}/`);
      await answer.text();
      await readFile(import.meta.filename);
      const algorithm = { name: 'ECDSA', namedCurve: 'P-256' };
      const { privateKey } = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
      await webcrypto.subtle.sign({ name: 'ECDSA', hash: 'SHA-256' }, privateKey, Buffer.from('x'));
      await promisify(generateKeyPair)('rsa', { modulusLength: 1024 });
      const socket = connect(port, '127.0.0.1');
      await once(socket, 'connect');
      socket.destroy();
    };
    const atMs: number[] = [];
    const worker = (async () => {
      for (let round = 0; round < 5; round += 1) {
        await work();
        atMs.push(clock.nowMs() - START_MS);
        await clock.sleep(1_000);
      }
    })();
    // Someone else's time goes by in small steps meanwhile: it must not while there is work.
    const ticker = (async () => {
      for (let tick = 0; tick < 500; tick += 1) await clock.sleep(10);
    })();
    await clock.advance(10_000);
    await Promise.all([worker, ticker]);
    expect(atMs).toEqual([0, 1_000, 2_000, 3_000, 4_000]);
  });

  test('waits for what it cannot see where it is told', async () => {
    let isBusy = true;
    using clock = new SimulatedClock(START_MS, () => isBusy);
    const advanced = clock.advance(1_000);
    const timer = setTimeout(() => {
      isBusy = false;
    }, 50);
    const startMs = performance.now();
    await advanced;
    clearTimeout(timer);
    expect(performance.now() - startMs).toBeGreaterThan(40);
  });

  test('a sleep ends by its signal, and wakes nobody later', async () => {
    using clock = new SimulatedClock(START_MS);
    const stop = new AbortController();
    const slept = clock.sleep(1_000, stop.signal);
    stop.abort();
    await expect(slept).rejects.toMatchObject({ name: 'AbortError', code: 'ABORT_ERR' });
    await expect(clock.sleep(1_000, stop.signal)).rejects.toMatchObject({ code: 'ABORT_ERR' });
    await clock.advance(2_000);
    expect(clock.wakings).toBe(0);
  });

  test('says that something never ended, and hands its errors on', async () => {
    using clock = new SimulatedClock(START_MS);
    await expect(clock.during(clock.sleep(5_000), 4_000)).rejects.toThrow('did not end within 4000 ms');
    await expect(clock.during(new Promise(() => undefined), 4_000)).rejects.toThrow('did not end');
    await expect(clock.during(Promise.reject(new Error('broken')), 4_000)).rejects.toThrow('broken');
  });

  test('stands at whole milliseconds', async () => {
    using clock = new SimulatedClock(START_MS);
    await clock.during(clock.sleep(0.5), 10);
    await clock.during(clock.sleep(843.75), 1_000);
    expect(clock.nowMs() - START_MS).toBe(845);
  });

  test('a jump of the wall clock moves no sleeper', async () => {
    using clock = new SimulatedClock(START_MS);
    const slept = clock.sleep(1_000);
    clock.jumpWall(-DAY_MS);
    await clock.during(slept, 1_000);
    expect([clock.nowMs(), clock.monotonicMs()]).toEqual([START_MS - DAY_MS + 1_000, 1_000]);
  });
});
