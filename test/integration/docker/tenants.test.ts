/** Two tenants on one node: neither can see, name, touch or reach what is the other's, nor learn that it exists. */
import { X509Certificate } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import * as z from 'zod';
import { runCommand } from '#command';
import { ask } from '../../support/http-client.ts';
import { imageArchive } from '../../support/image-archive.ts';
import { busyboxTar, callApi, connectTls, credentialsOf } from '../../support/docker-api.ts';
import type { ApiAnswer, ApiCall, Credentials } from '../../support/docker-api.ts';
import { addTenant, run, startNode } from '../../support/node.ts';
import type { TestNode } from '../../support/node.ts';
import { containing } from '../../support/matchers.ts';

let node: TestNode;
let acme: Credentials;
let rootFs: Buffer;
/** Of globex: its container `web`, the container's image, an exec session in it. */
let theirs: { readonly id: string; readonly image: string; readonly exec: string; readonly address: string };

const RANDOM_ID = '5f3c9a'.repeat(11).slice(0, 64);

async function docker(tenant: string, ...args: readonly string[]): Promise<string> {
  const answer = await node.docker(tenant, args);
  expect(answer, args.join(' ')).toMatchObject({ exitCode: 0 });
  return answer.stdout.trim();
}

/** A server on port 80 that says `word`. */
function serving(word: string): readonly string[] {
  return ['sh', '-c', `mkdir -p /srv && echo ${word} >/srv/index.html && exec httpd -f -p 80 -h /srv`];
}

async function addressOf(tenant: string, name: string): Promise<string> {
  return await docker(tenant, 'inspect', '--format', '{{.NetworkSettings.IPAddress}}', name);
}

beforeAll(async () => {
  node = await startNode({ hosts: ['a'] });
  await addTenant(node, 'acme');
  await addTenant(node, 'globex');
  acme = await credentialsOf(node, 'acme');
  rootFs = await busyboxTar(node.dataDir);
  for (const tenant of ['acme', 'globex']) {
    const config = { Env: [`WHO=${tenant}`], ExposedPorts: { '80/tcp': {} } };
    const loaded = await node.docker(tenant, ['load'], await imageArchive({ repoTags: ['app:1'], rootFs, config }));
    expect(loaded).toMatchObject({ exitCode: 0, stdout: 'Loaded image: app:1\n' });
    await docker(tenant, 'run', '-d', '--name', 'web', 'app:1', ...serving(tenant));
  }
  await docker('globex', 'tag', 'app:1', 'secret/thing:7');
  const id = await docker('globex', 'inspect', '--format', '{{.Id}}', 'web');
  const image = await docker('globex', 'inspect', '--format', '{{.Image}}', 'web');
  const body = { Cmd: ['sleep', '1'], AttachStdout: true };
  const made = await callApi(node, await credentialsOf(node, 'globex'), {
    method: 'POST',
    path: `/v1.41/containers/${id}/exec`,
    body,
  });
  const exec = z.object({ Id: z.string() }).parse(JSON.parse(made.text)).Id;
  theirs = { id, image, exec, address: await addressOf('globex', 'web') };
});

afterAll(async () => {
  await node[Symbol.asyncDispose]();
});

