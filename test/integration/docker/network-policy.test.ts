/** Who may talk to whom, on real bridges and packet rules. Network namespaces stand for containers. */
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { systemClock } from '#clock';
import { createLog } from '#log';
import { nameTableOf } from '#caas/dns/name-table.ts';
import { DnsResponder } from '#caas/dns/responder.ts';
import { linkAddressOf, RESOLVER_ADDRESS, staticAddressOf, tenantNetworkOf } from '#isolation/host-addresses.ts';
import type { HostNetwork } from '#isolation/host-addresses.ts';
import { applyPolicy, disableForwarding, enableForwarding } from '#isolation/host-network.ts';
import { PacketFilter } from '#isolation/packet-filter.ts';
import type { HostPolicy } from '#isolation/packet-rules.ts';
import { run } from '../../support/node.ts';
import { endProgram, NetworkLab } from '../../support/network-lab.ts';
import type { LabProgram, Station } from '../../support/network-lab.ts';

const TENANTS = { acme: [1, 2], globex: [2, 1] } as const;
type Tenant = keyof typeof TENANTS;

/** Name, tenant, place of its host, networks. */
const STATIONS = [
  ['a', 'acme', 0, ['front']],
  ['b', 'acme', 0, ['front', 'back']],
  ['c', 'acme', 0, ['back']],
  ['d', 'acme', 1, ['front']],
  ['e', 'acme', 1, ['back']],
  ['i', 'acme', 0, ['cellar']],
  ['j', 'acme', 1, ['cellar']],
  ['x', 'globex', 0, ['alien']],
  ['y', 'globex', 1, ['alien']],
] as const;

/** Until there is one. */
const NONE: HostNetwork = { scope: 'none', index: 0, octet: 0, namespace: 'none' };

let wasForwardingOff = false;

beforeAll(async () => {
  wasForwardingOff = await enableForwarding();
});

afterAll(async () => {
  if (wasForwardingOff && !(await run('nft', ['list', 'tables'])).stdout.includes(' ecluse_')) await disableForwarding();
});

/** Says what it hears on UDP port 9000, with the sender. */
const LISTENER = `
import { createSocket } from 'node:dgram';
const socket = createSocket('udp4', (message, from) => console.log(String(message) + ' from ' + from.address));
socket.bind(9000, () => console.log('ready'));
`;

/** Echoes what comes to TCP port 9001. */
const ECHO = `
import { createServer } from 'node:net';
createServer((socket) => socket.pipe(socket).on('error', () => {})).listen(9001, () => console.log('ready'));
`;

/** Keeps one connection to an echo busy, and says at its end how many answers it had and how the connection ended. */
const TALKER = `
import { connect } from 'node:net';
const socket = connect(9001, process.argv[1]);
let answers = 0;
let end = 'open';
socket.on('error', (error) => { end = error.code; }).on('data', () => { answers += 1; setTimeout(() => socket.write('x'), 5); });
socket.once('connect', () => { console.log('ready'); socket.write('x'); });
process.stdin.once('data', () => {
  const before = answers;
  setTimeout(() => { console.log(JSON.stringify({ end, answers, goesOn: answers > before })); process.exit(0); }, 200);
});
`;

/** Sends one datagram to port 9000. */
const SENDER = `
import { createSocket } from 'node:dgram';
const [to, from, text] = process.argv.slice(1);
const socket = createSocket('udp4');
socket.bind({ address: from }, () => socket.send(text, 9000, to, () => { socket.close(); console.log('sent'); }));
`;

/** Asks the resolver for names and addresses, over UDP or TCP, and prints what it is told. */
const ASKER = `
import { Resolver } from 'node:dns/promises';
const resolver = new Resolver({ timeout: 1000, tries: 4 });
resolver.setServers(['${RESOLVER_ADDRESS}']);
const answers = process.argv.slice(1).map((name) => resolver.resolve4(name).catch((error) => error.code));
console.log(JSON.stringify(await Promise.all(answers)));
`;

