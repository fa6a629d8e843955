import { expect, it } from 'vitest';
import { ignores } from '#caas/build/dockerignore.ts';

it.each([
  ['Dockerfile', 'Dockerfile', true],
  ['/Dockerfile', 'Dockerfile', true],
  ['./Dockerfile/', 'Dockerfile', true],
  ['dockerfile', 'Dockerfile', false],
  ['Docker*', 'Dockerfile', true],
  ['*', 'sub/Dockerfile', true],
  ['sub', 'sub/Dockerfile', true],
  ['*file', 'sub/Dockerfile', false],
  ['*/Dockerfile', 'sub/Dockerfile', true],
  ['**/Dockerfile', 'Dockerfile', true],
  ['**/Dockerfile', 'a/b/Dockerfile', true],
  ['a/**', 'a/b/Dockerfile', true],
  ['a/**/c', 'a/b/c', true],
  ['**/x', 'a/bx', false],
  ['Docker????', 'Dockerfile', true],
  ['Docker[a-g]ile', 'Dockerfile', true],
  ['Docker[^f]ile', 'Dockerfile', false],
  ['Docker\\file', 'Dockerfile', true],
  ['Docker.ile', 'Dockerfile', false],
  ['# Dockerfile', 'Dockerfile', false],
  ['*\n!Dockerfile', 'Dockerfile', false],
  ['!Dockerfile\n*', 'Dockerfile', true],
  ['*\n! Dockerfile ', 'Dockerfile', false],
  ['\uFEFFDockerfile\r\n', 'Dockerfile', true],
  ['', 'Dockerfile', false],
])('%j decides about %s', (text, path, expected) => {
  expect(ignores(text, path)).toBe(expected);
});

it('takes no longer for patterns that would keep a backtracking matcher busy for ever', () => {
  expect(ignores('**/'.repeat(300) + 'x', 'a/'.repeat(300) + 'y')).toBe(false);
  expect(ignores('*a'.repeat(300), 'a'.repeat(600) + 'b')).toBe(false);
});
