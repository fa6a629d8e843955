/** Docker's JSON of images, by version. */
import { describe, expect, test } from 'vitest';
import { historyView, imageInspectView, imageSummaryView } from '#caas/docker-api/image-views.ts';
import { imageSchema } from '#caas/engine/engine-answers.ts';

const ID = `sha256:${'1'.repeat(64)}`;
const PARENT = `sha256:${'2'.repeat(64)}`;
const held = {
  imageId: ID,
  createdMs: 5000,
  references: ['docker.io/library/shop:1', 'a.test/b:2'],
  digests: [`a.test/b@${ID}`],
};
const known = imageSchema.parse({
  Id: ID,
  Created: '2026-01-01T00:00:00Z',
  Size: 7,
  Architecture: 'arm64',
  Variant: 'v8',
  Os: 'linux',
  Parent: PARENT,
  Config: { Labels: { a: 'b' }, Shell: ['sh'], Unknown: 1 },
  GraphDriver: { Name: 'overlay2', Data: { UpperDir: '/var/lib/docker/overlay2/x' } },
});
const image = { held, known, sharedSize: -1 };

describe('imageSummaryView()', () => {
  const names = { tags: ['shop:1'], digests: [] };
  const none = { tags: [], digests: [] };

  test('has the sizes and the empty lists of the version', () => {
    const summary = (version: string, of = names) => imageSummaryView(image, of, version);
    expect(summary('1.41')).toEqual({
      Containers: -1,
      Created: Date.UTC(2026, 0, 1) / 1000,
      Id: ID,
      Labels: { a: 'b' },
      ParentId: '',
      RepoDigests: null,
      RepoTags: ['shop:1'],
      SharedSize: -1,
      Size: 7,
      VirtualSize: 7,
    });
    expect(summary('1.44')).not.toHaveProperty('VirtualSize');
    expect(summary('1.42', none)).toMatchObject({ RepoTags: ['<none>:<none>'], RepoDigests: ['<none>@<none>'] });
    expect(summary('1.43', none)).toMatchObject({ RepoTags: [], RepoDigests: [] });
  });

  test('of an image that no host knows tells what the store does', () => {
    expect(imageSummaryView({ ...image, known: undefined }, none, '1.41')).toMatchObject({ Size: 0, Created: 5, Labels: null });
  });
});

test('imageInspectView() shows no host, and no image that the tenant does not have', () => {
  const view = (version: string, isHeld: boolean) => imageInspectView(held, known, { apiVersion: version, isHeld: () => isHeld });
  expect(view('1.41', false)).toMatchObject({
    RepoTags: ['shop:1', 'a.test/b:2'],
    RepoDigests: [`a.test/b@${ID}`],
    Parent: '',
    Variant: 'v8',
    Config: { Labels: { a: 'b' }, Shell: ['sh'], Cmd: null },
    GraphDriver: { Data: {} },
    VirtualSize: 7,
  });
  expect(view('1.44', true)).toMatchObject({ Parent: PARENT });
  expect(view('1.44', true)).not.toHaveProperty('VirtualSize');
  expect(JSON.stringify(view('1.41', true))).not.toMatch(/Unknown|overlay2\/x|OsVersion/);
});

test('historyView() has ids and tags of the tenant’s own images only', () => {
  const entry = { Created: 1, CreatedBy: 'c', Size: 2, Comment: '' };
  expect(
    historyView(
      [
        { ...entry, Id: ID },
        { ...entry, Id: PARENT },
        { ...entry, Id: '<missing>' },
      ],
      [held],
    ),
  ).toMatchObject([
    { Id: ID, Tags: ['shop:1', 'a.test/b:2'] },
    { Id: '<missing>', Tags: null },
    { Id: '<missing>', Tags: null },
  ]);
});
