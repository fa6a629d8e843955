import { describe, expect, test } from 'vitest';
import { createNormaliser } from '../../support/transcript-normaliser.ts';
import { commandsOf, wordsOf } from '../../support/transcript.ts';

const NOW_MS = Date.UTC(2026, 10, 21, 8, 0, 0);
const ID_A = 'a1'.repeat(32);
const ID_B = 'b2'.repeat(32);

function clean(text: string): string {
  return createNormaliser({ nowMs: () => NOW_MS })(text);
}

describe('createNormaliser() replaces', () => {
  test('ids, each by its own placeholder, whole and short, in the order of appearance', () => {
    const normalise = createNormaliser();
    expect(normalise(`${ID_B}\n${ID_A.slice(0, 12)}\nsha256:${ID_A}\n`)).toBe('<id1>\n<id2:12>\nsha256:<id2>\n');
    expect(normalise(`remove ${ID_B.slice(0, 12)}`)).toBe('remove <id1:12>');
  });

  test('times of today, in Docker’s spellings', () => {
    expect(clean('at 2026-11-21T07:59:58.123456789Z end')).toBe('at <time> end');
    expect(clean('at 2026-11-21T09:59:58+02:00 end')).toBe('at <time> end');
    expect(clean('at 2026-11-21 07:59:58 +0000 UTC end')).toBe('at <time> end');
  });

  test('how long something lasts, but not what it does', () => {
    expect(clean('Up 3 seconds (healthy)')).toBe('Up <lasted> (healthy)');
    expect(clean('Exited (137) Less than a second ago')).toBe('Exited (137) <lasted> ago');
    expect(clean('About a minute ago')).toBe('<lasted> ago');
  });

  test('addresses that engines assign, and nothing of what follows them', () => {
    expect(clean('10.90.1.2/24 172.18.0.1 10.90.1.2 02:42:0a:5a:01:02')).toBe('<ip1>/24 <ip2> <ip1> <mac1>');
  });

  test('ports that the engine chose', () => {
    expect(clean('0.0.0.0:49153->80/tcp, [::]:49153->80/tcp, 0.0.0.0:32768->81/tcp')).toBe(
      '0.0.0.0:<port1>->80/tcp, [::]:<port1>->80/tcp, 0.0.0.0:<port2>->81/tcp',
    );
  });

  test('the width of columns, but no indentation', () => {
    expect(clean('NAME        STATUS')).toBe('NAME   STATUS');
    expect(clean('        "Id": 1')).toBe('        "Id": 1');
  });

  test('what a client logs when it was refused before it was done, and no other log line', () => {
    const race = 'time="2026-11-21T08:00:00Z" level=error msg="error waiting for container: context canceled"\n';
    const fault = 'time="2026-11-21T08:00:00Z" level=error msg="error waiting for container: EOF"\n';
    expect(clean(`refused\n${race}end`)).toBe('refused\nend');
    expect(clean(`refused\n${fault}end`)).toBe(`refused\n${fault.replace(/"2026[^"]*"/, '"<time>"')}end`);
  });

  test('the client’s directory', () => {
    expect(createNormaliser({ directory: '/tmp/x1' })('lstat /tmp/x1/f: no such file')).toBe('lstat <directory>/f: no such file');
  });
});

describe('createNormaliser() keeps', () => {
  test.each([
    ['a word', 'Error response from daemon: No such container: web'],
    ['a number', 'Exited (137)'],
    ['a count of seconds that nobody waited', 'Up 3 hours'],
    ['a count of minutes that nobody waited', 'Up 12 minutes'],
    ['the zero time', '0001-01-01T00:00:00Z'],
    ['the epoch', '1970-01-01T00:00:00Z'],
    ['a time of another day', '2026-11-18T08:00:00Z'],
    ['an address that somebody chose', '127.0.0.1 0.0.0.0 192.0.2.1 8.8.8.8'],
    ['a port that somebody chose', '0.0.0.0:8080->80/tcp 127.0.0.1:28471'],
    ['a number that looks like a port', 'size 49153'],
    ['a size', '1.98MB (virtual 2MB)'],
    ['an id that is too short or too long', `${ID_A.slice(0, 11)} ${ID_A.slice(0, 13)} ${ID_A}0`],
    ['a gap of two', 'a  b'],
    ['the end of a line', 'no newline'],
    ['a version', '1.41 20.10.24'],
  ])('%s', (_, text) => {
    expect(clean(text)).toBe(text);
  });

  test('ids that both sides must have', () => {
    const normalise = createNormaliser({ sameIds: [ID_A] });
    expect(normalise(`${ID_A} ${ID_A.slice(0, 12)} ${ID_B}`)).toBe(`${ID_A} ${ID_A.slice(0, 12)} <id1>`);
  });

  test('the order: two engines that list the same things otherwise differ', () => {
    const one = createNormaliser();
    const other = createNormaliser();
    one(`${ID_A}\n${ID_B}`);
    other(`${ID_A}\n${ID_B}`);
    expect(one(`${ID_A}\n${ID_B}`)).not.toBe(other(`${ID_B}\n${ID_A}`));
  });

  test('that something else has the id of before', () => {
    const one = createNormaliser();
    const other = createNormaliser();
    one(ID_A);
    other(ID_A);
    expect(one(ID_A)).not.toBe(other(ID_B));
  });
});

test('wordsOf() parts at blanks outside of quotes', () => {
  expect(wordsOf(`run --name web -e 'A=b c' bb sh -c "echo 'x'; exit 3" ""`)).toEqual([
    'run',
    '--name',
    'web',
    '-e',
    'A=b c',
    'bb',
    'sh',
    '-c',
    "echo 'x'; exit 3",
    '',
  ]);
  expect(wordsOf('a --x="b c"d')).toEqual(['a', '--x=b cd']);
});

test('commandsOf() counts commands and not the waiting for them', () => {
  const steps = ['ps', { command: 'events', background: 'live' }, { join: 'live' }] as const;
  expect(commandsOf([{ name: 'one', steps }])).toEqual(['ps', 'events']);
});
