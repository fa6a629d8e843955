/** What is sent again when an endpoint fails, and what is not; and what a worker does when its primary is gone. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { configOf, eventually, startEdge } from '../../support/edge.ts';
import { ask } from '../../support/http-client.ts';
import { startRawUpstream, startUpstream } from '../../support/upstream.ts';

/** Answers the first request of each connection and dies on the second without a word. */
function dyingOnReuse(requests: string[]): Parameters<typeof startRawUpstream>[0] {
  return (socket) => {
    let count = 0;
    socket.on('data', (chunk: Buffer) => {
      requests.push(chunk.toString('latin1').split(' ')[0] ?? '');
      count += 1;
      if (count === 1) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
      else socket.destroy();
    });
  };
}

test('a GET on an idle connection that died is sent again, a POST is not', async () => {
  const requests: string[] = [];
  await using upstream = await startRawUpstream(dyingOnReuse(requests));
  await using edge = await startEdge({ config: configOf([upstream.endpoint()]) });
  expect((await ask({ port: edge.httpPort })).status).toBe(200);
  expect((await ask({ port: edge.httpPort })).status).toBe(200);
  expect((await ask({ port: edge.httpPort, method: 'POST', body: 'x' })).status).toBe(502);
  expect(requests).toEqual(['GET', 'GET', 'GET', 'POST']);
});

test('a POST that could not be connected goes to another endpoint, its body whole', async () => {
  await using gone = await startUpstream((_request, response) => response.end());
  const dead = gone.endpoint({ id: 'dead' });
  await gone[Symbol.asyncDispose]();
  await using alive = await startUpstream((request, response) => {
    request.pipe(response);
  });
  await using edge = await startEdge({ config: configOf([dead, alive.endpoint()]) });
  for (let index = 0; index < 4; index += 1) {
    const answer = await ask({ port: edge.httpPort, method: 'POST', body: 'body' });
    expect([answer.status, answer.body.toString()]).toEqual([200, 'body']);
  }
});

test('a service whose only endpoint refuses connections is answered 502, one without endpoints 503', async () => {
  await using gone = await startUpstream((_request, response) => response.end());
  const dead = gone.endpoint();
  await gone[Symbol.asyncDispose]();
  await using edge = await startEdge({ config: configOf([dead]) });
  expect((await ask({ port: edge.httpPort })).headers['proxy-status']).toBe('ecluse; error=connection_refused');
  await edge.apply(configOf([], 2), []);
  expect((await ask({ port: edge.httpPort })).status).toBe(503);
});

test('a worker whose primary was killed finishes what is under way and ends', async () => {
  const { promise: go, resolve: letGo } = Promise.withResolvers<undefined>();
  const { promise: arrived, resolve: arrive } = Promise.withResolvers<undefined>();
  await using upstream = await startUpstream((_request, response) => {
    arrive(undefined);
    void go.then(() => response.end('late'));
  });
  const program = join(import.meta.dirname, '../../support/primary.ts');
  const primary = spawn(process.execPath, [program, String(upstream.port)], { stdio: ['ignore', 'pipe', 'inherit'] });
  const { promise: ready, resolve: isReady } = Promise.withResolvers<string>();
  primary.stdout.once('data', (chunk: Buffer) => {
    isReady(chunk.toString());
  });
  const [port = 0, pid = 0] = (await ready).split(' ').map(Number);
  const answer = ask({ port });
  await arrived;
  primary.kill('SIGKILL');
  await eventually(async () => await refuses(port));
  letGo(undefined);
  expect((await answer).body.toString()).toBe('late');
  await eventually(() => (isAlive(pid) ? undefined : true));
});

/** True once nobody listens any more. Asks for an unknown host, which is answered without the endpoint. */
async function refuses(port: number): Promise<true | undefined> {
  try {
    await ask({ port, host: 'nobody.test' });
    return undefined;
  } catch {
    return true;
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}