/** Sends questions as fast as it can. */
const FLOODER = `
import { createSocket } from 'node:dgram';
const question = Buffer.from('123401000001000000000000016200000100' + '01', 'hex');
const socket = createSocket('udp4');
socket.bind(() => {
  console.log('ready');
  const send = () => { for (let i = 0; i < 500; i += 1) socket.send(question, 53, '${RESOLVER_ADDRESS}', () => {}); setImmediate(send); };
  send();
});
`;

async function finish(talker: LabProgram): Promise<unknown> {
  const said = once(talker.stdout, 'data');
  talker.stdin.write('end');
  const answer: unknown = JSON.parse(String(await said));
  return answer;
}

class World {
  readonly lab = new NetworkLab();
  hosts: readonly [HostNetwork, HostNetwork] = [NONE, NONE];
  readonly stations = new Map<string, Station>();
  readonly members = new Map<string, Set<string>>(
    ['front', 'back', 'cellar', 'alien'].map((network) => [
      network,
      new Set(STATIONS.filter(([, , , networks]) => networks.some((name) => name === network)).map(([name]) => name)),
    ]),
  );
  readonly resolverPorts = new Map<HostNetwork, number>();

  async build(kinds: readonly ['machine' | 'own namespace', 'own namespace']): Promise<void> {
    this.hosts = [await this.lab.host(kinds[0]), await this.lab.host(kinds[1])];
    for (const host of this.hosts) await Promise.all([1, 2].map(async (number) => await this.lab.bridge(host, number)));
    for (const [place, [name, tenant, host]] of STATIONS.entries()) await this.#add(name, tenant, host, place);
    const [first] = this.hosts;
    this.stations.set('build', await this.lab.station(first, 1, `10.${String(first.octet)}.7.200`));
    this.stations.set('outside', await this.lab.outside());
    await Promise.all(this.hosts.map(async (host) => await applyPolicy(host, this.policyOf(host))));
  }

  async #add(name: string, tenant: Tenant, host: 0 | 1, place: number): Promise<void> {
    const network = this.hosts[host];
    const number = TENANTS[tenant][host];
    // The last one has an address in another /24 of the network than its gateway.
    const address = staticAddressOf(network, number, place * 100);
    this.stations.set(name, await this.lab.station(network, number, address));
  }

  at(name: string): Station {
    const station = this.stations.get(name);
    if (station === undefined) throw new Error(`there is no station ${name}`);
    return station;
  }

  policyOf(host: HostNetwork): HostPolicy {
    const index = this.hosts.indexOf(host) === 0 ? 0 : 1;
    const networksOf = (tenant: Tenant): HostPolicy['tenants'][number]['networks'] =>
      [...this.members]
        .filter(([name]) => (name === 'alien') === (tenant === 'globex'))
        .map(([name, members]) => ({
          id: name,
          internal: name === 'cellar',
          addresses: [...members].map((member) => this.at(member).address),
        }));
    return {
      octets: this.hosts.map(({ octet }) => octet),
      resolverPort: this.resolverPorts.get(host),
      tenants: (['acme', 'globex'] as const).map((tenant) => ({
        tenantNumber: TENANTS[tenant][index],
        networks: networksOf(tenant),
      })),
    };
  }

  /** Pings from everyone to everyone at once. */
  async whoReaches(pairs: readonly string[]): Promise<readonly string[]> {
    const outcomes = await Promise.all(
      pairs.map(async (pair) => {
        const [from = '', to = ''] = pair.split(' → ');
        return (await this.at(from).reaches(this.stations.get(to)?.address ?? to)) ? pair : '';
      }),
    );
    return outcomes.filter((pair) => pair !== '');
  }

  /** What a station is told about names. */
  async ask(from: string, ...names: readonly string[]): Promise<unknown> {
    const asked = await this.at(from).run(process.execPath, '--input-type=module', '--eval', ASKER, ...names);
    const answers: unknown = JSON.parse(asked.stdout);
    return answers;
  }

  async listen(responder: DnsResponder): Promise<void> {
    for (const host of this.hosts) this.resolverPorts.set(host, await responder.listen(linkAddressOf(host)));
    await Promise.all(this.hosts.map(async (host) => await applyPolicy(host, this.policyOf(host))));
  }

  names(): ReturnType<typeof nameTableOf> {
    const members = STATIONS.map(([name, , , networks]) => ({
      containerId: name.padEnd(64, '0'),
      name,
      address: this.at(name).address,
      memberships: networks.map((id) => ({
        networkId: id,
        networkName: id,
        isPredefined: false,
        aliases: [`${id}-all`],
        links: [],
      })),
      hasWayOut: !networks.some((network) => network === 'cellar'),
    }));
    return nameTableOf(
      members,
      this.hosts.map(({ octet }) => octet),
    );
  }

  async heardFrom(listener: LabProgram, send: () => Promise<void>): Promise<string> {
    let heard = '';
    const hear = (chunk: Buffer): void => {
      heard += String(chunk);
    };
    listener.stdout.on('data', hear);
    await send();
    await delay(300);
    listener.stdout.off('data', hear);
    return heard;
  }
}

