/** The OCI wrapper, run for real with a program in runsc's place that writes down how it was called. */
import { execFile } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile, symlink } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import * as z from 'zod';
import { WRAPPER_FILE } from '#isolation/runtime-settings.ts';
import { containing } from '../../support/matchers.ts';

const execute = promisify(execFile);
const ID = 'a'.repeat(64);
const mountsSchema = z.object({ mounts: z.array(z.object({ destination: z.string(), source: z.string() })) });

describe('ecluse-runsc', () => {
  let folder: string;
  let calls: string;

  const settings = async (more: string): Promise<void> => {
    await writeFile(
      join(folder, 'settings'),
      `RUNSC='${join(folder, 'fake-runsc')}'\nRUNSC_FLAGS='--flag=1'\nMASK_PROC_SYS_NET=0\nHAS_UPDATE=0\nCGROUP_PREFIX=/ecluse/test-a\n${more}`,
    );
  };
  const wrapper = async (...args: readonly string[]): Promise<string> => {
    await execute(WRAPPER_FILE, ['--ecluse-dir', folder, ...args]);
    return (await readFile(calls, 'utf8')).trim();
  };
  const bundle = async (config: unknown): Promise<string> => {
    const path = join(folder, 'bundle');
    await mkdir(path, { recursive: true });
    await writeFile(join(path, 'config.json'), JSON.stringify(config));
    return path;
  };

  beforeEach(async () => {
    folder = await mkdtemp('/tmp/wrapper-');
    calls = join(folder, 'calls');
    await writeFile(join(folder, 'fake-runsc'), `#!/bin/sh\necho "$@" >>'${calls}'\n[ ! -e '${folder}/broken' ] || exit 9\n`);
    await chmod(join(folder, 'fake-runsc'), 0o755);
    await settings('');
  });

  afterEach(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  test('create takes annotations out and keeps the cgroup where it may be', async () => {
    const path = await bundle({
      ociVersion: '1.0.2',
      annotations: { 'dev.gvisor.flag.debug': 'true' },
      linux: { cgroupsPath: `/ecluse/test-a/acme/v/${ID}` },
      process: { env: ['A="quoted" and $dollar `tick`'] },
    });
    const called = await wrapper('--root', '/r', '--log', join(folder, 'log'), 'create', '--bundle', path, ID);
    expect(called).toBe(`--flag=1 --root /r --log ${join(folder, 'log')} create --bundle ${path} ${ID}`);
    const config: unknown = JSON.parse(await readFile(join(path, 'config.json'), 'utf8'));
    expect(config).toEqual({
      ociVersion: '1.0.2',
      annotations: {},
      linux: { cgroupsPath: `/ecluse/test-a/acme/v/${ID}` },
      process: { env: ['A="quoted" and $dollar `tick`'] },
    });
    expect(await readFile(join(folder, 'cgroup', ID), 'utf8')).toBe('/ecluse/test-a/acme/v');
  });

  test.each([
    ['an empty directory', async (tmp: string) => await mkdir(tmp), [], ['rbind', 'rw']],
    ['one of a read-only root', async (tmp: string) => await mkdir(tmp), [], ['rbind', 'ro']],
    ['below other mounts', async (tmp: string) => await mkdir(tmp), [{ destination: '/tmp/d', source: '/x' }], ['rbind', 'rw']],
    ['absent', async () => await Promise.resolve(), [], undefined],
    ['a link that leads out', async (tmp: string) => await symlink('/etc', tmp), [], undefined],
    ['a file', async (tmp: string) => await writeFile(tmp, ''), [], undefined],
    ['mounted already', async (tmp: string) => await mkdir(tmp), [{ destination: '/tmp/', type: 'tmpfs' }], undefined],
  ])('/tmp that is %s is the root file system’s own, never gVisor’s or the host’s', async (_what, make, mounts, options) => {
    const root = join(folder, 'root');
    await mkdir(root);
    await make(join(root, 'tmp'));
    const readonly = options?.includes('ro') === true;
    const path = await bundle({ root: { path: root, readonly }, mounts, linux: { cgroupsPath: `/ecluse/test-a/x/${ID}` } });
    await wrapper('create', '--bundle', path, ID);
    const config: unknown = JSON.parse(await readFile(join(path, 'config.json'), 'utf8'));
    const source = readonly ? join(folder, 'read-only', '0') : join(root, 'tmp');
    const own = options === undefined ? [] : [{ destination: '/tmp', type: 'bind', source, options }];
    expect(config).toMatchObject({ mounts: [...own, ...mounts] });
  });

  test.each([
    ['a directory', async (tmp: string) => await mkdir(tmp), 3],
    ['absent', async () => await Promise.resolve(), 2],
  ])('read-only mounts are kept so by the kernel, each its own, where /tmp is %s', async (_what, make, count) => {
    const root = join(folder, 'root');
    await mkdir(root);
    await make(join(root, 'tmp'));
    for (const name of ['one', 'two']) await mkdir(join(folder, name));
    const mounts = ['one', 'two'].map((name) => ({
      destination: `/${name}`,
      type: 'bind',
      source: join(folder, name),
      options: ['ro'],
    }));
    const path = await bundle({ root: { path: root }, mounts, linux: { cgroupsPath: `/ecluse/test-a/x/${ID}` } });
    await wrapper('create', '--bundle', path, ID);
    const config = mountsSchema.parse(JSON.parse(await readFile(join(path, 'config.json'), 'utf8')));
    expect(config.mounts.length).toBe(count);
    for (const [index, { destination, source }] of config.mounts.entries()) {
      expect(source, destination).toBe(destination === '/tmp' ? join(root, 'tmp') : join(folder, 'read-only', String(index)));
    }
  });

  test('create moves a container of a foreign cgroup below ours', async () => {
    const path = await bundle({ linux: { cgroupsPath: `/docker/${ID}` } });
    await wrapper('create', '--bundle', path, ID);
    const config: unknown = JSON.parse(await readFile(join(path, 'config.json'), 'utf8'));
    expect(config).toMatchObject({ linux: { cgroupsPath: `/ecluse/test-a/_engine/${ID}` } });
  });

  test.each([
    ['/data/sockets/acme/docker.sock', '--flag=1 --host-uds=open'],
    ['/data/hosts/a/data/volumes/x/_data', '--flag=1'],
    ['/data/sockets', '--flag=1'],
    ['/x/data/sockets/acme/docker.sock', '--flag=1'],
  ])('only a container with a socket to its tenant’s endpoint may connect to one: %s', async (source, flags) => {
    await settings("ENDPOINT_SOCKETS='/data/sockets'\nENDPOINT_SOCKET_FLAG=--host-uds=open\n");
    const mounts = [
      { destination: '/proc', type: 'proc' },
      { destination: '/s', type: 'bind', source },
    ];
    const path = await bundle({ mounts, linux: { cgroupsPath: `/ecluse/test-a/x/${ID}` } });
    expect(await wrapper('create', '--bundle', path, ID)).toBe(`${flags} create --bundle ${path} ${ID}`);
  });

  test('create refuses a config that is no JSON, and calls nothing', async () => {
    const path = join(folder, 'bundle');
    await mkdir(path);
    await writeFile(join(path, 'config.json'), '{ broken');
    await expect(execute(WRAPPER_FILE, ['--ecluse-dir', folder, 'create', '--bundle', path, ID])).rejects.toMatchObject({
      code: 1,
    });
    expect(existsSync(calls)).toBe(false);
  });

  test('start gives the container resolvers that it can reach', async () => {
    const seen = join(folder, 'seen-resolv.conf');
    await writeFile(seen, 'nameserver 127.0.0.11\n');
    await writeFile(join(folder, 'resolv.conf'), 'nameserver 192.0.2.53\n');
    const path = await bundle({ mounts: [{ destination: '/etc/resolv.conf', source: seen }] });
    await wrapper('create', '--bundle', path, ID);
    expect(await readFile(seen, 'utf8')).toBe('nameserver 127.0.0.11\n');
    await wrapper('start', ID);
    expect(await readFile(seen, 'utf8')).toBe('nameserver 192.0.2.53\n');
  });

  test('start becomes restore while a snapshot is staged, once', async () => {
    const image = join(folder, 'image');
    await mkdir(image);
    await mkdir(join(folder, 'staged'));
    await writeFile(join(folder, 'staged', ID), image);
    expect(await wrapper('--root', '/r', 'start', ID)).toBe(`--flag=1 --root /r restore --detach --image-path ${image} ${ID}`);
    await rm(calls);
    expect(await wrapper('--root', '/r', 'start', ID)).toBe(`--flag=1 --root /r start ${ID}`);
  });

  test('delete leaves what is staged: an engine deletes what its last start left in the course of the next', async () => {
    const image = join(folder, 'image');
    await mkdir(image);
    await mkdir(join(folder, 'staged'));
    await writeFile(join(folder, 'staged', ID), image);
    await wrapper('--root', '/r', 'delete', '--force', ID);
    await rm(calls);
    expect(await wrapper('--root', '/r', 'start', ID)).toContain(`restore --detach --image-path ${image} ${ID}`);
  });

  test('a failed restore keeps its exit code and does not come again', async () => {
    const image = join(folder, 'image');
    await mkdir(image);
    await mkdir(join(folder, 'staged'));
    await writeFile(join(folder, 'staged', ID), image);
    await writeFile(join(folder, 'broken'), '');
    await expect(wrapper('start', ID)).rejects.toMatchObject({ code: 9 });
    expect(existsSync(join(folder, 'staged', ID))).toBe(false);
    expect(existsSync(join(folder, 'staged', `${ID}.failed`))).toBe(true);
  });

  test('create refuses a cgroup that climbs out of its place', async () => {
    const path = await bundle({ linux: { cgroupsPath: `/ecluse/test-a/../../${ID}` } });
    await expect(wrapper('create', '--bundle', path, ID)).rejects.toMatchObject({
      code: 1,
      stderr: containing('climbs out'),
    });
    expect(existsSync(calls)).toBe(false);
  });

  test('start refuses where the staged snapshot is gone, and says so in the engine’s log', async () => {
    await mkdir(join(folder, 'staged'));
    await writeFile(join(folder, 'staged', ID), join(folder, 'gone'));
    const log = join(folder, 'log.json');
    await expect(wrapper('--log', log, '--log-format', 'json', 'start', ID)).rejects.toMatchObject({ code: 1 });
    expect(existsSync(calls)).toBe(false);
    expect(JSON.parse(await readFile(log, 'utf8'))).toEqual({
      level: 'error',
      msg: `ecluse-runsc: the staged snapshot ${join(folder, 'gone')} is gone`,
    });
  });

  test('delete forgets the container and keeps the exit code', async () => {
    const path = await bundle({ linux: { cgroupsPath: `/ecluse/test-a/acme/v/${ID}` } });
    await wrapper('create', '--bundle', path, ID);
    expect(await wrapper('--root', '/r', 'delete', '--force', ID)).toContain(`--flag=1 --root /r delete --force ${ID}`);
    expect(['cgroup', 'resolv'].filter((name) => existsSync(join(folder, name, ID)))).toEqual([]);
    await writeFile(join(folder, 'broken'), '');
    await expect(wrapper('--root', '/r', 'delete', ID)).rejects.toMatchObject({ code: 9 });
  });

  test('update is runsc’s where it has one, and refuses an unknown container and limits that no file takes', async () => {
    const resources = join(folder, 'resources.json');
    await writeFile(resources, '{"pids":{"limit":7}}');
    await expect(wrapper('update', '--resources', resources, ID)).rejects.toMatchObject({
      code: 1,
      stderr: containing('is not known'),
    });
    await mkdir(join(folder, 'cgroup'));
    await writeFile(join(folder, 'cgroup', ID), '/ecluse/test-a/nowhere');
    await expect(wrapper('update', '--resources', resources, ID)).rejects.toMatchObject({
      code: 1,
      stderr: containing('.pids.limit = 7 was refused'),
    });
    expect(existsSync(calls)).toBe(false);
    await settings('HAS_UPDATE=1\n');
    expect(await wrapper('update', '--resources', resources, ID)).toBe(`--flag=1 update --resources ${resources} ${ID}`);
  });

  test('other commands pass as they are', async () => {
    expect(await wrapper('--root', '/r', 'kill', ID, '9')).toBe(`--flag=1 --root /r kill ${ID} 9`);
  });

  test('refuses to run without its directory, without settings, and with an id that is none', async () => {
    await expect(execute(WRAPPER_FILE, ['create', ID])).rejects.toMatchObject({ code: 1 });
    await expect(execute(WRAPPER_FILE, ['--ecluse-dir', folder, 'start', '../../etc/passwd'])).rejects.toMatchObject({ code: 1 });
    await rm(join(folder, 'settings'));
    await expect(execute(WRAPPER_FILE, ['--ecluse-dir', folder, 'start', ID])).rejects.toMatchObject({ code: 1 });
    expect(existsSync(calls)).toBe(false);
  });
});
