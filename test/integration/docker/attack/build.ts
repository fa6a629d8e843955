/** Attacks through the classic builder. */
import { buffer } from 'node:stream/consumers';
import { pack } from 'tar-stream';
import { expect } from 'vitest';
import { strangerOf } from '../../../support/attack.ts';
import type { AttackWorld } from '../../../support/attack.ts';
import type { ApiAnswer } from '../../../support/docker-api.ts';
import { indistinct, messageOf } from './cases.ts';
import type { AttackCase } from './cases.ts';

const TAR = { 'content-type': 'application/x-tar' };

async function contextOf(dockerfile: string): Promise<Buffer> {
  const packing = pack();
  packing.entry({ name: 'Dockerfile' }, dockerfile);
  packing.finalize();
  return await buffer(packing);
}

async function build(world: AttackWorld, query: string, dockerfile = 'FROM own:1\nLABEL a=b\n'): Promise<ApiAnswer> {
  return await world.ask({ method: 'POST', path: `/build?rm=1&${query}`, body: await contextOf(dockerfile), headers: TAR });
}

function refusedQuery(name: string, query: string): AttackCase {
  return {
    row: 'classic build',
    name,
    run: async (world) => {
      const answer = await build(world, query);
      expect([400, 403, 500, 501], `${String(answer.status)} ${answer.text}`).toContain(answer.status);
      messageOf(answer);
    },
  };
}

/** A Dockerfile that names an image of another tenant's fails like one that names none. */
function foreign(name: string, dockerfileOf: (image: string) => string): AttackCase {
  return {
    row: 'classic build',
    name,
    run: async (world) => {
      for (const image of world.references.image.filter((reference) => !reference.startsWith('sha256:'))) {
        const stranger = strangerOf(image);
        const [theirs, nobodys] = [
          await build(world, 't=loot', dockerfileOf(image)),
          await build(world, 't=loot', dockerfileOf(stranger)),
        ];
        const blank = (text: string, reference: string): string => {
          const bare = reference.replace(/^docker\.io\/library\//, '').replace(/(?::\w+|@.*)$/, '');
          return text.replaceAll(reference, 'IMAGE').replaceAll(bare, 'IMAGE');
        };
        expect([theirs.status, blank(theirs.text, image)], image).toEqual([nobodys.status, blank(nobodys.text, stranger)]);
        expect(theirs.text).not.toContain('Successfully');
      }
    },
  };
}

export const buildCases: readonly AttackCase[] = [
  refusedQuery('the host’s network', 'networkmode=host'),
  refusedQuery('the network of another container', 'networkmode=container:granite'),
  refusedQuery('another cgroup', 'cgroupparent=/'),
  refusedQuery('security options', `securityopt=${encodeURIComponent('["seccomp=unconfined"]')}`),
  refusedQuery(
    'a remote context inside of the node’s network',
    `remote=${encodeURIComponent('http://169.254.169.254/latest/meta-data')}`,
  ),
  refusedQuery('a remote context in a repository', `remote=${encodeURIComponent('git://127.0.0.1/x.git')}`),
  refusedQuery('a Dockerfile outside of the context', 'dockerfile=../../../../etc/passwd'),
  refusedQuery('a tag that is none', 't=UPPER'),
  foreign('FROM another tenant’s image', (image) => `FROM ${image}\nLABEL a=b\n`),
  foreign('COPY --from another tenant’s image', (image) => `FROM own:1\nCOPY --from=${image} /bin/busybox /loot\n`),
  ...indistinct('classic build', 'image', {
    'a cache of another tenant’s': (image) => ({
      method: 'POST',
      path: `/build?cachefrom=${encodeURIComponent(JSON.stringify([image]))}&networkmode=host`,
      body: Buffer.alloc(1024),
      headers: TAR,
    }),
  }),
  {
    row: 'classic build',
    name: 'ADD from inside of the node’s network is refused',
    run: async (world) => {
      for (const place of ['http://169.254.169.254/x', `http://127.0.0.1:${String(world.node.ports.metrics)}/metrics`]) {
        const answer = await build(world, '', `FROM own:1\nADD ${place} /loot\n`);
        expect(answer.text).not.toContain('Successfully');
        expect(answer.text).not.toMatch(/connection refused|HELP/);
      }
    },
  },
  {
    row: 'classic build',
    name: 'steps run in a sandbox, not on the host’s kernel',
    run: async (world) => {
      const answer = await build(
        world,
        'nocache=1',
        'FROM own:1\nRUN cat /proc/version; id -u; ls /proc/1/root/etc 2>&1 | head -1\n',
      );
      expect(answer.text).toContain('Successfully built');
      expect(answer.text).toMatch(/gVisor|Linux version 4\.4\.0/);
      const id = /Successfully built ([0-9a-f]{12})/.exec(answer.text)?.[1] ?? '';
      await world.ask({ method: 'DELETE', path: `/images/${id}?force=1` });
    },
  },
];
