import { array, assert, constantFrom, property } from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseDockerfile, writeDockerfile } from '#caas/build/dockerfile-lines.ts';

const parse = (text: string | Buffer) => parseDockerfile(Buffer.from(text), 'Dockerfile');
const textsOf = (text: string) => parse(text).instructions.map((instruction) => instruction.text);

describe('a Dockerfile as instructions', () => {
  it('drops comments and empty lines, and keeps the line where each began', () => {
    const { instructions } = parse('# hello\n\nFROM busybox\n  # indented\n\tRUN true\r\n');
    expect(instructions.map(({ line, keyword, args }) => [line, keyword, args])).toEqual([
      [3, 'from', 'busybox'],
      [5, 'run', 'true'],
    ]);
  });

  it.each([
    ['RUN a \\\n  && b', ['RUN a   && b']],
    ['RUN a \\  \n# comment\n\n && b', ['RUN a  && b']],
    ['RUN a \\\\\nRUN b', ['RUN a \\\\', 'RUN b']],
    ['\\\nRUN a', ['RUN a']],
    ['FR\\\nOM a', ['FROM a']],
    ['RUN a \\', ['RUN a']],
    ['# escape=`\nRUN a `\n b \\\nRUN c', ['RUN a  b \\', 'RUN c']],
    ['# comment\n# escape=`\nRUN a \\\n b', ['RUN a  b']],
    ['\uFEFFFROM a', ['FROM a']],
  ])('joins %j as moby does', (text, expected) => {
    expect(textsOf(text)).toEqual(expected);
  });

  it.each([
    ['COPY --from=a --chown=1:2 x y', ['--from=a', '--chown=1:2'], 'x y'],
    ['COPY "--from=a b" x y', [], '"--from=a b" x y'],
    ['COPY --from="a b" x y', ['--from=a b'], 'x y'],
    ["COPY --fr'om'=a\\ b x y", ['--from=a b'], 'x y'],
    ['RUN  --mount=type=bind  true --x', ['--mount=type=bind'], 'true --x'],
  ])('takes the flags of %s', (text, flags, args) => {
    expect(parse(text).instructions[0]).toMatchObject({ flags, args });
  });

  it.each([
    ['', /the Dockerfile \(Dockerfile\) cannot be empty/],
    ['# only\n\n', /failed to parse Dockerfile: file with no instructions/],
    ['FROM a\nFOO b', /dockerfile parse error line 2: unknown instruction: FOO/],
    ['FROM a\nRUN cat <<EOF\nhello\nEOF', /line 3: unknown instruction: HELLO/],
    ['# escape=x\nFROM a', /invalid escape token 'x' does not match/],
    ['# escape=`\n# escape=`\nFROM a', /only one escape parser directive/],
    ['FROM a\nCOPY -- --from=b x y', /line 2: .*-- is not taken/],
    ['FROM a\nCOPY --fröm=b x y', /line 2: .*not ASCII/],
    // Go folds these letters into ASCII ones; JavaScript does not fold them alike.
    ['FROM a\nONBU\u0130LD RUN true', /line 2: unknown instruction/],
    ['FROM a\nWOR\u212ADIR /', /line 2: unknown instruction/],
    ['FROM\u00a0a', /line 1: unknown instruction/],
    [`RUN ${'x'.repeat(65_536)}`, /line greater than max allowed size of 65535/],
  ])('refuses %j', (text, message) => {
    expect(() => parse(text)).toThrow(message);
  });

  it('takes comments in any encoding, and instructions in UTF-8 only', () => {
    const latin1 = Buffer.from('# Müller\nFROM a\n', 'latin1');
    expect(parse(latin1).instructions).toHaveLength(1);
    expect(() => parse(Buffer.from('FROM a\nRUN echo ü', 'latin1'))).toThrow(/line 2: ecluse: it is not UTF-8/);
  });

  it('writes what reads back as the same instructions, whatever it read', () => {
    const piece = constantFrom(
      'RUN ',
      'FROM a',
      '\\',
      '`',
      '\n',
      ' ',
      '\t',
      '#',
      'x',
      '"',
      "'",
      '\r',
      '# escape=`',
      '\u00a0',
      '--f=1',
      'ENV a=b',
    );
    assert(
      property(array(piece, { maxLength: 30 }), (pieces) => {
        let first;
        try {
          first = parse(pieces.join(''));
        } catch {
          return; // Refused: nothing is written.
        }
        const again = parse(writeDockerfile(first.escape, first.instructions));
        expect(again).toEqual(first);
      }),
      { numRuns: 1000 },
    );
  }, 20_000);

  it('takes no longer for long runs of spaces than for other text', () => {
    const spaces = ' '.repeat(60_000);
    const joined = Array.from({ length: 16 }, () => spaces).join('\\\n');
    expect(textsOf(`#x=y${spaces}z\nRUN a${joined}b`)).toEqual([`RUN a${joined.replaceAll('\\\n', '')}b`]);
  });

  it('continues a line that became too long by joining, so that it reads back', () => {
    const long = Array.from({ length: 40 }, (_, index) => `echo ${'y'.repeat(2000)}${String(index)}`).join(' && \\\n  ');
    const first = parse(`FROM a\nRUN ${long}\nRUN true`);
    const written = writeDockerfile(first.escape, first.instructions);
    expect(Math.max(...written.split('\n').map((line) => line.length))).toBeLessThan(65_536);
    expect(parse(written).instructions.map(({ text }) => text)).toEqual(first.instructions.map(({ text }) => text));
  });
});
