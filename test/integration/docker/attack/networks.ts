/** Attacks on other tenants' networks, addresses and names, and on ports. */
import { connect } from 'node:net';
import { once } from 'node:events';
import { expect } from 'vitest';
import * as z from 'zod';
import { allRefused, create, filtersQuery, get, hosted, indistinct, post, remove, succeed } from './cases.ts';
import type { AttackCase } from './cases.ts';
import type { AttackWorld } from '../../../support/attack.ts';

const onNetworks: readonly AttackCase[] = [
  ...indistinct('names and prefixes', 'network', {
    'inspect a network': (name) => get(`/networks/${name}`),
    'inspect a network in full': (name) => get(`/networks/${name}?verbose=1&scope=local`),
    'remove a network': (name) => remove(`/networks/${name}`),
    'connect to a network': (name) => post(`/networks/${name}/connect`, { Container: 'ownbox' }),
    'disconnect from a network': (name) => post(`/networks/${name}/disconnect`, { Container: 'ownbox', Force: true }),
    'list networks': (name) => get(`/networks?${filtersQuery({ id: [name] })}`),
    'list networks by name': (name) => get(`/networks?${filtersQuery({ name: [name] })}`),
  }),
  ...indistinct('names and prefixes', 'container', {
    'connect their container to mine': (name) => post('/networks/ownnet/connect', { Container: name }),
    'disconnect their container': (name) => post('/networks/ownnet/disconnect', { Container: name, Force: true }),
  }),
  {
    row: 'names and prefixes',
    name: 'a network of another tenant’s name is one of one’s own',
    run: async (world) => {
      const made = z
        .object({ Id: z.string() })
        .parse(JSON.parse(await succeed(world, post('/networks/create', { Name: 'basaltnet' }))));
      expect(world.references.network).not.toContain(made.Id);
      const seen = await succeed(world, get('/networks/basaltnet'));
      expect(z.object({ Containers: z.record(z.string(), z.unknown()) }).parse(JSON.parse(seen)).Containers).toEqual({});
      await succeed(world, remove('/networks/basaltnet'));
    },
  },
  {
    row: 'names and prefixes',
    name: 'a container that joins a network of another tenant does not start',
    run: async (world) => {
      for (const mode of ['basaltnet', world.references.network[0] ?? '']) {
        const answer = await world.ask(create({ HostConfig: { NetworkMode: mode } }, '?name=joiner'));
        if (answer.status === 201) {
          const started = await world.ask(post('/containers/joiner/start'));
          expect([started.status, started.text], mode).toEqual([404, expect.stringContaining('not found')]);
          await succeed(world, remove('/containers/joiner?force=1'));
        } else expect(answer.status, answer.text).toBe(404);
      }
    },
  },
];

const hostNetwork: readonly AttackCase[] = allRefused(
  'host network',
  {
    'as the mode': hosted({ NetworkMode: 'host' }),
    'in another spelling of the key': hosted({ networkmode: 'host' }),
    'as an endpoint': create({ NetworkingConfig: { EndpointsConfig: { host: {} } } }),
    'as an endpoint in another spelling': create({ networkingconfig: { endpointsconfig: { host: {} } } }),
    'by connecting to it': post('/networks/host/connect', { Container: 'ownbox' }),
    'of another container': hosted({ NetworkMode: 'container:ownbox' }),
    'by a path': hosted({ NetworkMode: 'ns:/proc/1/ns/net' }),
  },
  { status: [400, 403] },
);

const linksAndNames: readonly AttackCase[] = [
  ...indistinct('links and names', 'container', {
    'a link to a container': (name) => create({ HostConfig: { NetworkMode: 'ownnet', Links: [`${name}:peer`] } }),
    'a link in lower case': (name) => create({ hostconfig: { networkmode: 'ownnet', links: [`${name}:peer`] } }),
    'a link of an endpoint': (name) =>
      create({
        HostConfig: { NetworkMode: 'ownnet' },
        NetworkingConfig: { EndpointsConfig: { ownnet: { Links: [`${name}:peer`] } } },
      }),
  }),
  ...allRefused(
    'links and names',
    {
      'a resolver': hosted({ Dns: ['169.254.169.254'] }),
      'a resolver behind an option': hosted({ DnsOptions: ['ndots:9\nnameserver 169.254.169.254'] }),
      'a resolver behind a search domain': hosted({ DnsSearch: ['internal\nnameserver 169.254.169.254'] }),
      'a resolver in lower case': hosted({ dns: ['169.254.169.254'] }),
      'a name with a line break': hosted({ ExtraHosts: ['x\nlocalhost:10.0.0.1'] }),
    },
    { status: [400, 403] },
  ),
];

