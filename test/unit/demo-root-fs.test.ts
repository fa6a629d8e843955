import { expect, test } from 'vitest';
import { librariesInLdd } from '../../src/demo-root-fs.ts';

test('librariesInLdd() finds the libraries and the loader in what glibc prints', () => {
  const output = [
    '\tlinux-vdso.so.1 (0x00007ffd2a9f2000)',
    '\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f5fa5f00000)',
    '\tlibodd.so => /opt/a folder (odd)/libodd.so (0x00007f5fa5a1e000)',
    '\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f5fa5f00000)',
    '\t/lib64/ld-linux-x86-64.so.2 (0x00007f5fa6002000)',
    '',
  ].join('\n');
  expect(librariesInLdd(output)).toEqual([
    '/lib/x86_64-linux-gnu/libm.so.6',
    '/lib64/ld-linux-x86-64.so.2',
    '/opt/a folder (odd)/libodd.so',
  ]);
});

test('librariesInLdd() finds them in what musl prints', () => {
  const output = '\t/lib/ld-musl-x86_64.so.1 (0x7f1e)\n\tlibc.musl-x86_64.so.1 => /lib/ld-musl-x86_64.so.1 (0x7f1e)\n';
  expect(librariesInLdd(output)).toEqual(['/lib/ld-musl-x86_64.so.1']);
});

test('librariesInLdd() names a library that is missing', () => {
  expect(() => librariesInLdd('\tlibatomic.so.1 => not found\n')).toThrow(
    'a shared library is not on this machine: libatomic.so.1',
  );
});
