/** Events as tenants hear them: in order, their own only, filtered as Docker filters, and without the noise of a move. */
import { describe, expect, test } from 'vitest';
import { ContainerEvents } from '#caas/container-events.ts';
import { Events } from '#caas/events.ts';
import type { EventStream, TenantEvent } from '#caas/events.ts';
import { eventView, isWanted } from '#caas/docker-api/event-handlers.ts';
import type { Clock } from '#clock';
import { rowOf, specOf } from '../../support/caas-data.ts';

function clockAt(state: { ms: number }): Clock {
  return { nowMs: () => state.ms, monotonicMs: () => state.ms, sleep: async () => await Promise.resolve() };
}

function row() {
  return rowOf({ spec: JSON.stringify(specOf({ Labels: { tier: 'web' } })) });
}

/** A stream that must have been opened. */
function streamOf(events: Events, tenant: string, signal = new AbortController().signal): EventStream {
  const stream = events.open(tenant, signal);
  if (stream === undefined) throw new Error('the stream was refused');
  return stream;
}

async function take(events: AsyncIterable<TenantEvent>, count: number): Promise<readonly TenantEvent[]> {
  const taken: TenantEvent[] = [];
  for await (const event of events) if (taken.push(event) === count) break;
  return taken;
}

describe('Events', () => {
  test('are told to their tenant only, in order, and kept for those who come later', async () => {
    const events = new Events(clockAt({ ms: 5 }));
    const stop = new AbortController();
    using mine = streamOf(events, 'acme', stop.signal);
    events.publish('rival', 'image', 'pull', { id: 'x', attributes: {} });
    for (const id of ['a', 'b', 'c']) events.publish('acme', 'image', 'pull', { id, attributes: {} });
    expect((await take(mine, 3)).map(({ actor }) => actor.id)).toEqual(['a', 'b', 'c']);
    using later = streamOf(events, 'acme', stop.signal);
    expect(later.history.map(({ actor }) => actor.id)).toEqual(['a', 'b', 'c']);
    expect(new Set(later.history.map((event) => eventView(event)['timeNano'])).size).toBe(3);
    // Nothing of it counts what the rival does.
    expect(later.history.map(({ seq }) => seq)).toEqual([1, 2, 3]);
  });

  test('end a stream whose reader does not keep up, and one that is aborted; a tenant’s streams are bounded', async () => {
    const events = new Events(clockAt({ ms: 5 }));
    const stop = new AbortController();
    using slow = streamOf(events, 'acme', stop.signal);
    for (let count = 0; count < 5000; count += 1) events.publish('acme', 'image', 'pull', { id: String(count), attributes: {} });
    const heard = await Array.fromAsync(slow);
    expect(heard.length).toBeLessThan(5000);
    expect(heard.at(-1)?.actor.id).toBe(String(heard.length - 1));
    using waiting = streamOf(events, 'acme', stop.signal);
    const done = Array.fromAsync(waiting);
    stop.abort();
    expect(await done).toEqual([]);
    const open = Array.from({ length: 2000 }, () => events.open('acme', new AbortController().signal));
    expect(open.filter((stream) => stream === undefined).length).toBe(1000);
  });
});

describe('ContainerEvents', () => {
  test('rebuild what engines say: our ids, labels and names, and of their attributes only what is known', () => {
    const events = new Events(clockAt({ ms: 5 }));
    const containers = new ContainerEvents({ events });
    const say = (Action: string, Attributes: Readonly<Record<string, string>> = {}): void => {
      containers.relay(row(), { Type: 'container', Action, Actor: { ID: 'e'.repeat(64), Attributes }, timeNano: 6e6 });
    };
    say('die', { exitCode: '3', image: 'sha256:engine', name: 'ecluse-abcdef-0123', execDuration: '1' });
    say('exec_create: sh', {});
    say('health_status: healthy');
    using stream = streamOf(events, 'acme');
    expect(stream.history.map(({ action, actor }) => [action, actor])).toEqual([
      ['die', { id: 'a'.repeat(64), attributes: { tier: 'web', exitCode: '3', image: 'shop:1', name: 'web' } }],
      ['health_status: healthy', { id: 'a'.repeat(64), attributes: { tier: 'web', image: 'shop:1', name: 'web' } }],
    ]);
  });

  test('make nothing of what engines say while a container moves', () => {
    const containers = new ContainerEvents({ events: new Events(clockAt({ ms: 5 })) });
    const isNews = (atMs: number): boolean =>
      containers.isNews(row(), { Type: 'container', Action: 'pause', Actor: { ID: 'e' }, timeNano: atMs * 1e6 });
    containers.hush(row().id, 100);
    expect([99, 100, 5000].map(isNews)).toEqual([true, false, false]);
    containers.loud(row().id, 200);
    expect([99, 100, 200, 201].map(isNews)).toEqual([true, false, false, true]);
    containers.forget(row().id);
    expect(isNews(150)).toBe(true);
  });

  test('wait for the end of a container that is removed, but not for ever', async () => {
    const containers = new ContainerEvents({ events: new Events(clockAt({ ms: 5 })) });
    await containers.left('nobody');
    containers.leave('engine');
    expect(containers.isLeaving('engine')).toBe(true);
    containers.gone('engine');
    await containers.left('engine');
    expect(containers.isLeaving('engine')).toBe(false);
    containers.leave('silent');
    await containers.left('silent');
    expect(containers.isLeaving('silent')).toBe(false);
  });
});

describe('--filter', () => {
  const event: TenantEvent = {
    type: 'container',
    action: 'exec_create: sh -c true',
    actor: { id: 'abcdef', attributes: { image: 'shop:1', name: 'web', tier: 'front' } },
    atMs: 5,
    seq: 1,
  };
  const wants = (filters: Readonly<Record<string, readonly string[]>>): boolean =>
    isWanted(event, new Map(Object.entries(filters)));

  test.each<readonly [Readonly<Record<string, readonly string[]>>, boolean]>([
    [{}, true],
    [{ type: ['container'] }, true],
    [{ type: ['image', 'container'] }, true],
    [{ type: ['image'] }, false],
    [{ event: ['exec_create'] }, true],
    [{ event: ['exec'] }, false],
    [{ container: ['web'] }, true],
    [{ container: ['abc'] }, true],
    [{ container: ['we'] }, false],
    [{ image: ['shop'] }, true],
    [{ image: ['shop:1'] }, true],
    [{ image: ['shop:2'] }, false],
    [{ label: ['tier=front'] }, true],
    [{ label: ['tier', 'tier=back'] }, false],
    [{ volume: ['web'] }, false],
    [{ scope: ['swarm'] }, false],
    [{ event: ['exec_create'], container: ['other'] }, false],
  ])('%o is %s', (filters, expected) => {
    expect(wants(filters)).toBe(expected);
  });
});
