import { describe, expect, it } from 'vitest';
import { parseDockerfile } from '#caas/build/dockerfile-lines.ts';
import { rewriteDockerfile } from '#caas/build/dockerfile-rewrite.ts';
import type { BaseImage, RewriteOptions } from '#caas/build/dockerfile-rewrite.ts';

const ID_A = 'a1'.repeat(32);
const ID_B = 'b2'.repeat(32);
const ID_WEB = 'c3'.repeat(32);

const images: Readonly<Record<string, Partial<BaseImage>>> = {
  busybox: {},
  'busybox:1.36': {},
  tools: { imageId: `sha256:${ID_B}`, environment: ['BASE=/opt', 'URL=http://10.0.0.1'] },
  'copies-stage': { triggers: ['COPY --from=builder /x /y', 'RUN true'] },
  'copies-image': { triggers: ['COPY --from=busybox /x /y'] },
  'adds-url': { triggers: ['ADD http://10.0.0.1/x /y'] },
  'adds-variable': { triggers: ['ADD $URL /y'] },
  'adds-file': { triggers: ['ADD x.tar /y', 'ENV FROM_TRIGGER=1'] },
  'adds-folded': { triggers: ['ADD\u00a0x /y'] },
  'adds-lines': { triggers: ['RUN true\nADD http://10.0.0.1/x /y'] },
  nested: { triggers: ['ONBUILD COPY --from=busybox /x /y'] },
};

async function rewrite(text: string, options: Partial<RewriteOptions> = {}) {
  return await rewriteDockerfile(parseDockerfile(Buffer.from(text), 'Dockerfile'), {
    arguments: new Map(),
    target: '',
    labels: 0,
    imageOf: async (reference) => {
      const image = images[reference];
      if (image === undefined) throw new Error(`pull access denied for ${reference}`);
      return { imageId: `sha256:${ID_A}`, environment: [], triggers: [], ...image };
    },
    fetch: async (url) => {
      throw new Error(`fetched ${url}`);
    },
    ...options,
  });
}

/** The instructions of the result, without the empty lines that keep numbers. */
const linesOf = async (text: string, options: Partial<RewriteOptions> = {}) =>
  (await rewrite(text, options)).text.split('\n').filter((line) => line !== '');

