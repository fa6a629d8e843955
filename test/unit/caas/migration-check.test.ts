/** What cannot move says so before anything is touched. */
import { expect, test } from 'vitest';
import { refusalOf } from '#caas/migration/migration-check.ts';
import { moveReason } from '#caas/migration/move-error.ts';
import { isHealthCheckOf } from '#caas/migration/move-source.ts';
import type { MigrationQuestion } from '#caas/migration/migration-check.ts';
import { inspectOf, rowOf, specOf } from '../../support/caas-data.ts';
import { hostWith, RUNSC_2024, RUNSC_2026 } from '../../support/runsc-data.ts';

function why(change: Partial<MigrationQuestion>): string | undefined {
  return refusalOf({
    cause: 'order',
    endSessions: false,
    row: rowOf(),
    spec: specOf(),
    inspect: inspectOf(),
    source: hostWith('a', RUNSC_2024),
    target: hostWith('b', RUNSC_2024),
    sharedVolume: undefined,
    ...change,
  })?.why;
}

test('a running container may move', () => {
  expect(why({})).toBeUndefined();
  expect(
    why({
      spec: specOf({ Labels: { 'ecluse.migrate': 'any' } }),
      inspect: inspectOf({}, { Mounts: [{ Type: 'volume', Destination: '/x' }] }),
    }),
  ).toBeUndefined();
});

test('every reason against it has its words', () => {
  expect(why({ target: hostWith('a', RUNSC_2024) })).toBe('container web is on host a already');
  expect(why({ spec: specOf({ Labels: { 'ecluse.migrate': 'never' } }) })).toContain('ecluse.migrate=never');
  expect(why({ spec: specOf({ Labels: { 'ecluse.migrate': 'drain' } }) })).toContain('only when its host is drained');
  expect(why({ cause: 'rebalance', spec: specOf({ Labels: { 'ecluse.migrate': 'drain' } }) })).toContain('only when its host');
  expect(why({ cause: 'drain', spec: specOf({ Labels: { 'ecluse.migrate': 'drain' } }) })).toBeUndefined();
  expect(why({ cause: 'drain', spec: specOf({ Labels: { 'ecluse.migrate': 'never' } }) })).toContain('ecluse.migrate=never');
  expect(why({ inspect: undefined })).toBe('host a does not know the container');
  expect(why({ row: rowOf({ state: 'paused' }) })).toBe('container web is paused');
  expect(why({ inspect: inspectOf({ Paused: true }) })).toBe('container web is running');
  expect(why({ inspect: inspectOf({}, { ExecIDs: ['x'] }) })).toContain('open exec sessions');
  expect(why({ inspect: inspectOf({}, { ExecIDs: ['x'] }), endSessions: true })).toBeUndefined();
  expect(why({ sharedVolume: 'data' })).toContain('shares the volume data with another container');
  expect(why({ target: hostWith('b', RUNSC_2026) })).toContain('different runsc (0.0~20240729.0, release-20260905.0)');
});

test("the tenant's Docker socket is no volume, and a reason against it where the save would fail on it", () => {
  const socket = '/var/run/docker.sock';
  const mounted = {
    spec: specOf({ HostConfig: { Binds: [`${socket}:${socket}`] } }),
    inspect: inspectOf({}, { Mounts: [{ Type: 'bind', Destination: socket }] }),
  };
  expect(why(mounted)).toContain('cannot be saved');
  expect(why({ ...mounted, source: hostWith('a', RUNSC_2026), target: hostWith('b', RUNSC_2026) })).toBeUndefined();
});

test('a reason is short, and what nobody understands is said in words', () => {
  const trace = `starting container: ${'x'.repeat(20)}: goroutine 28 [running]:\ngvisor.dev/gvisor/pkg/state.safely.func1()`;
  expect(moveReason(new Error(trace))).toBe(`starting container: ${'x'.repeat(20)}`);
  expect(moveReason(new Error('y'.repeat(5000)))).toHaveLength(401);
  expect(moveReason(new Error('error executing callbacks: no host FD available for :host:2'))).toContain('--end-sessions');
});

test('a health check is told from what tenants execute', () => {
  const isCheck = (command: readonly string[], args: readonly string[]): boolean =>
    isHealthCheckOf(specOf({ Healthcheck: { Test: command } }))({ args });
  expect(isCheck(['CMD-SHELL', 'wget -q x'], ['/bin/ash', '-c', 'wget -q x'])).toBe(true);
  expect(isCheck(['CMD-SHELL', 'wget -q x'], ['/bin/sh', '-c', 'sleep 9'])).toBe(false);
  expect(isCheck(['CMD', '/probe', '1'], ['/probe', '1'])).toBe(true);
  expect(isCheck(['CMD', '/probe', '1'], ['/other', '1'])).toBe(false);
  expect(isCheck(['NONE'], ['NONE'])).toBe(false);
  expect(isCheck([], [])).toBe(false);
  expect(isHealthCheckOf(specOf())({ args: ['sh'] })).toBe(false);
});
