/** What is published, from a create request to Docker's JSON. Expected values are those of dockerd 20.10.24. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { exposedKeys, hostRangeOf, parsePorts, portWishes } from '#caas/spec/spec-ports.ts';
import type { PortsOfSpec } from '#caas/spec/spec-ports.ts';
import { portBindingsView, portListView, portMapView } from '#caas/docker-api/port-views.ts';
import { publishedOf } from '#caas/ports/port-routes.ts';
import type { PublishedPortRow } from '#state/published-ports.ts';
import { rowOf, tenantNamed } from '../../support/caas-data.ts';
import { containing } from '../../support/matchers.ts';

function specOf(host: Readonly<Record<string, unknown>>, exposed: readonly string[] = ['80/tcp', '53/udp']): PortsOfSpec {
  const parsed = parsePorts(host);
  if (parsed.kind === 'refused') throw new Error(parsed.reason);
  const map = Object.fromEntries(exposed.map((key) => [key, {}]));
  return { ports: parsed.ports, publishAll: parsed.publishAll, exposedPorts: exposedKeys(parsed.ports, map) };
}

function held(port: number, containerPort: number, change: Partial<PublishedPortRow> = {}): PublishedPortRow {
  return { address: '10.0.0.1', protocol: 'tcp', port, tenant: 'acme', container: rowOf().id, containerPort, ...change };
}

describe('parsePorts()', () => {
  test('refuses what moby refuses, in its words', () => {
    const refusalOf = (bindings: unknown): unknown => {
      const parsed = parsePorts({ PortBindings: bindings });
      return parsed.kind === 'refused' ? parsed.reason : parsed;
    };
    expect(refusalOf({ '80/tcp': [{ HostPort: '70000' }] })).toBe('invalid port specification: "70000"');
    expect(refusalOf({ '80/tcp': [{ HostPort: 'x' }] })).toBe('invalid port specification: "x"');
    expect(refusalOf({ '80/tcp': [{ HostPort: '18010-18000' }] })).toBe('invalid port specification: "18010-18000"');
    expect(refusalOf({ '70000/tcp': [{ HostPort: '1' }] })).toBe('invalid port specification: "70000"');
    expect(refusalOf({ '80-81/tcp': [{ HostPort: '1' }] })).toBe('invalid port specification: "80-81"');
  });

  test('refuses what would be dropped in silence elsewhere', () => {
    for (const [bindings, why] of [
      [{ '80/sctp': [{}] }, 'sctp'],
      [{ '80/foo': [{}] }, 'unknown protocol'],
      [{ '0/tcp': [{}] }, 'invalid port specification'],
      [{ '80/tcp': [{ HostIp: 'abc' }] }, 'not an IP address'],
      [{ '80/tcp': [{ HostPort: 80 }] }, 'must be a string'],
      [{ '80/tcp': 'x' }, 'must be a list'],
      [{ '80/tcp': [{ HostPort: '1', hostport: '2' }] }, 'twice'],
      [{ '80/tcp': [{ HostPort: '1', Interface: 'eth0' }] }, 'is not supported'],
      [[], 'must be an object'],
      [{ '80/tcp': Array.from({ length: 1001 }, () => ({})) }, 'more than 1000'],
    ] as const) {
      expect(parsePorts({ PortBindings: bindings })).toMatchObject({
        kind: 'refused',
        reason: containing(why),
      });
    }
    expect(parsePorts({ PublishAllPorts: 'yes' })).toMatchObject({ kind: 'refused' });
  });

  test('reads keys of any spelling, and shows them as they were given', () => {
    const spec = specOf({ PortBindings: { '80': [{ hostip: '', HOSTPORT: '8080' }], '53/UDP': null } });
    expect(portWishes(spec)).toEqual([{ protocol: 'tcp', containerPort: 80, hostIp: '', range: { first: 8080, last: 8080 } }]);
    expect(portBindingsView(spec.ports)).toEqual({ '80': [{ HostIp: '', HostPort: '8080' }], '53/UDP': [] });
  });

  test('never throws, and what it takes has ports that exist', () => {
    const text = fc.oneof(
      fc.string({ maxLength: 12 }),
      fc.constantFrom('', '0', '80', '80-90', '80/tcp', '65536', '-1', '1-', '٣'),
    );
    const binding = fc.oneof(fc.record({ HostIp: text, HostPort: text }), fc.jsonValue());
    fc.assert(
      fc.property(fc.dictionary(text, fc.oneof(fc.array(binding, { maxLength: 3 }), fc.jsonValue())), (bindings) => {
        const parsed = parsePorts({ PortBindings: bindings });
        if (parsed.kind === 'refused') return;
        for (const { containerPort, range } of portWishes({ ...parsed, exposedPorts: [] })) {
          expect(containerPort).toBeGreaterThan(0);
          expect(containerPort).toBeLessThan(65_536);
          expect(range?.last ?? 0).toBeGreaterThanOrEqual(range?.first ?? 0);
        }
      }),
    );
  });
});

describe('hostRangeOf()', () => {
  test('knows free choice, one port and ranges', () => {
    expect(hostRangeOf('')).toBeUndefined();
    expect(hostRangeOf('0')).toBeUndefined();
    expect(hostRangeOf('80')).toEqual({ first: 80, last: 80 });
    expect(hostRangeOf('80/udp')).toEqual({ first: 80, last: 80 });
    expect(hostRangeOf('80-82')).toEqual({ first: 80, last: 82 });
    expect(hostRangeOf('80-82-84')).toBe('invalid');
    expect(hostRangeOf('82-80')).toBe('invalid');
  });
});

describe('portWishes()', () => {
  test('asks for named ports first, then ranges, then what is free', () => {
    const spec = specOf({ PortBindings: { '80/tcp': [{ HostPort: '' }, { HostPort: '81-85' }, { HostPort: '82' }] } });
    expect(portWishes(spec).map(({ range }) => range)).toEqual([{ first: 82, last: 82 }, { first: 81, last: 85 }, undefined]);
  });

  test('-P publishes what is exposed and not bound yet', () => {
    const all = specOf({ PublishAllPorts: true, PortBindings: { '80/tcp': [{ HostPort: '8080' }] } }, [
      '80/tcp',
      '53/udp',
      '90/tcp',
      '7/sctp',
    ]);
    expect(portWishes(all).map(({ protocol, containerPort, range }) => [protocol, containerPort, range?.first])).toEqual([
      ['tcp', 80, 8080],
      ['udp', 53, undefined],
      ['tcp', 90, undefined],
    ]);
    expect(portWishes(specOf({}))).toEqual([]);
  });
});

describe('views', () => {
  const spec = specOf({ PortBindings: { '80/tcp': [{ HostPort: '' }, { HostIp: '127.0.0.1', HostPort: '18003' }] } });
  const rows = [held(18003, 80), held(32770, 80)];

  test('show each port at the address that was asked for', () => {
    const shown = { spec, rows, isUp: true };
    expect(portMapView(shown)).toEqual({
      '53/udp': null,
      '80/tcp': [
        { HostIp: '127.0.0.1', HostPort: '18003' },
        { HostIp: '0.0.0.0', HostPort: '32770' },
      ],
    });
    expect(portListView(shown)).toEqual([
      { PrivatePort: 53, Type: 'udp' },
      { IP: '127.0.0.1', PrivatePort: 80, PublicPort: 18003, Type: 'tcp' },
      { IP: '0.0.0.0', PrivatePort: 80, PublicPort: 32770, Type: 'tcp' },
    ]);
  });

  test('show nothing of a container that does not run', () => {
    expect(portMapView({ spec, rows, isUp: false })).toEqual({});
    expect(portListView({ spec, rows, isUp: false })).toEqual([]);
  });
});

describe('publishedOf()', () => {
  const tenants = new Map([['acme', tenantNamed('acme')]]);
  const ports = [held(8080, 80)];

  test('leads to where the container is now', () => {
    const row = rowOf({ state: 'running', host: 'b', address: '10.90.4.7', incarnation: 3 });
    expect(publishedOf(ports, [row], tenants)).toEqual([
      {
        protocol: 'tcp',
        address: '10.0.0.1',
        port: 8080,
        tenant: 'acme',
        endpoint: { id: row.id, address: '10.90.4.7', port: 80, hostName: 'b', generation: 3 },
      },
    ]);
  });

  test('has no port of a container that does not run, or whose tenant is suspended', () => {
    for (const state of ['created', 'restarting', 'exited', 'dead', 'lost'] as const)
      expect(publishedOf(ports, [rowOf({ state })], tenants)).toEqual([]);
    expect(publishedOf(ports, [rowOf({ address: '' })], tenants)).toEqual([]);
    expect(publishedOf(ports, [], tenants)).toEqual([]);
    const suspended = new Map([['acme', { ...tenantNamed('acme'), state: 'suspended' as const }]]);
    expect(publishedOf(ports, [rowOf()], suspended)).toEqual([]);
    expect(publishedOf(ports, [rowOf({ state: 'paused' })], tenants)).toHaveLength(1);
  });
});
