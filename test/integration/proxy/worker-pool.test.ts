/** The life of workers, and changes of config over all of them. */
import { createServer } from 'node:net';
import { describe, expect, test } from 'vitest';
import { systemClock } from '#clock';
import { codeOf } from '#errors';
import { createLog } from '#log';
import { WorkerPool } from '#proxy/worker-pool.ts';
import { CertificateIndex } from '#tls/certificate-index.ts';
import { makeCertificate } from '../../support/certificates.ts';
import { configOf, eventually, startEdge } from '../../support/edge.ts';
import { ask } from '../../support/http-client.ts';
import { startUpstream } from '../../support/upstream.ts';

describe('WorkerPool', () => {
  test('open() says which port is in use and which key chooses another', async () => {
    const taken = createServer();
    const { promise, resolve } = Promise.withResolvers<undefined>();
    taken.listen({ host: '127.0.0.1', port: 0 }, () => {
      resolve(undefined);
    });
    await promise;
    const address = taken.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    const opened = WorkerPool.open(
      { log: createLog('silent'), clock: systemClock },
      {
        workers: 1,
        workerFile: 'never-started.ts',
        listen: { http: undefined, https: { host: '127.0.0.1', port } },
        accessLogFile: '/dev/null',
        initial: { config: configOf([]), certificates: CertificateIndex.of([]) },
        onTraffic: () => undefined,
        onWake: () => undefined,
      },
    );
    await expect(opened).rejects.toMatchObject({
      code: 'ECLUSE_PORT_IN_USE',
      mend: 'stop it, or set another address under listen.https in ecluse.yaml',
    });
    await expect(opened).rejects.toThrow(`127.0.0.1:${String(port)}`);
    taken.close();
  });

  test('open() refuses an initial config that cannot be served', async () => {
    const config = configOf([]);
    const opened = startEdge({ config: { ...config, routes: [{ host: 'BAD', path: '/', serviceId: 'app' }] } });
    await expect(opened).rejects.toMatchObject({ code: 'ECLUSE_CONFIG_REFUSED' });
  });

  test('apply() changes all workers or none', async () => {
    await using upstream = await startUpstream((_request, response) => response.end('ok'));
    await using edge = await startEdge({ config: configOf([upstream.endpoint()]), workers: 2 });
    const broken = { ...configOf([upstream.endpoint()], 2), services: [] };
    const error: unknown = await edge.apply(broken, []).catch((thrown: unknown) => thrown);
    expect(codeOf(error)).toBe('ECLUSE_CONFIG_REFUSED');
    const badCertificate = {
      name: 'shop',
      hosts: ['app.test'],
      notAfterMs: 0,
      leafPem: 'no',
      chain: { pem: '' },
      keyPem: 'no',
    };
    await expect(edge.apply(configOf([], 2), [badCertificate])).rejects.toThrow('certificate "shop" cannot be used');
    expect(edge.pool.status().map((worker) => worker.version)).toEqual([1, 1]);
    expect((await ask({ port: edge.httpPort })).status).toBe(200);
    await edge.apply({ ...configOf([upstream.endpoint()], 3), routes: [] }, []);
    expect(edge.pool.status().map((worker) => worker.version)).toEqual([3, 3]);
    expect((await ask({ port: edge.httpPort })).status).toBe(404);
  });

  test('replaces a worker that was killed, at the committed version', async () => {
    await using upstream = await startUpstream((_request, response) => response.end('ok'));
    await using edge = await startEdge({ config: configOf([]), workers: 2 });
    await edge.apply(configOf([upstream.endpoint()], 5), []);
    const [killed] = edge.pool.status();
    process.kill(killed?.pid ?? 0, 'SIGKILL');
    const status = await eventually(() => {
      const now = edge.pool.status();
      return now.length === 2 && now.every((worker) => worker.state === 'listening' && worker.pid !== killed?.pid)
        ? now
        : undefined;
    });
    expect(status.map((worker) => worker.version)).toEqual([5, 5]);
    for (let index = 0; index < 20; index += 1) expect((await ask({ port: edge.httpPort })).status).toBe(200);
  });

  test('dispose lets requests under way end', async () => {
    const { promise: arrived, resolve: arrive } = Promise.withResolvers<undefined>();
    const { promise: go, resolve: letGo } = Promise.withResolvers<undefined>();
    await using upstream = await startUpstream((_request, response) => {
      arrive(undefined);
      void go.then(() => response.end('late'));
    });
    const edge = await startEdge({ config: configOf([upstream.endpoint()]) });
    const answer = ask({ port: edge.httpPort });
    await arrived;
    const disposed = edge[Symbol.asyncDispose]();
    await eventually(async () => {
      try {
        await ask({ port: edge.httpPort, host: 'nobody.test' });
        return undefined;
      } catch {
        return true;
      }
    });
    letGo(undefined);
    expect((await answer).body.toString()).toBe('late');
    await disposed;
    expect(edge.pool.status()).toEqual([]);
  });

  test('answers HTTPS by server name: exact, wildcard, default', async () => {
    const [exact, wildcard, other] = await Promise.all(['app.test', '*.wild.test', '*'].map(makeCertificate));
    await using upstream = await startUpstream((request, response) => response.end(String(request.headers['x-forwarded-proto'])));
    const config = configOf([upstream.endpoint()]);
    const routes = [...config.routes, { host: '*', path: '/', serviceId: 'app' }];
    const certificates = [exact, wildcard].filter((certificate) => certificate !== undefined);
    await using edge = await startEdge({ config: { ...config, routes }, certificates });
    const names = async (serverName: string): Promise<string> => {
      const answer = await ask({ port: edge.httpsPort, serverName, host: serverName });
      return answer.body.toString();
    };
    expect(await names('app.test')).toBe('https');
    expect(await names('a.wild.test')).toBe('https');
    await expect(names('unknown.test')).rejects.toThrow('unrecognized name');
    await edge.apply({ ...config, routes, version: 2 }, [...certificates, ...(other === undefined ? [] : [other])]);
    expect(await names('unknown.test')).toBe('https');
    const lines = await edge.accessLog(3);
    expect(lines.map(({ sni, tlsVersion }) => [sni, tlsVersion])).toContainEqual(['a.wild.test', 'TLSv1.3']);
  });

  test('accounts for traffic by tenant and endpoint', async () => {
    await using upstream = await startUpstream((_request, response) => response.end('x'.repeat(5000)));
    await using edge = await startEdge({ config: configOf([upstream.endpoint({ id: 'c1' })]) });
    await ask({ port: edge.httpPort });
    await ask({ port: edge.httpPort, host: 'nobody.test' });
    const [mine, nobody] = await eventually(() => {
      const found = ['acme', ''].map((tenant) => edge.traffic.find((delta) => delta.tenant === tenant));
      return found.every((delta) => delta !== undefined) ? found : undefined;
    });
    expect(mine).toMatchObject({ endpointId: 'c1', requests: 1, heldMs: 0 });
    expect(mine?.downstreamOutBytes).toBeGreaterThan(5000);
    expect(mine?.upstreamInBytes).toBeGreaterThan(5000);
    expect(nobody).toMatchObject({ endpointId: undefined, requests: 1, upstreamInBytes: 0 });
    const text = await edge.pool.metrics();
    expect(text).toMatch(/ecluse_requests_total\{tenant="acme",code_class="2xx"\} 1/);
    expect(text).toMatch(/ecluse_config_version 1/);
  });
});