describe.each([
  { name: 'the machine’s namespace and one of its own', kinds: ['machine', 'own namespace'], frames: 'as the machine has it' },
  {
    name: 'two namespaces of their own, bridged frames not seen by inet rules',
    kinds: ['own namespace', 'own namespace'],
    frames: '0',
  },
] as const)('hosts in $name', ({ kinds, frames }) => {
  let world: World;

  beforeAll(async () => {
    world = new World();
    await world.build(kinds);
    if (frames !== '0') return;
    for (const host of world.hosts) {
      await world.lab.inHost(host, 'sh', '-c', 'for f in /proc/sys/net/bridge/bridge-nf-call-ip*tables; do echo 0 >$f; done');
    }
  });

  afterAll(async () => {
    await world.lab[Symbol.asyncDispose]();
  });

  test('containers reach those that share a network, on their host and on others, and nobody else', async () => {
    const names = STATIONS.map(([name]) => name);
    const pairs = names.flatMap((from) => names.filter((to) => to !== from).map((to) => `${from} → ${to}`));
    const expected = pairs.filter((pair) => {
      const [from = '', to = ''] = pair.split(' → ');
      return [...world.members.values()].some((members) => members.has(from) && members.has(to));
    });
    expect(expected).toHaveLength(16);
    expect(await world.whoReaches(pairs)).toEqual(expected);
  });

  test('out gets who has a network that is not internal, and what the engine runs by itself', async () => {
    const pairs = [...STATIONS.map(([name]) => name), 'build'].map((name) => `${name} → outside`);
    expect(await world.whoReaches(pairs)).toEqual(pairs.filter((pair) => !/^[ij] /.test(pair)));
  });

  test('what the engine runs by itself reaches no container, and none reaches it', async () => {
    expect(await world.whoReaches(['build → a', 'build → c', 'build → d', 'a → build', 'd → build', 'build → x'])).toEqual([]);
  });

  test('nobody reaches the host, its other networks or its link; nothing comes in from outside', async () => {
    const hosts = world.hosts.flatMap((host) => [
      linkAddressOf(host),
      tenantNetworkOf(host, 1).gateway,
      tenantNetworkOf(host, 2).gateway,
    ]);
    const pairs = ['a', 'd', 'i', 'build'].flatMap((from) => hosts.map((to) => `${from} → ${to}`));
    expect(await world.whoReaches([...pairs, 'outside → a', 'outside → d', 'outside → build'])).toEqual([]);
  });

  test('the edge reaches every container', async () => {
    for (const name of ['a', 'd', 'i', 'j', 'x', 'y']) {
      const { exitCode } = await run('busybox', ['ping', '-c', '1', '-W', '1', world.at(name).address]);
      expect(exitCode, name).toBe(0);
    }
  });

  test.each([
    ['b', 'c', 'its neighbour’s'],
    ['d', 'e', 'one of another host'],
    ['x', 'c', 'another tenant’s'],
  ])('a sender with the address of %s is not heard by %s: %s', async (victim, target, _case) => {
    const listener = await world.at(target).node(LISTENER);
    const { address: stolen } = world.at(victim);
    const { address: to, mac } = world.at(target);
    const liar = world.at('a');
    await liar.run('ip', 'address', 'add', `${stolen}/32`, 'dev', 'eth0');
    // Without asking: a refused ARP question would hide that the packet itself passes.
    if (target === 'c') await liar.run('ip', 'neigh', 'replace', to, 'lladdr', mac, 'dev', 'eth0');
    try {
      const heard = await world.heardFrom(listener, async () => {
        await liar.node(SENDER, to, stolen, 'a lie');
        await world.at('b').node(SENDER, to, world.at('b').address, 'the truth');
      });
      expect(heard).not.toContain('a lie');
      // `b` shares a network with both targets: what it sends arrives, so the listener listens.
      expect(heard).toContain(`the truth from ${world.at('b').address}`);
    } finally {
      await endProgram(listener);
      await liar.run('ip', 'address', 'delete', `${stolen}/32`, 'dev', 'eth0');
      await liar.run('ip', 'neigh', 'delete', to, 'dev', 'eth0');
    }
  });

  test('a whole identity is worth nothing on another tenant’s bridge', async () => {
    const [liar, a, b] = [world.at('x'), world.at('a'), world.at('b')];
    const listener = await b.node(LISTENER);
    await liar.run('ip', 'link', 'set', 'eth0', 'address', a.mac);
    await liar.run('ip', 'address', 'add', `${a.address}/32`, 'dev', 'eth0');
    try {
      const heard = await world.heardFrom(listener, async () => {
        await liar.node(SENDER, b.address, a.address, 'a lie');
        await a.node(SENDER, b.address, a.address, 'the truth');
      });
      expect(heard).not.toContain('a lie');
      expect(heard).toContain(`the truth from ${a.address}`);
    } finally {
      await endProgram(listener);
      await liar.run('ip', 'address', 'delete', `${a.address}/32`, 'dev', 'eth0');
      await liar.run('ip', 'link', 'set', 'eth0', 'address', liar.mac);
    }
  });

  test('a container cannot lead what is meant for another to itself', async () => {
    const [host] = world.hosts;
    const liar = world.at('a');
    const { address: stolen } = world.at('c');
    await liar.run('ip', 'address', 'add', `${stolen}/32`, 'dev', 'eth0');
    try {
      await liar.run('busybox', 'arping', '-U', '-c', '2', '-I', 'eth0', stolen);
      await liar.run('busybox', 'arping', '-c', '2', '-w', '2', '-s', stolen, '-I', 'eth0', tenantNetworkOf(host, 1).gateway);
      const neighbours = await world.lab.inHost(host, 'ip', 'neigh', 'show', stolen);
      expect(neighbours).not.toContain(liar.mac);
      expect((await run('busybox', ['ping', '-c', '1', '-W', '1', stolen])).exitCode).toBe(0);
      expect(await world.lab.inHost(host, 'ip', 'neigh', 'show', stolen)).not.toContain(liar.mac);
    } finally {
      await liar.run('ip', 'address', 'delete', `${stolen}/32`, 'dev', 'eth0');
    }
  });

  test('addresses that nobody gave do not pass, nor does IPv6', async () => {
    await world.at('a').run('ip', 'address', 'add', '192.168.77.1/24', 'dev', 'eth0');
    await world.at('b').run('ip', 'address', 'add', '192.168.77.2/24', 'dev', 'eth0');
    await world.at('a').run('ip', 'neigh', 'replace', '192.168.77.2', 'lladdr', world.at('b').mac, 'dev', 'eth0');
    await world.at('b').run('ip', 'neigh', 'replace', '192.168.77.1', 'lladdr', world.at('a').mac, 'dev', 'eth0');
    expect(await world.at('a').reaches('192.168.77.2')).toBe(false);

    for (const [name, address] of [
      ['a', 'fd00::a'],
      ['b', 'fd00::b'],
    ] as const) {
      await world.at(name).run('ip', '-6', 'address', 'add', `${address}/64`, 'dev', 'eth0', 'nodad');
    }
    const [a, b] = [world.at('a'), world.at('b')];
    await a.run('ip', 'neigh', 'replace', 'fd00::b', 'lladdr', b.mac, 'dev', 'eth0');
    await b.run('ip', 'neigh', 'replace', 'fd00::a', 'lladdr', a.mac, 'dev', 'eth0');
    expect(await a.reaches('fd00::b')).toBe(false);
  });

  describe('names', () => {
    let responder: DnsResponder;

    beforeAll(async () => {
      const names = world.names();
      const resolvers = async (): Promise<readonly []> => await Promise.resolve([]);
      responder = new DnsResponder({ log: createLog('silent'), clock: systemClock, names: () => names, resolvers });
      await world.listen(responder);
    });

    afterAll(async () => {
      await responder[Symbol.asyncDispose]();
    });

    test('are told by who asks, on each host', async () => {
      const { address: b } = world.at('b');
      const { address: d } = world.at('d');
      expect(await world.ask('a', 'b', 'd', 'c', 'x')).toEqual([[b], [d], 'ESERVFAIL', 'ESERVFAIL']);
      expect(await world.ask('e', 'b', 'd')).toEqual([[b], 'ESERVFAIL']);
      expect(await world.ask('i', 'j', 'a', 'example.test')).toEqual([[world.at('j').address], 'ESERVFAIL', 'ESERVFAIL']);
      expect(await world.ask('x', 'y', 'a')).toEqual([[world.at('y').address], 'ESERVFAIL']);
      expect(await world.ask('build', 'a')).toEqual(['ESERVFAIL']);
    });

    test('come over TCP too', async () => {
      const source = `import { connect } from 'node:net';
        const socket = connect(53, '${RESOLVER_ADDRESS}');
        socket.on('data', (reply) => { console.log(reply.readUInt16BE(2).toString(16)); process.exit(0); });
        socket.write(Buffer.from('0013' + '1234010000010000000000000162000001' + '0001', 'hex'));`;
      for (const name of ['a', 'd']) {
        expect((await world.at(name).run(process.execPath, '--input-type=module', '--eval', source)).stdout, name).toBe('1234\n');
      }
    });

    test('are asked nowhere else at that address, and nobody else reaches who answers', async () => {
      const [host] = world.hosts;
      const port = String(world.resolverPorts.get(host));
      const link = linkAddressOf(host);
      const probe = `import { connect } from 'node:net';
        const socket = connect({ port: Number(process.argv[1]), host: process.argv[2], timeout: 700 });
        socket.on('connect', () => end('open')).on('error', (error) => end(error.code)).on('timeout', () => end('silent'));
        const end = (how) => { console.log(how); process.exit(0); };`;
      const tried = async (from: string, ...target: readonly string[]): Promise<string> =>
        (await world.at(from).run(process.execPath, '--input-type=module', '--eval', probe, ...target)).stdout.trim();
      expect(await tried('a', '80', RESOLVER_ADDRESS)).toBe('silent');
      await world.at('outside').run('ip', 'route', 'replace', link, 'via', world.at('outside').address.replace(/2$/, '1'));
      expect(await tried('outside', port, link)).toBe('silent');
    });

    test('are answered to one tenant while another floods: what is too much is dropped before the responder', async () => {
      const flooder = await world.at('a').node(FLOODER);
      try {
        const dropped = async (): Promise<string> =>
          await world.lab.inHost(world.hosts[0], 'nft', 'list', 'chain', 'inet', `ecluse_${world.lab.scope}_0`, 'source');
        await expect.poll(dropped, { timeout: 20_000 }).toMatch(/askers.*counter packets [1-9]/);
        expect(await world.ask('x', 'y')).toEqual([[world.at('y').address]]);
      } finally {
        await endProgram(flooder);
      }
    });
  });

  test('connections live on while rules change around them, and end with their own network', async () => {
    const log = createLog('silent');
    const filters = world.hosts.map(
      (host) => new PacketFilter(log, host, async () => await Promise.resolve(world.policyOf(host))),
    );
    const refresh = async (): Promise<void> => {
      await Promise.all(filters.map(async (filter) => await filter.refresh()));
    };
    for (const name of ['b', 'd', 'outside']) await world.at(name).node(ECHO);
    const talkers = {
      neighbour: await world.at('a').node(TALKER, world.at('b').address),
      far: await world.at('a').node(TALKER, world.at('d').address),
      outside: await world.at('d').node(TALKER, world.at('outside').address),
      doomed: await world.at('c').node(TALKER, world.at('b').address),
    };
    const back = world.members.get('back') ?? new Set();
    back.add('a');
    await refresh();
    expect(await world.whoReaches(['a → c', 'a → e', 'c → a'])).toHaveLength(3);
    for (let round = 0; round < 10; round += 1) {
      await Promise.all(world.hosts.map(async (host) => await applyPolicy(host, world.policyOf(host))));
      back.add('a');
      await refresh();
      back.delete('a');
      await refresh();
    }
    expect(await world.whoReaches(['a → c', 'a → e', 'c → a'])).toEqual([]);
    back.delete('c');
    await refresh();
    await delay(100);
    const whole = { end: 'open', goesOn: true };
    expect(await finish(talkers.neighbour)).toMatchObject(whole);
    expect(await finish(talkers.far)).toMatchObject(whole);
    expect(await finish(talkers.outside)).toMatchObject(whole);
    expect(await finish(talkers.doomed)).toMatchObject({ goesOn: false });
    back.add('c');
    await refresh();
  });

  test('many changes at a time share the runs that apply them, and each has a policy of its own time', async () => {
    const [host] = world.hosts;
    const log = createLog('silent');
    let reads = 0;
    const filter = new PacketFilter(log, host, async () => {
      reads += 1;
      return await Promise.resolve(world.policyOf(host));
    });
    const back = world.members.get('back') ?? new Set();
    const first = filter.refresh();
    back.add('a');
    await Promise.all(Array.from({ length: 50 }, async () => await filter.refresh()));
    expect(reads).toBe(2);
    expect(await world.whoReaches(['a → c'])).toEqual(['a → c']);
    await first;
    back.delete('a');
    await filter.refresh();
    expect(reads).toBe(3);
    expect(await world.whoReaches(['a → c'])).toEqual([]);
  });

  test('rules that someone else took away come back with the next change', async () => {
    const [host] = world.hosts;
    const filter = new PacketFilter(createLog('silent'), host, async () => await Promise.resolve(world.policyOf(host)));
    await filter.refresh();
    await world.lab.inHost(host, 'nft', 'delete', 'table', 'bridge', `ecluse_${world.lab.scope}_0`);
    const front = world.members.get('front') ?? new Set();
    front.add('c');
    await filter.refresh();
    expect(await world.whoReaches(['a → c', 'a → i'])).toEqual(['a → c']);
    front.delete('c');
    await filter.refresh();
    expect(await world.whoReaches(['a → c'])).toEqual([]);
  });
});
