/** What labels of scaling mean, and which containers they make one service. */
import { expect, test } from 'vitest';
import { scaleLabelsOf } from '#caas/scale/scale-labels.ts';
import { servicesOf } from '#caas/scale/scaled-services.ts';
import { rowOf, specOf } from '../../../support/caas-data.ts';

const MIB = 1024 ** 2;

test('labels have defaults', () => {
  expect(scaleLabelsOf({}, 64 * MIB)).toEqual({ kind: 'labels', labels: { copies: undefined, memory: undefined } });
  expect(scaleLabelsOf({ 'ecluse.scale.max': '5', 'ecluse.scale.memory.max': '1g' }, 64 * MIB)).toEqual({
    kind: 'labels',
    labels: { copies: { min: 1, max: 5, requests: 20 }, memory: { minBytes: 64 * MIB, maxBytes: 1024 * MIB } },
  });
});

test.each([
  [{ 'ecluse.scale.max': '1' }, 'label ecluse.scale.max: "1" is no number from 2 to 20'],
  [{ 'ecluse.scale.max': '21' }, 'label ecluse.scale.max: "21" is no number from 2 to 20'],
  [{ 'ecluse.scale.max': '3', 'ecluse.scale.min': '4' }, 'label ecluse.scale.min: "4" is no number from 1 to 3'],
  [{ 'ecluse.scale.max': '3', 'ecluse.scale.requests': '0' }, 'label ecluse.scale.requests: "0" is no number from 1 to 10000'],
  [{ 'ecluse.scale.min': '2' }, 'label ecluse.scale.min: it needs ecluse.scale.max beside it'],
  [{ 'ecluse.scale.memory.max': 'much' }, 'label ecluse.scale.memory.max: "much" is no size'],
  [{ 'ecluse.scale.memory.max': '32m' }, "label ecluse.scale.memory.max: it is below the container's own limit"],
  [{ 'ecluse.scale.most': '2' }, 'label ecluse.scale.most: there is no such label'],
])('refuses %j', (labels, said) => {
  expect(JSON.stringify(scaleLabelsOf(labels, 64 * MIB))).toContain(JSON.stringify(said).slice(1, -1));
});

test('a service is its original, copies that people made, and copies of its own', () => {
  const row = (id: string, createdMs: number, labels: Readonly<Record<string, string>>, name = id) =>
    rowOf({ id, name, createdMs, spec: JSON.stringify(specOf({ Labels: labels })) });
  const asks = { 'ecluse.scale.max': '3' };
  const services = servicesOf([
    row('w4', 4, { ...asks, 'ecluse.clone.of': 'web', 'ecluse.scale.of': 'w' }),
    row('w3', 3, { ...asks, 'ecluse.clone.of': 'web', 'ecluse.scale.of': 'w' }),
    row('w2', 2, { ...asks, 'ecluse.clone.of': 'web' }),
    row('w', 1, asks, 'web'),
    row('other', 1, {}),
    row('x2', 5, { ...asks, 'ecluse.clone.of': 'gone', 'ecluse.scale.of': 'x' }),
  ]);
  expect([...services.keys()].toSorted()).toEqual(['w', 'x']);
  const ids = (rows: readonly { readonly id: string }[] = []): readonly string[] => rows.map(({ id }) => id);
  expect(ids(services.get('w')?.copies)).toEqual(['w2', 'w3', 'w4']);
  expect(ids(services.get('w')?.made)).toEqual(['w3', 'w4']);
  expect(services.get('x')?.original).toBeUndefined();
  expect(ids(services.get('x')?.made)).toEqual(['x2']);
});
