import { describe, expect, test } from 'vitest';
import { Passwords, credentialsOf, hashPassword, isPassword } from '#proxy/actions/password.ts';

const field = (text: string): string => `Basic ${Buffer.from(text).toString('base64')}`;

describe('a password', () => {
  test('is the one that was hashed, and no other', async () => {
    const hash = await hashPassword('grüße: dich');
    expect(hash).toMatch(/^\$scrypt\$ln=14,r=8,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$/);
    expect(await hashPassword('grüße: dich')).not.toBe(hash);
    expect([await isPassword('grüße: dich', hash), await isPassword('gruesse', hash)]).toEqual([true, false]);
    expect([await isPassword('x', undefined), await isPassword('x', 'no hash')]).toEqual([false, false]);
  });

  test.each([
    [undefined, undefined],
    ['Bearer abc', undefined],
    ['Basic !', undefined],
    [field('nocolon'), undefined],
    [field('ann:a:b'), { name: 'ann', password: 'a:b' }],
    [`basic ${Buffer.from('ann:').toString('base64')}`, { name: 'ann', password: '' }],
    [`Basic ${'A'.repeat(2000)}`, undefined],
  ])('is read from %s', (text, expected) => {
    expect(credentialsOf(text)).toEqual(expected);
  });
});

describe('Passwords', () => {
  test('know who was right before, as long as the hash is the same', async () => {
    const passwords = new Passwords();
    const users = { ann: await hashPassword('secret-1') };
    const right = field('ann:secret-1');
    expect(passwords.known(users, right)).toBeUndefined();
    expect(await passwords.verify(users, right)).toEqual({ kind: 'user', name: 'ann' });
    expect(passwords.known(users, right)).toBe('ann');
    expect(passwords.known(users, field('ann:secret-2'))).toBeUndefined();
    expect(passwords.known({ ann: await hashPassword('secret-2') }, right)).toBeUndefined();
  });

  test('say that names and passwords are wrong, and take no name of an object', async () => {
    const passwords = new Passwords();
    const users = { ann: await hashPassword('secret-1') };
    for (const text of ['ann:wrong', 'bob:secret-1', '__proto__:x', 'constructor:x'])
      expect(await passwords.verify(users, field(text))).toEqual({ kind: 'wrong' });
    expect(await passwords.verify(users, undefined)).toEqual({ kind: 'wrong' });
  });

  test('let only so many wait', async () => {
    const passwords = new Passwords();
    const users = { ann: `$scrypt$ln=10,r=8,p=1$${'A'.repeat(22)}$${'A'.repeat(43)}` };
    const all = await Promise.all(
      Array.from({ length: 70 }, async (_, index) => await passwords.verify(users, field(`ann:${String(index)}`))),
    );
    expect(all.filter(({ kind }) => kind === 'busy')).toHaveLength(6);
    expect(all.filter(({ kind }) => kind === 'wrong')).toHaveLength(64);
  });
});
