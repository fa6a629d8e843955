import { Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { isRemoval, OriginalWords, parseEngineLine } from '#caas/build/build-output.ts';
import { boundedLines } from '#caas/build/engine-lines.ts';
import { StepImages } from '#caas/build/step-images.ts';

const ID = 'ab'.repeat(32);
const words = new OriginalWords(
  { originals: new Map([[`FROM ${ID}`, 'FROM $BASE']]), names: new Map([[ID, 'busybox']]) },
  'sub/my.df',
);

describe('an engine’s build output', () => {
  it.each([
    ['{"stream":"x\\n"}', { kind: 'output', text: 'x\n' }],
    [`{"aux":{"ID":"sha256:${ID}"}}`, { kind: 'stage', imageId: `sha256:${ID}` }],
    ['{"errorDetail":{"code":7,"message":"m"},"error":"m"}', { kind: 'failure', code: 7, message: 'm' }],
    ['{"error":"m"}', { kind: 'failure', code: undefined, message: 'm' }],
    ['{"aux":{"ID":"/etc"}}', undefined],
    ['{"status":"Downloading"}', undefined],
    ['no json', undefined],
  ])('takes %s for what it is', (line, expected) => {
    expect(parseEngineLine(line)).toEqual(expected);
  });

  it('knows the removal of a step’s container from what a program prints', () => {
    const text = 'Removing intermediate container 0123456789ab\n';
    expect(isRemoval({ kind: 'output', text })).toBe(true);
    expect(isRemoval({ kind: 'output', text: `then: ${text}` })).toBe(false);
    expect(isRemoval({ kind: 'failure', code: undefined, message: text })).toBe(false);
  });

  it('shows steps as the tenant wrote them, and other output as it is', () => {
    expect(words.output(`Step 1/2 : FROM ${ID}`)).toBe('Step 1/2 : FROM $BASE');
    expect(words.output(`Step 1/2 : FROM ${ID}\n`)).toBe('Step 1/2 : FROM $BASE\n');
    expect(words.output(`Step 2/2 : RUN echo ${ID}`)).toBe(`Step 2/2 : RUN echo ${ID}`);
    expect(words.output(`FROM ${ID}`)).toBe(`FROM ${ID}`);
  });

  it('takes names of ours out of failures', () => {
    expect(words.failure(`invalid from flag value ${ID}: No such image: sha256:${ID}`)).toBe(
      'invalid from flag value busybox: No such image: busybox',
    );
    expect(words.failure('failed to parse .ecluse-dockerfile: x')).toBe('failed to parse sub/my.df: x');
    expect(words.failure('network ecluse-0a1b2c-acme not found')).toBe('network default not found');
    expect(words.failure('open /data/hosts/a/docker/tmp/docker-builder1/x: no')).toBe('open (engine file): no');
  });

  it('reads lines in any pieces, without the ones that are too long', async () => {
    const lines = [];
    for await (const line of boundedLines(
      Readable.from([Buffer.from('a\r'), Buffer.from('\n\nlonglonglong'), Buffer.from('long\nb\nc')]),
      8,
    ))
      lines.push(line);
    expect(lines).toEqual(['a\r', 'b', 'c']);
  });
});

it('knows which images a build made', () => {
  const steps = new StepImages();
  const image = (digit: string) => ` ---> ${digit.repeat(12)}\n`;
  for (const text of [
    'Step 1/6 : FROM base',
    '\n',
    image('1'),
    'Step 2/6 : RUN a',
    '\n',
    ' ---> Using cache\n',
    image('2'),
    'Step 3/6 : RUN b',
    '\n',
    ' ---> Running in 999999999999\n',
    image('3'),
    'Step 4/6 : FROM with-triggers',
    '\n',
    '# Executing 1 build trigger\n',
    ' ---> Running in 888888888888\n',
    image('4'),
    'Step 5/6 : FROM base',
    '\n',
    image('1'),
    'Step 6/6 : COPY a b',
    '\n',
    image('5'),
  ])
    steps.read(text);
  expect(steps.made).toEqual(['3', '4', '5'].map((digit) => digit.repeat(12)));
});