const addresses: readonly AttackCase[] = allRefused(
  'addresses and drivers',
  {
    'a MAC': create({ MacAddress: '02:42:0a:00:00:02' }),
    'a MAC of an endpoint': create({ NetworkingConfig: { EndpointsConfig: { bridge: { MacAddress: '02:42:0a:00:00:02' } } } }),
    'an address': create({ NetworkingConfig: { EndpointsConfig: { ownnet: { IPAMConfig: { IPv4Address: '10.0.0.2' } } } } }),
    'an address in lower case': create({
      networkingconfig: { endpointsconfig: { ownnet: { ipamconfig: { ipv4address: '10.0.0.2' } } } },
    }),
    'link-local addresses': create({
      NetworkingConfig: { EndpointsConfig: { ownnet: { IPAMConfig: { LinkLocalIPs: ['169.254.1.1'] } } } },
    }),
    macvlan: post('/networks/create', { Name: 'x', Driver: 'macvlan', Options: { parent: 'eth0' } }),
    'the host’s driver': post('/networks/create', { Name: 'x', Driver: 'host' }),
    overlay: post('/networks/create', { Name: 'x', Driver: 'overlay', Attachable: true }),
    'the name of a bridge': post('/networks/create', { Name: 'x', Options: { 'com.docker.network.bridge.name': 'docker0' } }),
    'options in lower case': post('/networks/create', { name: 'x', options: { 'com.docker.network.bridge.name': 'docker0' } }),
    'a subnet': post('/networks/create', { Name: 'x', IPAM: { Config: [{ Subnet: '10.0.0.0/8' }] } }),
    'a driver of addresses': post('/networks/create', { Name: 'x', IPAM: { Driver: 'dhcp' } }),
    ingress: post('/networks/create', { Name: 'x', Ingress: true }),
    'configuration from elsewhere': post('/networks/create', { Name: 'x', ConfigFrom: { Network: 'basaltnet' } }),
    'a scope': post('/networks/create', { Name: 'x', Scope: 'swarm' }),
    'a name that climbs': post('/networks/create', { Name: '../x' }),
    'a predefined name': post('/networks/create', { Name: 'bridge' }),
  },
  { status: [400, 403] },
);

const portsSchema = z.object({
  NetworkSettings: z.object({ Ports: z.record(z.string(), z.array(z.object({ HostPort: z.string() })).nullable()) }),
});

async function theirPort(world: AttackWorld): Promise<string> {
  const answer = await world.askAsVictim(get('/containers/granite/json'));
  const port = portsSchema.parse(JSON.parse(answer.text)).NetworkSettings.Ports['80/tcp']?.[0]?.HostPort;
  expect(port).toMatch(/^\d+$/);
  return port ?? '';
}

/** Whether a port of this machine takes connections. */
async function listens(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

/** What comes of a container that asks for these bindings of port 80. */
async function publish(
  world: AttackWorld,
  bindings: readonly object[],
): Promise<{ readonly status: number; readonly text: string }> {
  const created = await world.ask(create({ HostConfig: { PortBindings: { '80/tcp': bindings } } }, '?name=publisher'));
  if (created.status !== 201) return created;
  const started = await world.ask(post('/containers/publisher/start'));
  await succeed(world, remove('/containers/publisher?force=1'));
  return started;
}

/** A refusal without what is another each time. */
function settled(text: string, port: string): string {
  return text.replaceAll(/[0-9a-f]{64}/g, 'ID').replaceAll(port, 'PORT');
}

const ports: readonly AttackCase[] = [
  {
    row: 'ports',
    name: 'a port that another tenant has is as taken as one of a program of the node, and stays theirs',
    run: async (world) => {
      const theirs = await theirPort(world);
      const answer = await publish(world, [{ HostPort: theirs }]);
      const ofNode = String(world.node.ports.metrics);
      const nodes = await publish(world, [{ HostPort: ofNode }]);
      expect({ status: answer.status, text: settled(answer.text, theirs) }).toEqual({
        status: nodes.status,
        text: settled(nodes.text, ofNode),
      });
      expect(answer.status).toBe(500);
      expect(await theirPort(world)).toBe(theirs);
    },
  },
  {
    row: 'ports',
    name: 'ports that the node itself listens on cannot be had',
    run: async (world) => {
      for (const port of [world.node.ports.http, world.node.ports.https, world.node.ports.docker, world.node.ports.metrics]) {
        expect((await publish(world, [{ HostPort: String(port) }])).status, String(port)).toBeGreaterThanOrEqual(400);
        expect(await listens(port)).toBe(true);
      }
    },
  },
  {
    row: 'ports',
    name: 'addresses that are not the tenant’s cannot be had',
    run: async (world) => {
      for (const HostIp of ['169.254.169.254', '10.0.0.1', '192.0.2.53', '::1', 'localhost', '1.2.3.4/8']) {
        const answer = await publish(world, [{ HostIp, HostPort: '' }]);
        // Loopback is this test's own endpoint's address: a tenant may have ports there.
        if (!['::1', 'localhost'].includes(HostIp)) expect(answer.status, HostIp).toBeGreaterThanOrEqual(400);
      }
    },
  },
  ...allRefused(
    'ports',
    {
      'a port beyond the last': hosted({ PortBindings: { '80/tcp': [{ HostPort: '70000' }] } }),
      'a range upside down': hosted({ PortBindings: { '80/tcp': [{ HostPort: '9000-8000' }] } }),
      'no port of a container': hosted({ PortBindings: { '99999/tcp': [{ HostPort: '' }] } }),
      'another protocol': hosted({ PortBindings: { '80/icmp': [{ HostPort: '' }] } }),
      'more bindings than there are ports': hosted({
        PortBindings: Object.fromEntries(
          Array.from({ length: 2000 }, (_, index) => [`${String(index + 1)}/tcp`, [{ HostPort: '' }]]),
        ),
      }),
    },
    { status: [400, 403] },
  ),
];

export const networkCases: readonly AttackCase[] = [...onNetworks, ...hostNetwork, ...linksAndNames, ...addresses, ...ports];
