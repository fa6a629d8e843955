/** Hosts' networks with network namespaces in the place of containers: real bridges and packet rules, no engine. */
import { spawn } from 'node:child_process';
import type { ChildProcessByStdio } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';
import { runCommand, tryCommand } from '#command';
import { macAddressOf, tenantNetworkOf } from '#isolation/host-addresses.ts';
import type { HostNetwork } from '#isolation/host-addresses.ts';
import { chooseOctet, closeHostNetwork, inNamespace, openHostNetwork } from '#isolation/host-network.ts';

export type LabProgram = ChildProcessByStdio<Writable, Readable, null>;

/** Ends a program and waits until it has. */
export async function endProgram(program: LabProgram): Promise<void> {
  if (program.exitCode !== null || program.signalCode !== null) return;
  program.kill('SIGKILL');
  await once(program, 'exit');
}

/** A network namespace with one interface `eth0`, as a container has it. */
export interface Station {
  readonly name: string;
  readonly address: string;
  readonly mac: string;
  /** Runs a program in it to its end. */
  run(program: string, ...args: readonly string[]): Promise<{ readonly exitCode: number; readonly stdout: string }>;
  /** Starts a Node program in it, ready when it printed a line. */
  node(source: string, ...args: readonly string[]): Promise<LabProgram>;
  /** Whether it gets an answer to a ping. */
  reaches(address: string): Promise<boolean>;
}

export class NetworkLab implements AsyncDisposable {
  readonly scope = randomBytes(3).toString('hex');
  readonly hosts: HostNetwork[] = [];
  readonly #programs: LabProgram[] = [];
  readonly #namespaces: string[] = [];
  readonly #octets = new Set<number>();

  /** A host with an open network that lets nothing pass yet. */
  async host(kind: 'machine' | 'own namespace'): Promise<HostNetwork> {
    const index = this.hosts.length;
    const octet = await this.#octet();
    const namespace = kind === 'machine' ? undefined : `ecluse-${this.scope}-${String(index)}`;
    const network: HostNetwork = { scope: this.scope, index, octet, namespace };
    this.hosts.push(network);
    await openHostNetwork(network);
    return network;
  }

  async #octet(): Promise<number> {
    const octet = await chooseOctet(Number.parseInt(this.scope, 16), this.#octets);
    this.#octets.add(octet);
    return octet;
  }

  /** What the engine does for a tenant's network. */
  async bridge(network: HostNetwork, number: number): Promise<void> {
    const { bridge, gateway } = tenantNetworkOf(network, number);
    await this.inHost(network, 'ip', 'link', 'add', bridge, 'type', 'bridge');
    await this.inHost(network, 'ip', 'address', 'add', `${gateway}/22`, 'dev', bridge);
    await this.inHost(network, 'ip', 'link', 'set', bridge, 'up');
  }

  async inHost(network: HostNetwork, program: string, ...args: readonly string[]): Promise<string> {
    const [command, rest] = inNamespace(network, program, args);
    return await runCommand(command, rest);
  }

  /** What the engine does for a container. */
  async station(network: HostNetwork, number: number, address: string): Promise<Station> {
    const { bridge, gateway } = tenantNetworkOf(network, number);
    const mac = macAddressOf(address);
    const { name, port } = await this.#namespace();
    const inside = ['netns', `/run/netns/${name}`, 'name', 'eth0', 'address', mac];
    await this.inHost(network, 'ip', 'link', 'add', port, 'type', 'veth', 'peer', ...inside);
    await this.inHost(network, 'ip', 'link', 'set', port, 'master', bridge, 'up');
    return await this.#up({ name, address, mac }, '22', gateway);
  }

  /** A machine beside this one: where containers get when they get out. */
  async outside(): Promise<Station> {
    const octet = await this.#octet();
    const { name, port } = await this.#namespace();
    const link = ['netns', name, 'name', 'eth0'];
    await runCommand('ip', ['link', 'add', port, 'type', 'veth', 'peer', ...link]);
    await runCommand('ip', ['address', 'add', `10.${String(octet)}.0.1/24`, 'dev', port]);
    await runCommand('ip', ['link', 'set', port, 'up']);
    return await this.#up({ name, address: `10.${String(octet)}.0.2`, mac: '' }, '24', `10.${String(octet)}.0.1`);
  }

  async #namespace(): Promise<{ readonly name: string; readonly port: string }> {
    const number = String(this.#namespaces.length);
    const name = `eclusetest-${this.scope}-${number}`;
    await runCommand('ip', ['netns', 'add', name]);
    this.#namespaces.push(name);
    return { name, port: `lab${this.scope}${number}` };
  }

  async #up(
    station: { readonly name: string; readonly address: string; readonly mac: string },
    bits: string,
    gateway: string,
  ): Promise<Station> {
    const { name, address } = station;
    await runCommand('ip', ['-n', name, 'address', 'add', `${address}/${bits}`, 'dev', 'eth0']);
    await runCommand('ip', ['-n', name, 'link', 'set', 'lo', 'up']);
    await runCommand('ip', ['-n', name, 'link', 'set', 'eth0', 'up']);
    await runCommand('ip', ['-n', name, 'route', 'add', 'default', 'via', gateway]);
    const run: Station['run'] = async (program, ...args) =>
      await tryCommand('nsenter', [`--net=/run/netns/${name}`, program, ...args]);
    return {
      ...station,
      run,
      node: async (source, ...args) => await this.#node(name, source, args),
      reaches: async (target) => (await run('busybox', 'ping', '-c', '1', '-W', '1', target)).exitCode === 0,
    };
  }

  async #node(namespace: string, source: string, args: readonly string[]): Promise<LabProgram> {
    const command = [`--net=/run/netns/${namespace}`, process.execPath, '--input-type=module', '--eval', source, ...args];
    const child = spawn('nsenter', command, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#programs.push(child);
    await once(child.stdout, 'data');
    return child;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const program of this.#programs) await endProgram(program);
    // By hand, because a namespace's own go some time after it.
    for (const [number, name] of this.#namespaces.entries()) {
      await tryCommand('ip', ['link', 'delete', `lab${this.scope}${String(number)}`]);
      await tryCommand('ip', ['netns', 'delete', name]);
    }
    for (const network of this.hosts) await closeHostNetwork(network, 'with-bridges');
    const { stdout } = await tryCommand('sh', ['-c', 'ip -o link; ip -o address; ip netns list; nft list tables']);
    const left = stdout.split('\n').filter((line) => line.includes(this.scope));
    if (left.length > 0) throw new Error(`the network lab left ${left.join(', ')}`);
  }
}
