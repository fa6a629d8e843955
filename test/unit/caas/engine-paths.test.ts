/** What tenants are not told of engines' files. */
import { describe, expect, test } from 'vitest';
import { withoutEnginePaths } from '#caas/engine/engine-client.ts';

describe('withoutEnginePaths()', () => {
  test.each([
    ['open /data/hosts/local/docker/overlay2/x: no space', 'open (engine file): no space'],
    ['stat "/var/lib/docker/volumes/a/_data": gone', 'stat "(engine file)": gone'],
    ["bind=/var/run/docker/runtime-runc/moby/1/log.json and '/run/docker/x'", "bind=(engine file) and '(engine file)'"],
    ['exec: "/bin/x": stat /bin/x: no such file or directory', 'exec: "/bin/x": stat /bin/x: no such file or directory'],
    ['/hosts/a/b is a path of a container', '/hosts/a/b is a path of a container'],
    ['dial unix /var/run/docker.sock', 'dial unix /var/run/docker.sock'],
  ])('%s', (said, told) => {
    expect(withoutEnginePaths(said)).toBe(told);
  });

  test('a tenant’s path of any length costs no more than its length', () => {
    const path = '/a'.repeat(500_000);
    expect(withoutEnginePaths(`exec: ${path}`)).toBe(`exec: ${path}`);
  });
});
