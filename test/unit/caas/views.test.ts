/** What tenants see: Docker's shapes, and nothing of the host. */
import { describe, expect, test } from 'vitest';
import { inspectView, statusText, summaryView } from '#caas/docker-api/container-views.ts';
import type { ContainerSubject } from '#caas/docker-api/container-views.ts';
import { NO_NETWORKS } from '#caas/docker-api/network-views.ts';
import type { ContainerNetworks } from '#caas/docker-api/network-views.ts';
import type { ContainerSpec } from '#caas/spec/container-spec.ts';
import type { ContainerRow } from '#state/containers.ts';
import { infoView, versionView } from '#caas/docker-api/system-views.ts';
import { ENGINE_ID, inspectOf, rowOf, specOf, tenantNamed } from '../../support/caas-data.ts';
import { containing } from '../../support/matchers.ts';

const BRIDGE: ContainerNetworks = {
  memberships: [
    {
      name: 'bridge',
      isPredefined: true,
      member: {
        network: 'b'.repeat(64),
        container: 'a'.repeat(64),
        tenant: 'acme',
        endpoint: 'c'.repeat(64),
        aliases: [],
        links: [],
      },
    },
  ],
  gateway: '10.90.4.1',
  nameOf: () => undefined,
};

function subjectOf(row: ContainerRow, spec: ContainerSpec, networks = BRIDGE): ContainerSubject {
  return { row, spec, networks, ports: [] };
}

const NOW = Date.UTC(2026, 0, 1, 0, 5);
const SUMMARY = {
  command: 'sleep 1',
  labels: { x: 'y' },
  exitCode: 0,
  health: 'none',
  sizeRwBytes: undefined,
  sizeRootFsBytes: undefined,
};

describe('statusText()', () => {
  test('has Docker’s words for every state', () => {
    const plain = { exitCode: 0, health: 'none' };
    const healthy = { exitCode: 0, health: 'healthy' };
    const starting = { exitCode: 0, health: 'starting' };
    const ended = { exitCode: 137, health: 'none' };
    const finishedMs = NOW - 3_600_000;
    expect(statusText(rowOf(), plain, NOW)).toBe('Up 5 minutes');
    expect(statusText(rowOf(), healthy, NOW)).toBe('Up 5 minutes (healthy)');
    expect(statusText(rowOf(), starting, NOW)).toBe('Up 5 minutes (health: starting)');
    expect(statusText(rowOf({ state: 'paused' }), plain, NOW)).toBe('Up 5 minutes (Paused)');
    expect(statusText(rowOf({ state: 'exited', finishedMs }), ended, NOW)).toBe('Exited (137) About an hour ago');
    expect(statusText(rowOf({ state: 'restarting', finishedMs: NOW - 1000 }), ended, NOW)).toBe('Restarting (137) 1 second ago');
    expect(statusText(rowOf({ state: 'created' }), undefined, NOW)).toBe('Created');
    expect(statusText(rowOf({ state: 'lost' }), undefined, NOW)).toBe('Dead');
    expect(statusText(rowOf({ startedMs: NOW + 5000 }), plain, NOW)).toBe('Up Less than a second');
  });
});

describe('containers', () => {
  const HIDDEN = ['/var/lib/docker', ENGINE_ID, 'ecluse-abcdef', '4711', '"a"'];

  test('show the tenant’s words and no place, process or name of the host', () => {
    const row = rowOf({ restartCount: 2 });
    const spec = specOf({ HostConfig: { Memory: 2 ** 27 } }, [80, 81]);
    for (const view of [
      summaryView(subjectOf(row, spec), SUMMARY, NOW),
      inspectView(subjectOf(row, spec), inspectOf(), ['e1']),
    ]) {
      const text = JSON.stringify(view);
      for (const secret of HIDDEN) expect(text).not.toContain(secret);
    }
    expect(inspectView(subjectOf(row, spec), inspectOf(), ['e1'])).toMatchObject({
      Id: row.id,
      Name: '/web',
      RestartCount: 2,
      ExecIDs: ['e1'],
      State: { Status: 'running', Running: true, Pid: 1, StartedAt: '2026-01-01T00:00:00.000Z' },
      HostConfig: { Memory: row.memoryBytes, Privileged: false, CgroupParent: '', NetworkMode: 'default' },
      NetworkSettings: {
        IPAddress: '10.90.4.2',
        Ports: { '80/tcp': null, '81/tcp': null },
        Networks: { bridge: { IPAddress: '10.90.4.2', MacAddress: '02:42:0a:5a:04:02' } },
      },
    });
  });

  test('are shown from the store where their host is away or lost them', () => {
    expect(summaryView(subjectOf(rowOf(), specOf()), undefined, NOW)).toMatchObject({
      State: 'running',
      Status: 'Up 5 minutes',
      Image: 'shop:1',
    });
    expect(inspectView(subjectOf(rowOf({ state: 'lost', address: '' }), specOf()), undefined, [])).toMatchObject({
      ExecIDs: null,
      State: {
        Status: 'dead',
        Dead: true,
        Running: false,
        Pid: 0,
        Error: containing('remove it and create it again'),
      },
    });
  });

  test('without a network have none', () => {
    expect(
      inspectView(
        subjectOf(rowOf({ address: '', lanAddress: '' }), specOf({ HostConfig: { NetworkMode: 'none' } }), NO_NETWORKS),
        inspectOf(),
        [],
      ),
    ).toMatchObject({
      HostConfig: { NetworkMode: 'none' },
      NetworkSettings: { Networks: {}, IPAddress: '' },
    });
  });
});

test('version and info tell of the platform and the tenant’s quota', () => {
  const facts = { version: '1.2.3', kernel: '6.1', cpus: 2, runtimeVersion: 'r' };
  expect(versionView(facts)).toMatchObject({ Version: '1.2.3', ApiVersion: '1.44', MinAPIVersion: '1.24' });
  const rows = [rowOf(), rowOf({ state: 'paused' }), rowOf({ state: 'exited' }), rowOf({ state: 'lost' })];
  expect(infoView(facts, { tenant: tenantNamed('acme'), rows, images: 3, nowMs: NOW })).toMatchObject({
    Containers: 4,
    ContainersRunning: 1,
    ContainersPaused: 1,
    ContainersStopped: 2,
    Images: 3,
    MemTotal: 2 ** 30,
    SystemTime: new Date(NOW).toISOString(),
  });
});
