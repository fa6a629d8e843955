/** `docker rmi`: what goes, what stays and why; layers; names that nobody holds. */
import { describe, expect, test } from 'vitest';
import type { ContainerRow } from '#state/containers.ts';
import { leftNames } from '#caas/images/image-collector.ts';
import { engineReference } from '#caas/images/image-engines.ts';
import { findImage } from '#caas/images/image-holdings.ts';
import { chainIdsOf, layersToDelete, layerSizesOf, sharedSizeOf } from '#caas/images/image-layers.ts';
import { planRemoval } from '#caas/images/image-removal.ts';
import { savedAs } from '#caas/images/image-transfer.ts';
import { rowOf } from '../../support/caas-data.ts';

const ID = `sha256:${'ab12'.repeat(16)}`;
const DIGEST = `sha256:${'0'.repeat(64)}`;
const X1 = 'docker.io/library/x:1';
const X2 = 'docker.io/library/x:2';
const Y1 = 'docker.io/library/y:1';
const AT = `docker.io/library/x@${DIGEST}`;

function image(references: readonly string[], digests: readonly string[] = []) {
  return { imageId: ID, createdMs: 1, references, digests };
}

const running: ContainerRow = rowOf({ state: 'running' });
const stopped: ContainerRow = rowOf({ state: 'exited' });

describe('planRemoval()', () => {
  const plan = (references: readonly string[], reference: string, users: readonly ContainerRow[] = [], force = false) =>
    planRemoval({
      image: image(
        references.filter((name) => !name.includes('@')),
        references.filter((name) => name.includes('@')),
      ),
      reference,
      users,
      force,
    });

  test('a name goes, the image with its last one', () => {
    expect(plan([X1], 'x:1')).toEqual({ kind: 'remove', names: [X1], isDeleted: true });
    expect(plan([X1, Y1], 'x:1')).toEqual({ kind: 'remove', names: [X1], isDeleted: false });
    // Digests of a repository go with its last tag.
    expect(plan([X1, AT], 'x:1')).toEqual({ kind: 'remove', names: [X1, AT], isDeleted: true });
    expect(plan([X1, X2, AT], 'x:1')).toEqual({ kind: 'remove', names: [X1], isDeleted: false });
    expect(plan([X1, AT], `x@${DIGEST}`)).toEqual({ kind: 'remove', names: [AT], isDeleted: false });
    expect(plan([AT], `x@${DIGEST}`)).toEqual({ kind: 'remove', names: [AT], isDeleted: true });
  });

  test('an id takes all names of one repository, of several by force', () => {
    expect(plan([X1, AT], ID)).toEqual({ kind: 'remove', names: [X1, AT], isDeleted: true });
    expect(plan([], 'ab12')).toEqual({ kind: 'remove', names: [], isDeleted: true });
    expect(plan([X1, Y1], 'ab12')).toEqual({
      kind: 'conflict',
      why: 'conflict: unable to delete ab12ab12ab12 (must be forced) - image is referenced in multiple repositories',
    });
    expect(plan([X1, Y1], 'ab12', [], true)).toEqual({ kind: 'remove', names: [X1, Y1], isDeleted: true });
  });

  test('containers keep their image', () => {
    expect(plan([X1], 'x:1', [stopped])).toMatchObject({
      kind: 'conflict',
      why: expect.stringContaining('(must force) - container') as unknown,
    });
    expect(plan([X1, Y1], 'x:1', [running])).toEqual({ kind: 'remove', names: [X1], isDeleted: false });
    expect(plan([X1], 'x:1', [running], true)).toEqual({ kind: 'remove', names: [X1], isDeleted: false });
    expect(plan([X1], 'x:1', [stopped], true)).toEqual({ kind: 'remove', names: [X1], isDeleted: true });
    for (const force of [false, true]) {
      expect(plan([X1], ID, [stopped, running], force)).toMatchObject({
        why: expect.stringContaining('(cannot be forced) - image is being used by running container') as unknown,
      });
    }
    expect(plan([X1], ID, [stopped])).toMatchObject({
      why: expect.stringContaining('being used by stopped container') as unknown,
    });
    expect(plan([X1], ID, [stopped], true)).toEqual({ kind: 'remove', names: [X1], isDeleted: true });
  });
});