describe('a Dockerfile for the engine', () => {
  it('names images by id, and says what each was called', async () => {
    const { text, originals, names } = await rewrite('FROM busybox AS Base\nCOPY --from=tools /bin/x /bin/\nRUN echo busybox');
    expect(text).toBe(`FROM ${ID_A} AS base\nCOPY --from=${ID_B} /bin/x /bin/\nRUN echo busybox\n`);
    expect(Object.fromEntries(originals)).toEqual({
      [`FROM ${ID_A} AS base`]: 'FROM busybox AS Base',
      [`COPY --from=${ID_B} /bin/x /bin/`]: 'COPY --from=tools /bin/x /bin/',
    });
    expect(Object.fromEntries(names)).toEqual({ [ID_A]: 'busybox', [ID_B]: 'tools' });
  });

  it.each([
    ['FROM scratch\nCOPY x /', ['FROM scratch', 'COPY x /']],
    [
      'from busybox as a\nfrom A\ncopy --from=0 x y\ncopy --from=A x y',
      [`FROM ${ID_A} AS a`, 'FROM a', 'COPY --from=0 x y', 'COPY --from=a x y'],
    ],
    ['ARG V=1.36\nFROM busybox:$V', ['ARG V=1.36', `FROM ${ID_A}`]],
    ['ARG V\nFROM busybox:${V:-1.36}', ['ARG V', `FROM ${ID_A}`]],
    ['ARG N=busy\nARG M=${N}box\nFROM "$M"', ['ARG N=busy', 'ARG M=${N}box', `FROM ${ID_A}`]],
    ['FROM --platform=linux/amd64 busybox', [`FROM --platform=linux/amd64 ${ID_A}`]],
    ['FROM busybox\nCOPY --from="" a b', [`FROM ${ID_A}`, 'COPY a b']],
    ['FROM busybox\nONBUILD   COPY --from=anything a b', [`FROM ${ID_A}`, 'ONBUILD COPY --from=anything a b']],
    ['FROM busybox AS builder\nFROM copies-stage', [`FROM ${ID_A} AS builder`, `FROM ${ID_A}`]],
    ['FROM adds-file\nADD a$FROM_TRIGGER /', [`FROM ${ID_A}`, 'ADD ["a1","/"]']],
    ['# escape=`\nFROM busybox\nADD a`b c\\d /', ['# escape=`', `FROM ${ID_A}`, 'ADD ["ab","c\\\\d","/"]']],
  ])('rewrites %j', async (text, expected) => {
    expect(await linesOf(text)).toEqual(expected);
  });

  it('takes --build-arg over defaults, and what is not declared for nothing', async () => {
    const given = new Map([['V', '1.36']]);
    expect(await linesOf('ARG V=none\nFROM busybox:$V', { arguments: given })).toEqual(['ARG V=none', `FROM ${ID_A}`]);
    await expect(rewrite('FROM busybox:$V', { arguments: given })).rejects.toThrow('pull access denied for busybox:');
  });

  it('ends with the target stage and does not look at images behind it', async () => {
    const text = 'FROM busybox AS one\nRUN a\nFROM nowhere AS two';
    expect(await linesOf(text, { target: 'ONE' })).toEqual([`FROM ${ID_A} AS one`, 'RUN a']);
    await expect(rewrite(text, { target: 'three' })).rejects.toThrow('failed to reach build target three in Dockerfile');
  });

  it('says which step an image is needed for', async () => {
    const steps: string[] = [];
    await rewrite('ARG A=1\nFROM busybox\nRUN a\nCOPY --from=tools \\\n a b', {
      labels: 2,
      imageOf: async (_reference, { step }) => {
        steps.push(step);
        return { imageId: `sha256:${ID_A}`, environment: [], triggers: [] };
      },
    });
    expect(steps).toEqual(['Step 2/6 : FROM busybox\n', 'Step 4/6 : COPY --from=tools  a b\n']);
  });

  it('tells stages that others begin with', async () => {
    expect((await rewrite('FROM busybox AS a\nFROM busybox AS b\nFROM a')).isBase).toEqual([true, false, false]);
  });

  it.each([
    // A later stage, or the one being made, is an image's name to Docker.
    ['FROM busybox AS a\nCOPY --from=a x y', 'pull access denied for a'],
    ['FROM busybox\nCOPY --from=later x y\nFROM busybox AS later', 'pull access denied for later'],
    ['FROM busybox\nCOPY --from=99999999999999999999 x y', 'pull access denied for 9999'],
    ['FROM busybox\nCOPY --from=a --from=b x y', /line 2: Duplicate flag specified: from/],
    ['FROM busybox\nCOPY --from x y', /line 2: Missing a value on flag: from/],
    ['FROM busybox\nCOPY \u00a0--from=x a b', /line 2: .*begins with --/],
    ['FROM busybox ſcratch x', /FROM requires either one or three arguments/],
    ['FROM busybox AS 1a', /invalid name for build stage: "1a"/],
    ['FROM busybox AS a\nFROM busybox AS a', 'a stage name already used'],
    ['ARG X\nFROM $X', 'base name ($X) should not be blank'],
    ['RUN true', 'no build stage in current context'],
    ['FROM busybox\nCOPY --chown=a;b x y', /line 2: .*--chown=a;b has characters/],
    ['FROM busybox\nONBUILD FROM x', /FROM isn't allowed as an ONBUILD trigger/],
    ['FROM busybox\nONBUILD ONBUILD RUN x', /Chaining ONBUILD/],
    ['FROM busybox\nONBUILD --from=x COPY a b', /ONBUILD takes no flags/],
    // A stage that is being made is no source for itself.
    ['FROM copies-stage AS builder', /takes files from an image/],
    ['FROM copies-image', /ecluse: copies-image runs "ONBUILD COPY --from=busybox/],
    ['FROM adds-url', /could fetch from the network/],
    ['FROM adds-variable', /could fetch from the network/],
    ['FROM adds-folded', /characters that are not taken/],
    ['FROM adds-lines', /characters that are not taken/],
    ['FROM nested AS a\nFROM a', /ecluse: a runs "ONBUILD COPY --from=busybox/],
    ['FROM busybox AS a\nONBUILD COPY --from=busybox x y\nFROM a', /ecluse: a runs "ONBUILD COPY/],
  ])('refuses %j', async (text, message) => {
    await expect(rewrite(text)).rejects.toThrow(message);
  });

  it.each([
    'ADD http://10.0.0.1/x /',
    'ADD HTTPS://10.0.0.1/x /',
    'ADD h\\ttp://10.0.0.1/x /',
    'ADD ht"tp"://10.0.0.1/x /',
    'ADD ["http://10.0.0.1/x", "/"]',
    'ADD ["\\u0068ttp://10.0.0.1/x", "/"] ignored',
    'ADD --chown=1:1 http://10.0.0.1/x /',
    'ADD $URL/x /',
    'ADD ${NONE:-http}://10.0.0.1/x /',
    'ENV S=http:\nADD $S//10.0.0.1/x /',
    'ARG S=http:\nADD $S//10.0.0.1/x /',
    'ADD \uFEFFhttp://10.0.0.1/x /',
    'ADD http_proxy://x $HTTP_PROXY/x /',
    'ADD a http://10.0.0.1/x /',
  ])('lets no engine fetch for %j', async (instruction) => {
    const given = new Map([['HTTP_PROXY', 'http://10.0.0.1']]);
    await expect(rewrite(`FROM tools\n${instruction}`, { arguments: given })).rejects.toThrow(
      /^fetched https?:\/\/10\.0\.0\.1(?:\/x){1,2}$|an ADD of a URL takes that one source only/i,
    );
  });

  it('needs a name for a file that goes into a directory', async () => {
    const fetch = async () => ({ imageId: `sha256:${ID_WEB}`, path: '/__unnamed__', isNamed: false });
    const dockerfile = 'FROM busybox\nADD https://example.com/ /dst';
    expect((await linesOf(dockerfile, { fetch })).at(-1)).toBe(`COPY --from=${ID_WEB} ["/__unnamed__","/dst"]`);
    await expect(rewrite(`${dockerfile}/`, { fetch })).rejects.toThrow(
      'cannot determine filename for source https://example.com/',
    );
  });

  it.each([
    ['ADD $BASE/a* b/ /dst/', 'ADD ["/opt/a*","b/","/dst/"]'],
    ['ADD \\$BASE a', 'ADD ["\\\\$BASE","a"]'],
    ['ADD \'$BASE\' "$x"', 'ADD ["\\\\$BASE","\\"$x\\""]'],
    ['ADD --chown=$U:$G a $BASE', 'ADD --chown=$U:$G ["a","$BASE"]'],
  ])('makes plain words of the sources of %j', async (instruction, expected) => {
    expect((await linesOf(`FROM tools\n${instruction}`))[1]).toBe(expected);
  });

  it('copies what was fetched from an image of its own', async () => {
    const fetched: string[] = [];
    const fetch = async (url: string) => {
      fetched.push(url);
      return { imageId: `sha256:${ID_WEB}`, path: '/v1.tar', isNamed: true };
    };
    const lines = await linesOf('FROM busybox\nARG V=v1\nADD --chown=1:1 https://example.com/$V.tar /dst/', { fetch });
    expect(fetched).toEqual(['https://example.com/v1.tar']);
    expect(lines.at(-1)).toBe(`COPY --from=${ID_WEB} --chown=1:1 ["/v1.tar","/dst/"]`);
  });

  it('refuses variables that grow', async () => {
    const doubled = Array.from({ length: 40 }, () => 'ENV a=$a$a').join('\n');
    await expect(rewrite(`FROM busybox\nENV a=0123456789\n${doubled}`)).rejects.toThrow('more than 131072 characters');
    const long = `ARG a=${'x'.repeat(60_000)}`;
    await expect(rewrite(`FROM busybox\n${long}\nLABEL b=${'$a'.repeat(1000)}`)).rejects.toThrow('line 3: ecluse: with its');
    expect(await linesOf(`FROM busybox\n${long}\nLABEL b=${'$a'.repeat(10)}\nRUN ${'$a'.repeat(1000)}`)).toHaveLength(4);
  });
});