describe('what is another tenant’s', () => {
  /** Every call that names a container, by the name that is put in. */
  const containerCalls = (name: string): readonly ApiCall[] => [
    { path: `/containers/${name}/json` },
    { path: `/containers/${name}/logs?stdout=1` },
    { path: `/containers/json?all=1&filters=${encodeURIComponent(JSON.stringify({ id: [name] }))}` },
    { path: `/containers/json?all=1&filters=${encodeURIComponent(JSON.stringify({ before: [name] }))}` },
    ...['start', 'stop', 'restart', 'kill', 'pause', 'unpause', 'wait', 'attach', 'rename?name=mine', 'resize?h=1&w=1'].map(
      (verb): ApiCall => ({ method: 'POST', path: `/containers/${name}/${verb}` }),
    ),
    { method: 'POST', path: `/containers/${name}/attach?stream=1&stdout=1`, headers: { connection: 'Upgrade', upgrade: 'tcp' } },
    { method: 'POST', path: `/containers/${name}/exec`, body: { Cmd: ['id'] } },
    { method: 'DELETE', path: `/containers/${name}?force=1` },
    { path: `/containers/${name}/archive?path=/` },
    { path: `/containers/${name}/top` },
    { method: 'POST', path: '/containers/create', body: { Image: 'app:1', HostConfig: { NetworkMode: `container:${name}` } } },
  ];
  const imageCalls = (name: string): readonly ApiCall[] => [
    { path: `/images/${name}/json` },
    { path: `/images/${name}/history` },
    { path: `/images/${name}/get` },
    { method: 'POST', path: `/images/${name}/tag?repo=mine` },
    { method: 'POST', path: `/images/${name}/push` },
    { method: 'DELETE', path: `/images/${name}?force=1` },
    { method: 'POST', path: '/containers/create', body: { Image: name } },
  ];
  const execCalls = (id: string): readonly ApiCall[] => [
    { path: `/exec/${id}/json` },
    { method: 'POST', path: `/exec/${id}/start`, body: {} },
    { method: 'POST', path: `/exec/${id}/start`, body: {}, headers: { connection: 'Upgrade', upgrade: 'tcp' } },
    { method: 'POST', path: `/exec/${id}/resize?h=1&w=1` },
  ];

  /** The answers, with the name that was asked for taken out. */
  const answersTo = async (calls: readonly ApiCall[], name: string): Promise<readonly unknown[]> => {
    const answers: unknown[] = [];
    for (const call of calls) {
      const { status, text }: ApiAnswer = await callApi(node, acme, call);
      const told = call.body === undefined ? call.path : `${call.path} ${JSON.stringify(call.body)}`;
      const without = (said: string): string =>
        [encodeURIComponent(name), name, decodeURIComponent(name), name.replace(/:[^:/]*$/, '')].reduce(
          (rest, spelling) => rest.replaceAll(spelling, 'X'),
          said,
        );
      answers.push([without(told), status, without(text)]);
    }
    return answers;
  };

  test('answers as what does not exist, by every way to name a container', async () => {
    const pairs: readonly (readonly [string, string])[] = [
      [theirs.id, RANDOM_ID],
      [theirs.id.slice(0, 12), RANDOM_ID.slice(0, 12)],
      [theirs.id.slice(0, 4), RANDOM_ID.slice(0, 4)],
    ];
    for (const [real, random] of pairs) {
      expect(await answersTo(containerCalls(real), real)).toEqual(await answersTo(containerCalls(random), random));
    }
    expect((await callApi(node, acme, { path: `/containers/${theirs.id}/json` })).status).toBe(404);
  });

  test('answers as what does not exist, by name', async () => {
    await docker('globex', 'run', '-d', '--name', 'vault', 'app:1', 'sleep', '300');
    expect(await answersTo(containerCalls('vault'), 'vault')).toEqual(await answersTo(containerCalls('vbult'), 'vbult'));
    expect(await answersTo(containerCalls('%2Fvault'), '%2Fvault')).toEqual(
      await answersTo(containerCalls('%2Fvbult'), '%2Fvbult'),
    );
    await docker('globex', 'rm', '-f', 'vault');
  });

  test('answers as what does not exist, for images and exec sessions', async () => {
    const hex = theirs.image.slice('sha256:'.length);
    const pairs: readonly (readonly [string, string])[] = [
      [theirs.image, `sha256:${RANDOM_ID}`],
      [hex.slice(0, 12), RANDOM_ID.slice(0, 12)],
      [hex.slice(0, 4), RANDOM_ID.slice(0, 4)],
      ['secret/thing:7', 'secret/thinx:7'],
    ];
    for (const [real, random] of pairs)
      expect(await answersTo(imageCalls(real), real)).toEqual(await answersTo(imageCalls(random), random));
    expect(await answersTo(execCalls(theirs.exec), theirs.exec)).toEqual(await answersTo(execCalls(RANDOM_ID), RANDOM_ID));
  });

  test('is not in any list or count, and is untouched by all of this', async () => {
    expect(await docker('acme', 'ps', '-a', '--format', '{{.Names}}')).toBe('web');
    expect(await docker('acme', 'images', '--format', '{{.Repository}}:{{.Tag}}')).toBe('app:1');
    expect(await docker('acme', 'info', '--format', '{{.Containers}} {{.Images}}')).toBe('1 1');
    for (const path of ['/containers/json?all=1', '/images/json', '/info', '/version']) {
      const { text } = await callApi(node, acme, { path });
      for (const word of ['globex', theirs.id.slice(0, 12), theirs.image, 'secret']) expect(text).not.toContain(word);
    }
    expect(await docker('globex', 'ps', '-a', '--format', '{{.Names}} {{.State}}')).toBe('web running');
    expect(await docker('globex', 'images', '-q', 'secret/thing:7')).not.toBe('');
  });
});

