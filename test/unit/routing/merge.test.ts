/** Routes of one host from operators and from containers. */
import { expect, test } from 'vitest';
import { mergeRoutes } from '#routing/merge.ts';
import type { Route } from '#routing/route-table.ts';

const route = (path: string, serviceId: string, over: Partial<Route> = {}): Route => ({
  host: 'a.test',
  path,
  serviceId,
  ...over,
});

test('the first has what both want, and the second what is left', () => {
  const mine = [route('/x/', 'mine'), route('/y', 'mine', { methods: ['GET', 'POST'] })];
  const theirs = [
    route('/x', 'theirs'),
    route('/', 'theirs'),
    route('/y', 'theirs', { methods: ['POST', 'GET'] }),
    route('/y', 'theirs'),
  ];
  expect(mergeRoutes(mine, theirs)).toEqual([...mine, theirs[1], theirs[3]]);
  expect(mergeRoutes([], theirs)).toBe(theirs);
  expect(mergeRoutes(mine, [])).toEqual(mine);
});
