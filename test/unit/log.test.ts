/** The level of a logger and of those that were made of it. */
import { expect, test } from 'vitest';
import { createLog, setLogLevel } from '#log';

test('setLogLevel() is for a logger and all that were made of it, at any depth, and for no other', () => {
  const root = createLog('warn');
  const other = createLog('warn');
  const child = root.child({ mod: 'one' });
  const grandchild = child.child({ host: 'a' });
  setLogLevel(root, 'debug');
  expect([root, child, grandchild].map(({ level }) => level)).toEqual(['debug', 'debug', 'debug']);
  expect(root.child({ mod: 'later' }).level).toBe('debug');
  expect(other.level).toBe('warn');
  setLogLevel(root, 'error');
  expect([child, grandchild].map((log) => log.isLevelEnabled('warn'))).toEqual([false, false]);
});
