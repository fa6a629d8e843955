import { once } from 'node:events';
import { createServer } from 'node:http';
import type { Server } from 'node:http';
import { buffer } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fetchFile } from '#caas/build/remote-file.ts';

let server: Server;
let origin: string;
const asked: string[] = [];

beforeAll(async () => {
  server = createServer((incoming, response) => {
    const path = incoming.url ?? '';
    asked.push(path);
    if (path.startsWith('/to?')) response.writeHead(302, { location: decodeURIComponent(path.slice('/to?'.length)) }).end();
    else if (path === '/gone') response.writeHead(404).end('no');
    else if (path === '/huge') response.writeHead(200, { 'content-length': String(9 * 1024 ** 3) }).flushHeaders();
    else if (path === '/again') response.writeHead(307, { location: '/again' }).end();
    else if (path === '/chunked') response.writeHead(200).end('untold');
    else {
      response.writeHead(200, { 'content-length': '4', 'last-modified': 'Thu, 01 Jan 2015 00:00:00 GMT' });
      response.end('file');
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (typeof address === 'object' && address !== null) origin = `http://127.0.0.1:${String(address.port)}`;
});

afterAll(() => {
  server.close();
  server.closeAllConnections();
});

const { signal } = new AbortController();
/** As if this machine's loopback interface were public, and all else too. */
const open = { signal, mayReach: () => true };

describe('a file that an ADD fetches', () => {
  it('comes with its name, size and time, behind redirects', async () => {
    const file = await fetchFile(`${origin}/to?${encodeURIComponent('/to?/x')}`, open);
    expect({ ...file, content: (await buffer(file.content)).toString() }).toEqual({
      name: 'to',
      bytes: 4,
      modified: new Date('2015-01-01'),
      content: 'file',
    });
    expect((await fetchFile(`${origin}/a/b%2B1.tar`, open)).name).toBe('b+1.tar');
    expect((await fetchFile(`${origin}/a/`, open)).name).toBeUndefined();
    expect(await fetchFile(`${origin}/chunked`, open)).toMatchObject({ name: 'chunked', bytes: 6 });
  });

  it.each([
    ['http://127.0.0.1:PORT/x', /127\.0\.0\.1:\d+ is not fetched from/],
    ['http://2130706433:PORT/x', /127\.0\.0\.1:\d+ is not fetched from/],
    ['http://0x7f.1:PORT/x', /127\.0\.0\.1:\d+ is not fetched from/],
    ['http://[::ffff:127.0.0.1]:PORT/x', /is not fetched from/],
    ['http://[::1]:PORT/x', /is not fetched from/],
    ['http://localhost:PORT/x', /lookup localhost: no such host, or no public one/],
    ['http://169.254.169.254/latest', /is not fetched from/],
    ['http://10.1.2.3/', /is not fetched from/],
    ['http://user:word@8.8.8.8/', /is not fetched from/],
    ['http://', /is no URL/],
  ])('is not %s', async (url, message) => {
    asked.length = 0;
    await expect(fetchFile(url.replace('PORT', new URL(origin).port), { signal })).rejects.toThrow(message);
    expect(asked).toEqual([]);
  });

  it('is not behind a redirect either', async () => {
    // The first hop alone may be reached.
    let hops = 0;
    const mayReach = (): boolean => {
      hops += 1;
      return hops === 1;
    };
    for (const target of [`${origin}/secret`, 'file:///etc/passwd', 'gopher://127.0.0.1/']) {
      hops = 0;
      asked.length = 0;
      await expect(fetchFile(`${origin}/to?${encodeURIComponent(target)}`, { signal, mayReach })).rejects.toThrow(
        /is not fetched from/,
      );
      expect(asked).toHaveLength(1);
    }
  });

  it('is refused where it is too large, gone, or leads round in circles', async () => {
    await expect(fetchFile(`${origin}/huge`, open)).rejects.toThrow(/9663676416 bytes/);
    await expect(fetchFile(`${origin}/gone`, open)).rejects.toThrow(
      /^ADD failed: failed to GET .*\/gone with status 404 Not Found$/,
    );
    await expect(fetchFile(`${origin}/again`, open)).rejects.toThrow(/stopped after 5 redirects/);
    await expect(fetchFile(`${origin}/a/%2e%2e%5bx`, open)).rejects.toThrow(/has characters that are not taken/);
  });
});
