/** A node with one tenant, whose containers are made by the Docker API. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as z from 'zod';
import { busyboxTar, callApi, credentialsOf } from '../../test/support/docker-api.ts';
import type { Credentials } from '../../test/support/docker-api.ts';
import { addTenant, startNode } from '../../test/support/node.ts';
import type { TestNode } from '../../test/support/node.ts';

const TENANT = 'acme';
const IMAGE = 'metered:1';
const MIB = 1024 * 1024;

export interface ContainerPlan {
  readonly script: string;
  /** Of the tmpfs at /m. */
  readonly memoryMib?: number;
}

export class MeteringScene implements AsyncDisposable {
  readonly node: TestNode;
  readonly folder: string;
  readonly #credentials: Credentials;

  private constructor(node: TestNode, folder: string, credentials: Credentials) {
    this.node = node;
    this.folder = folder;
    this.#credentials = credentials;
  }

  static async open(hosts: readonly string[] = ['a']): Promise<MeteringScene> {
    const folder = await mkdtemp(join(tmpdir(), 'ecluse-metering-'));
    const node = await startNode({ hosts });
    await addTenant(node, TENANT, '--containers', '2000', '--memory', '40g');
    const scene = new MeteringScene(node, folder, await credentialsOf(node, TENANT));
    const body = await busyboxTar(folder);
    const [repo = '', tag = ''] = IMAGE.split(':');
    await scene.call('POST', `/images/create?fromSrc=-&repo=${repo}&tag=${tag}`, body);
    return scene;
  }

  async call(method: string, path: string, body?: unknown): Promise<string> {
    const answer = await callApi(this.node, this.#credentials, { method, path: `/v1.41${path}`, body });
    if (answer.status >= 400) throw new Error(`${method} ${path}: ${String(answer.status)} ${answer.text}`);
    return answer.text;
  }

  /** Returns the container's id. */
  async create({ script, memoryMib = 64 }: ContainerPlan): Promise<string> {
    const answer = await this.call('POST', '/containers/create', {
      Image: IMAGE,
      Cmd: ['/bin/sh', '-c', script],
      HostConfig: { Memory: (memoryMib + 96) * MIB, Tmpfs: { '/m': `size=${String(memoryMib)}m` } },
    });
    return z.object({ Id: z.string() }).parse(JSON.parse(answer)).Id;
  }

  async start(id: string): Promise<void> {
    await this.call('POST', `/containers/${id}/start`);
  }

  /** Returns when it has ended. */
  async wait(id: string): Promise<void> {
    await this.call('POST', `/containers/${id}/wait`);
  }

  async remove(id: string): Promise<void> {
    await this.call('DELETE', `/containers/${id}?force=1`);
  }

  /** What the kernel has counted for a cgroup, or undefined where it is not there. */
  async cpuNs(cgroup: string): Promise<number | undefined> {
    try {
      return Number(await readFile(`/sys/fs/cgroup/cpuacct${cgroup}/cpuacct.usage`, 'utf8'));
    } catch {
      return undefined;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.node[Symbol.asyncDispose]();
    await rm(this.folder, { recursive: true, force: true });
  }
}
