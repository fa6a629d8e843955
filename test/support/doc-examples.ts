/** What a Markdown document shows and promises: fenced blocks, links, the map of the code. Pure. */

export interface FencedBlock {
  /** Line of the opening fence, from 1. */
  readonly line: number;
  readonly language: string;
  /** What follows the language in the info string. */
  readonly words: readonly string[];
  readonly text: string;
}

export interface Link {
  readonly line: number;
  readonly target: string;
}

const FENCE = /^( {0,3})(`{3,}|~{3,})([^`]*)$/;

interface OpenFence {
  readonly line: number;
  readonly mark: string;
  readonly info: readonly string[];
  readonly body: string[];
}

/** Runs over a document line by line: `onBlock` for each fenced block, `onLine` for each line outside of them. */
function scan(
  markdown: string,
  on: { readonly block?: (block: FencedBlock) => void; readonly line?: (text: string, line: number) => void },
): void {
  let open: OpenFence | undefined;
  for (const [index, text] of markdown.split('\n').entries()) {
    const fence = FENCE.exec(text);
    const mark = fence?.[2];
    if (open === undefined) {
      if (mark === undefined) on.line?.(text, index + 1);
      else open = { line: index + 1, mark, info: (fence?.[3] ?? '').trim().split(/\s+/), body: [] };
    } else if (mark?.startsWith(open.mark) === true && (fence?.[3] ?? '').trim() === '') {
      const [language = '', ...words] = open.info;
      on.block?.({ line: open.line, language, words, text: `${open.body.join('\n')}\n` });
      open = undefined;
    } else open.body.push(text);
  }
  if (open !== undefined) throw new Error(`line ${String(open.line)}: the fence is not closed`);
}

export function fencedBlocks(markdown: string): readonly FencedBlock[] {
  const blocks: FencedBlock[] = [];
  scan(markdown, { block: (block) => blocks.push(block) });
  return blocks;
}

/** Links to files and headings of the project; those to elsewhere are left out. */
export function relativeLinks(markdown: string): readonly Link[] {
  const links: Link[] = [];
  scan(markdown, {
    line: (text, line) => {
      for (const [, target = ''] of text.matchAll(/\]\(([^)\s]+)\)/g))
        if (!/^[a-z][a-z0-9+.-]*:/i.test(target)) links.push({ line, target });
    },
  });
  return links;
}

/** The anchors that a document's headings have, as GitHub makes them. */
export function anchorsOf(markdown: string): ReadonlySet<string> {
  const anchors = new Set<string>();
  scan(markdown, {
    line: (text) => {
      const heading = /^#{1,6} (.+)$/.exec(text)?.[1];
      if (heading === undefined) return;
      const plain = heading.toLowerCase().replaceAll(/[^\p{L}\p{N} _-]/gu, '');
      anchors.add(plain.trim().replaceAll(' ', '-'));
    },
  });
  return anchors;
}

/** The files that the map of the code names, in its order: entries `- name: what it is` under headings of folders. */
export function mappedFiles(markdown: string): readonly string[] {
  const files: string[] = [];
  let folder: string | undefined;
  scan(markdown, {
    line: (text) => {
      if (text.startsWith('#')) folder = /^### `(src\/[^`]*)`/.exec(text)?.[1];
      const name = /^- `([^`]+)`: \S/.exec(text)?.[1];
      if (folder !== undefined && name !== undefined) files.push(`${folder}${name}`);
    },
  });
  return files;
}

/** The words in backquotes of the last column of every table. */
export function lastColumnWords(markdown: string): readonly string[] {
  const words: string[] = [];
  scan(markdown, {
    line: (text) => {
      const cells = /^\|(.*)\|$/.exec(text)?.[1]?.split('|') ?? [];
      for (const [, word = ''] of (cells.at(-1) ?? '').matchAll(/`([^`]+)`/g)) words.push(word);
    },
  });
  return words;
}
