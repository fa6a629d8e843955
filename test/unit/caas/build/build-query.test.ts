import { describe, expect, it } from 'vitest';
import { parseBuildQuery, registryLoginsOf } from '#caas/build/build-query.ts';

const parse = (text: string) => parseBuildQuery(new URLSearchParams(text));

describe('the query of a build', () => {
  it('takes what docker CLIs send', () => {
    const query =
      'buildargs=%7B%22A%22%3A%221%22%2C%22B%22%3Anull%7D&cachefrom=%5B%5D&cgroupparent=&cpuperiod=0&cpuquota=0&cpusetcpus=&cpusetmems=&cpushares=0&dockerfile=Dockerfile&labels=%7B%22l%22%3A%22v%22%7D&memory=0&memswap=0&networkmode=default&rm=1&shmsize=0&t=a&t=b%3A1&t=a&target=&ulimits=null&version=1&q=1&nocache=1';
    expect(parse(query)).toMatchObject({
      dockerfile: 'Dockerfile',
      tags: ['docker.io/library/a:latest', 'docker.io/library/b:1'],
      isQuiet: true,
      noCache: true,
      pull: false,
      arguments: new Map([
        ['A', '1'],
        ['B', null],
      ]),
      labels: { l: 'v' },
      cacheFrom: [],
      network: 'default',
      memoryBytes: 0,
      ulimits: [],
      extraHosts: [],
    });
    expect(parse('')).toMatchObject({ dockerfile: 'Dockerfile', tags: [], cacheFrom: undefined, network: 'default' });
  });

  it('tells of removed containers as Docker would remove them', () => {
    const removal = (text: string): string => parse(text).removal;
    expect([removal(''), removal('rm=1'), removal('rm=0'), removal('rm=0&forcerm=1')]).toEqual([
      'of success',
      'of success',
      'never',
      'always',
    ]);
  });

  it('reads limits as Go does, in any case', () => {
    expect(parse('ulimits=[{"name":"nofile","SOFT":1,"Hard":2}]').ulimits).toEqual([{ Name: 'nofile', Soft: 1, Hard: 2 }]);
    expect(parse('shmsize=9999999999999').shmBytes).toBe(1024 ** 3);
  });

  it.each([
    ['labels={"a":1}', /error reading labels: a/],
    ['labels=[]', /error reading labels/],
    ['buildargs={"a":{}}', /error reading build args: a/],
    ['ulimits=[{"Name":"nofile","Evil":1}]', /error reading ulimit settings/],
    ['ulimits=[{"Name":"../x"}]', /error reading ulimit settings/],
    ['memory=x', /invalid syntax/],
    ['cpuperiod=5', /from 1000 to 1000000/],
    ['cpusetcpus=0', /the platform chooses/],
    ['isolation=hyperv', /Unsupported isolation: "hyperv"/],
    ['platform=../x', /invalid platform/],
    ['version=3', /invalid version "3"/],
    ['remote=client-session', /experimental session/],
    ['networkmode=mine', /a build reaches the outside/],
    ['t=a@sha256:00', /cannot contain a digest/],
  ])('refuses %s', (query, message) => {
    expect(() => parse(query)).toThrow(message);
  });
});

it('takes logins for registries, and none from what it cannot read', () => {
  const header = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const logins = registryLoginsOf(header({ 'r.example': { username: 'u', password: 'p' }, other: 1 }));
  expect([...logins.keys()]).toEqual(['r.example']);
  expect(logins.get('r.example')).toMatchObject({ username: 'u', password: 'p' });
  expect(registryLoginsOf('%%%').size).toBe(0);
  expect(registryLoginsOf(undefined).size).toBe(0);
});
