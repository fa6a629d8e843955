/** What cannot move says so before anything is touched. */
import { expect, test } from 'vitest';
import { refusalOf } from '#caas/migration/migration-check.ts';
import type { MigrationQuestion } from '#caas/migration/migration-check.ts';
import type { RunscCapabilities } from '#isolation/runsc-probe.ts';
import { inspectOf, rowOf, specOf } from '../../support/caas-data.ts';

const RUNSC: RunscCapabilities = {
  path: '/usr/bin/runsc',
  version: 'r1',
  dateYmd: 20_240_729,
  leaveRunning: true,
  compressionNone: true,
  checkpointDirect: true,
  netDisconnectOk: true,
  saveRestoreNetstack: false,
  allowLiveTcpMigration: false,
  hostUdsOpen: true,
  restoreBackground: false,
  restoreDetach: true,
  update: false,
  needsProcSysNetMask: true,
};

function why(change: Partial<MigrationQuestion>): string | undefined {
  return refusalOf({
    cause: 'order',
    row: rowOf(),
    spec: specOf(),
    inspect: inspectOf(),
    source: { name: 'a', runsc: RUNSC },
    target: { name: 'b', runsc: RUNSC },
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
  expect(why({ target: { name: 'a', runsc: RUNSC } })).toBe('container web is on host a already');
  expect(why({ spec: specOf({ Labels: { 'ecluse.migrate': 'never' } }) })).toContain('ecluse.migrate=never');
  expect(why({ spec: specOf({ Labels: { 'ecluse.migrate': 'drain' } }) })).toContain('only when its host is drained');
  expect(why({ cause: 'rebalance', spec: specOf({ Labels: { 'ecluse.migrate': 'drain' } }) })).toContain('only when its host');
  expect(why({ cause: 'drain', spec: specOf({ Labels: { 'ecluse.migrate': 'drain' } }) })).toBeUndefined();
  expect(why({ cause: 'drain', spec: specOf({ Labels: { 'ecluse.migrate': 'never' } }) })).toContain('ecluse.migrate=never');
  expect(why({ inspect: undefined })).toBe('host a does not know the container');
  expect(why({ row: rowOf({ state: 'paused' }) })).toBe('container web is paused');
  expect(why({ inspect: inspectOf({ Paused: true }) })).toBe('container web is running');
  expect(why({ inspect: inspectOf({}, { ExecIDs: ['x'] }) })).toContain('open exec sessions');
  expect(why({ sharedVolume: 'data' })).toContain('shares the volume data with another container');
  expect(why({ source: { name: 'a', runsc: { ...RUNSC, leaveRunning: false } } })).toContain('cannot save a sandbox and keep it');
  expect(why({ target: { name: 'b', runsc: { ...RUNSC, version: 'r2' } } })).toContain('different runsc (r1, r2)');
});