describe('names', () => {
  test('are each tenant’s own, for containers and for images', async () => {
    for (const tenant of ['acme', 'globex']) expect(await docker(tenant, 'exec', 'web', 'sh', '-c', 'echo $WHO')).toBe(tenant);
    const config = { Env: ['WHO=new'] };
    await node.docker('acme', ['load'], await imageArchive({ repoTags: ['app:1', 'secret/thing:7'], rootFs, config }));
    expect(await docker('acme', 'run', '--rm', 'secret/thing:7', 'sh', '-c', 'echo $WHO')).toBe('new');
    expect(await docker('globex', 'run', '--rm', 'app:1', 'sh', '-c', 'echo $WHO')).toBe('globex');
    expect(await docker('globex', 'run', '--rm', 'secret/thing:7', 'sh', '-c', 'echo $WHO')).toBe('globex');
    await docker('acme', 'rmi', 'secret/thing:7');
    expect(await docker('globex', 'image', 'inspect', '--format', '{{.Id}}', 'secret/thing:7')).toBe(theirs.image);
  });

  test('content that both have stays with the other when one drops it', async () => {
    const archive = await imageArchive({ repoTags: ['same:1'], rootFs, config: { Env: ['WHO=both'] } });
    for (const tenant of ['acme', 'globex']) await node.docker(tenant, ['load'], archive);
    expect(await docker('acme', 'rmi', 'same:1')).toContain('Deleted: sha256:');
    expect(await docker('globex', 'run', '--rm', 'same:1', 'sh', '-c', 'echo $WHO')).toBe('both');
    await docker('globex', 'rmi', 'same:1');
  });

  test('of hosts are had by one tenant only, also by rename', async () => {
    await addTenant(node, 'b-c', '--domain', 'shared.test');
    await addTenant(node, 'c', '--domain', 'shared.test');
    for (const tenant of ['b-c', 'c']) await node.docker(tenant, ['import', '-c', 'EXPOSE 80', '-', 'bb'], rootFs);
    await docker('b-c', 'create', '--name', 'aa', 'bb', 'true'); // aa-b-c.localhost
    const taken = 'the host name aa-b-c.localhost is in use by another tenant';
    expect(await node.docker('c', ['create', '--name', 'aa-b', 'bb', 'true'])).toMatchObject({
      exitCode: 1,
      stderr: containing(taken),
    });
    await docker('c', 'create', '--name', 'other', 'bb', 'true');
    expect(await node.docker('c', ['rename', 'other', 'aa-b'])).toMatchObject({
      exitCode: 1,
      stderr: containing(taken),
    });
    await docker('b-c', 'create', '-l', 'ecluse.http.host=www.shared.test', 'bb', 'true');
    expect(await node.docker('c', ['create', '-l', 'ecluse.http.host=WWW.shared.test', 'bb', 'true'])).toMatchObject({
      exitCode: 1,
      stderr: containing('www.shared.test is in use by another tenant'),
    });
  });
});

describe('packets', () => {
  /** What a server says to a container of `tenant`, or nothing. (A static busybox's wget needs shared libraries for its port.) */
  const fetched = async (tenant: string, host: string, port = '80'): Promise<string> => {
    const script = `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 ${host} ${port}`;
    const answer = await node.docker(tenant, ['exec', 'web', 'sh', '-c', script]);
    return answer.stdout.split('\r\n\r\n').at(-1)?.trim() ?? '';
  };

  test('go between a tenant’s own containers and from the edge to all, not between tenants', async () => {
    await docker('acme', 'run', '-d', '--name', 'peer', 'app:1', ...serving('peer'));
    expect(await fetched('acme', await addressOf('acme', 'peer'))).toBe('peer');
    expect(await fetched('acme', theirs.address)).toBe('');
    expect(await fetched('globex', await addressOf('acme', 'web'))).toBe('');
    for (const tenant of ['acme', 'globex']) {
      const answer = await ask({
        port: node.ports.https,
        host: `web-${tenant}.localhost`,
        serverName: `web-${tenant}.localhost`,
      });
      expect(`${String(answer.status)} ${answer.body.toString()}`).toBe(`200 ${tenant}\n`);
    }
  });

  test('do not reach the host, the other ends of bridges, or link-local addresses', async () => {
    const gateway = await docker('acme', 'inspect', '--format', '{{.NetworkSettings.Networks.bridge.Gateway}}', 'web');
    const theirGateway = await docker('globex', 'inspect', '--format', '{{.NetworkSettings.Networks.bridge.Gateway}}', 'web');
    const own = (await runCommand('ip', ['-4', '-o', 'address', 'show', 'scope', 'global'])).match(/(?<=inet )[\d.]+/g) ?? [];
    const hosts = [gateway, theirGateway, '169.254.169.254', ...own.filter((address) => address !== gateway).slice(0, 3)];
    // A port on which this machine listens on every address, so that silence is the filter's.
    const server = createServer((socket) => socket.end('HTTP/1.0 200 OK\r\n\r\nreached')).listen(0, '0.0.0.0');
    await new Promise((resolve) => server.once('listening', resolve));
    const address = server.address();
    const port = typeof address === 'object' && address !== null ? String(address.port) : '';
    const tries = hosts.map(async (host) => [host, await fetched('acme', host, port)]);
    const answers = await Promise.all(tries);
    server.close();
    expect(answers).toEqual(hosts.map((host) => [host, '']));
  });
});

