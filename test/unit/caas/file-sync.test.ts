import { describe, expect, test } from 'vitest';
import { planLayer } from '#caas/migration/file-sync.ts';

describe('planLayer()', () => {
  test('takes files, links and directories as copies', () => {
    const listing = '.d..t...... ./\n>f+++++++++ app/new\n>f.st...... etc/changed\ncL+++++++++ link\ncd+++++++++ made/\n';
    expect(planLayer(listing)).toEqual({ removals: [], copies: ['.', 'app/new', 'etc/changed', 'link', 'made'] });
  });

  test('takes what is gone, and marks of what is gone, as removals', () => {
    const listing = '*deleting   tmp/dir/\n*deleting   tmp/dir/x\ncD+++++++++ app/package.json\nhD+++++++++ app/other\n';
    expect(planLayer(listing)).toEqual({ removals: ['tmp/dir', 'tmp/dir/x', 'app/package.json', 'app/other'], copies: [] });
  });

  test.each([
    ['a name that is no plain text', '>f+++++++++ a\\#012b\n'],
    ['a hard link', 'hf+++++++++ b\n'],
    ['a directory that may have become opaque', '.d........x dir/\n'],
    ['a device that changed', '.D..t...... null\n'],
    ['a socket', 'cS+++++++++ s\n'],
    ['a line that it does not know', 'cannot delete non-empty directory: x\n'],
  ])('leaves %s to a copy of the whole', (_, listing) => {
    expect(planLayer(listing)).toBeUndefined();
  });
});