describe('findImage()', () => {
  const other = { ...image([Y1]), imageId: `sha256:${'ab34'.repeat(16)}` };
  const held = [image([X1], [AT]), other];

  test('by name, by digest, by id and its beginning, if that is one’s only', () => {
    for (const reference of ['x:1', 'docker.io/library/x:1', `x@${DIGEST}`, `x:9@${DIGEST}`, ID, 'ab12', ID.slice(0, 20)]) {
      expect(findImage(held, reference)?.imageId, reference).toBe(ID);
    }
    for (const reference of ['x', 'x:2', 'ab', 'AB12', 'sha256:', '', `y@${DIGEST}`, 'ab12 '])
      expect(findImage(held, reference), reference).toBeUndefined();
  });

  test('a name to save means one tag, all tags, or none', () => {
    const tagged = [image([X1, X2, Y1])];
    expect(savedAs(tagged, 'x:1')).toEqual([{ imageId: ID, references: [X1] }]);
    expect(savedAs(tagged, 'x')).toEqual([{ imageId: ID, references: [X1, X2] }]);
    expect(savedAs(tagged, 'ab12')).toEqual([{ imageId: ID, references: [] }]);
    expect(savedAs([image([X1], [AT])], `x@${DIGEST}`)).toEqual([{ imageId: ID, references: [] }]);
    expect(() => savedAs(tagged, 'z')).toThrow('No such image: z');
    expect(() => savedAs(tagged, 'z:1')).toThrow('reference does not exist');
    expect(() => savedAs(tagged, 'Z')).toThrow('must be lowercase');
  });
});

describe('layers', () => {
  const facts = (diffIds: readonly string[], historySizes: readonly number[]) => ({ diffIds, historySizes, size: 100 });

  test('are shared as far as all below them is the same', () => {
    const base = facts(['a', 'b'], [10, 0, 20]);
    const above = facts(['a', 'b', 'c'], [10, 20, 30]);
    const elsewhere = facts(['b', 'a'], [20, 10]);
    expect(sharedSizeOf(above, [base])).toBe(30);
    expect(sharedSizeOf(above, [elsewhere])).toBe(0);
    expect(layersToDelete(above, [base])).toEqual({ chainIds: [chainIdsOf(['a', 'b', 'c'])[2]], bytes: 30 });
    expect(layersToDelete(base, []).chainIds).toEqual(chainIdsOf(['a', 'b']).toReversed());
  });

  test('a chain id is the OCI specification’s', () => {
    // `printf 'sha256:a sha256:b' | sha256sum`
    expect(chainIdsOf(['sha256:a', 'sha256:b'])[1]).toBe(
      'sha256:970a948bffa8de94d6e22d747ba8c95030e6e546909f98f54e99a13005e173a8',
    );
  });

  test('without a clear history all of an image is its topmost layer', () => {
    expect([...layerSizesOf(facts(['a', 'b'], [10])).values()]).toEqual([0, 100]);
  });
});

test('leftNames() are names of ours that nothing stands for', () => {
  const { repository, tag } = engineReference(ID);
  const own = `${repository}:${tag}`;
  const relay = `127.0.0.1:5000/${'a'.repeat(32)}/team/x:1`;
  const temporary = 'ecluse/new-0:0';
  const names = [own, relay, temporary, 'busybox:latest', '127.0.0.1:5000/team/x:1'];
  expect(leftNames({ imageId: ID, names }, true, true)).toEqual([relay, temporary]);
  expect(leftNames({ imageId: ID, names }, false, true)).toEqual([own, relay, temporary]);
  expect(leftNames({ imageId: ID, names: [] }, false, true)).toEqual(['']);
  expect(leftNames({ imageId: ID, names: [] }, false, false)).toEqual([]);
  expect(leftNames({ imageId: ID, names: [] }, true, true)).toEqual([]);
});