describe('credentials', () => {
  const refusal = async (credentials: Credentials): Promise<string> => {
    try {
      const answer = await callApi(node, credentials, { path: '/_ping' });
      return `${String(answer.status)} ${answer.text}`;
    } catch (error) {
      return error instanceof Error && 'code' in error ? String(error.code) : 'failed';
    }
  };

  /** A client certificate signed by `issuer`, made by openssl. */
  const sign = async (
    name: string,
    issuer: { readonly cert: string; readonly key: string } | undefined,
  ): Promise<Credentials> => {
    const [key, request, cert, extensions] = ['key', 'csr', 'pem', 'ext'].map((ending) =>
      join(node.dataDir, `${name}.${ending}`),
    );
    const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-subj', '/CN=acme', '-keyout', key ?? ''];
    await writeFile(extensions ?? '', 'extendedKeyUsage=clientAuth\n');
    if (issuer === undefined) await runCommand('openssl', ['req', '-x509', '-days', '2', ...ec, '-out', cert ?? '']);
    else {
      await runCommand('openssl', ['req', ...ec, '-out', request ?? '']);
      const by = ['-CA', issuer.cert, '-CAkey', issuer.key, '-CAcreateserial', '-days', '2', '-extfile', extensions ?? ''];
      await runCommand('openssl', ['x509', '-req', '-in', request ?? '', ...by, '-out', cert ?? '']);
    }
    return { ca: acme.ca, cert: await readFile(cert ?? '', 'utf8'), key: await readFile(key ?? '', 'utf8') };
  };

  test('of nobody, of another authority, or unknown to the node do not speak for a tenant', async () => {
    expect(await refusal({ ca: acme.ca })).toMatch(/^(?:ERR_SSL|ECONNRESET|EPIPE)/);
    expect(await refusal(await sign('foreign', undefined))).toMatch(/^(?:ERR_SSL|ECONNRESET|EPIPE)/);
    const caKey = join(node.dataDir, 'tls', 'ca.key');
    const unknown = await sign('unknown', { cert: node.caFile, key: caKey });
    expect(new X509Certificate(unknown.cert ?? '').checkIssued(new X509Certificate(await readFile(node.caFile)))).toBe(true);
    expect(await refusal(unknown)).toMatch(/^403 {"message":"ecluse: this client certificate speaks for no active tenant/);
    const edge = { cert: await readFile(node.caFile, 'utf8'), key: await readFile(caKey, 'utf8') };
    expect(await refusal({ ca: acme.ca, ...edge })).toMatch(/^(?:403|ERR_SSL|ECONNRESET|EPIPE)/);
  });

  test('are asked for in TLS 1.2 as in 1.3; older TLS, weak ciphers and plain HTTP are refused', async () => {
    const folder = join(node.dataDir, 'tenants', 'acme');
    const certificate = ['-cert', join(folder, 'cert.pem'), '-key', join(folder, 'key.pem')];
    const speak = async (...flags: readonly string[]): Promise<string> => {
      const address = `127.0.0.1:${String(node.ports.docker)}`;
      const args = ['s_client', '-connect', address, '-CAfile', node.caFile, '-verify_return_error', '-quiet', ...flags];
      const request = 'GET /_ping HTTP/1.1\r\nhost: docker\r\nconnection: close\r\n\r\n';
      return (await run('openssl', args, { input: request, timeoutMs: 10_000 })).stdout.split('\r\n')[0] ?? '';
    };
    expect(await speak('-tls1_2', ...certificate)).toBe('HTTP/1.1 200 OK');
    expect(await speak('-tls1_3', ...certificate)).toBe('HTTP/1.1 200 OK');
    for (const version of ['-tls1_2', '-tls1_3']) expect(await speak(version), version).toBe('');
    for (const flags of [
      ['-tls1_1', '-cipher', 'ALL:@SECLEVEL=0'],
      ['-tls1', '-cipher', 'ALL:@SECLEVEL=0'],
      ['-tls1_2', '-cipher', 'AES128-GCM-SHA256'], // No forward secrecy.
      ['-tls1_2', '-cipher', 'ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA'], // Not authenticated as a whole.
    ]) {
      expect(await speak(...flags, ...certificate), flags.join(' ')).toBe('');
    }
    await expect(ask({ port: node.ports.docker, path: '/_ping' })).rejects.toThrow(/./);
  });

  test('of a suspended tenant stop at once, on open connections too', async () => {
    await addTenant(node, 'initech');
    const credentials = await credentialsOf(node, 'initech');
    const socket = await connectTls(node, credentials);
    let text = '';
    socket.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    const ping = async (): Promise<string> => {
      text = '';
      socket.write('GET /_ping HTTP/1.1\r\nhost: docker\r\n\r\n');
      for (let tries = 0; tries < 100 && !text.includes('\r\n\r\n'); tries += 1) await delay(20);
      return text.slice(0, 'HTTP/1.1 200'.length);
    };
    expect(await ping()).toBe('HTTP/1.1 200');
    expect(await node.ecluse('tenant', 'set', 'initech', '--state', 'suspended')).toMatchObject({ exitCode: 0 });
    expect(await ping()).toBe('HTTP/1.1 403');
    expect(await node.docker('initech', ['ps'])).toMatchObject({
      exitCode: 1,
      stderr: containing('no active tenant'),
    });
    expect(await node.ecluse('tenant', 'set', 'initech', '--state', 'active')).toMatchObject({ exitCode: 0 });
    expect(await ping()).toBe('HTTP/1.1 200');
    socket.destroy();
  });
});

test.each(['1.24', '1.25', '1.41', '1.44'])(
  'once docker run --rm is back, by API %s, nothing of it is in the way of the tenant’s removal',
  async (version) => {
    await addTenant(node, 'brief');
    expect(await node.docker('brief', ['import', '-', 'bb'], rootFs)).toMatchObject({ exitCode: 0 });
    const env = { ...node.dockerEnv('brief'), DOCKER_API_VERSION: version };
    const ran = await run('docker', ['run', '--rm', '-v', '/data', 'bb', 'sh', '-c', 'touch /data/x; echo done'], { env });
    const removed = await node.ecluse('tenant', 'rm', 'brief');
    expect(ran).toMatchObject({ exitCode: 0, stdout: 'done\n' });
    expect(removed).toEqual({ exitCode: 0, stdout: 'brief removed\n', stderr: '' });
  },
);

describe('quotas', () => {
  test('of containers, memory and images are refused beyond', async () => {
    await addTenant(node, 'small', '--containers', '2', '--memory', '256MiB', '--images', '2');
    const archive = await imageArchive({ repoTags: ['one:1'], rootFs });
    expect(await node.docker('small', ['load'], archive)).toMatchObject({ exitCode: 0 });
    expect(await node.docker('small', ['create', 'one:1', 'true'])).toMatchObject({
      exitCode: 1,
      stderr: containing('would add up to 536870912 bytes, its quota is 268435456; set a smaller one with --memory'),
    });
    await docker('small', 'create', '-m', '128m', 'one:1', 'true');
    await docker('small', 'create', '-m', '64m', 'one:1', 'true');
    expect(await node.docker('small', ['create', '-m', '64m', 'one:1', 'true'])).toMatchObject({
      exitCode: 1,
      stderr: containing('tenant small has 2 containers, its quota is 2'),
    });
    expect(await node.docker('small', ['import', '-', 'two'], rootFs)).toMatchObject({ exitCode: 0 });
    expect(await node.docker('small', ['import', '-', 'three'], rootFs)).toMatchObject({
      exitCode: 1,
      stderr: containing('tenant small holds 2 images, its quota is 2'),
    });
    expect(await node.docker('small', ['load'], archive)).toMatchObject({
      exitCode: 1,
      stderr: containing('its quota is 2'),
    });
  });
});
