/** Reads where a Debian machine gets its packages from, to ask the same place for one suite more. Pure. */

interface AptSource {
  readonly suites: readonly string[];
  readonly components: readonly string[];
  readonly uris: string;
  /** All further fields (`Signed-By: …`, with continuation lines), kept as they are. */
  readonly otherFields: readonly string[];
}

export interface AptSourceFile {
  readonly name: string;
  readonly text: string;
}

/** A one-line entry's options and the deb822 fields that say the same. */
const OPTION_FIELDS: Readonly<Record<string, string>> = {
  'signed-by': 'Signed-By',
  arch: 'Architectures',
  trusted: 'Trusted',
  'check-valid-until': 'Check-Valid-Until',
};
const FIELDS_REPLACED = new Set(['types', 'uris', 'suites', 'components', 'enabled']);

function words(text: string | undefined): readonly string[] {
  return (text ?? '').split(/\s+/).filter((word) => word !== '');
}

function parseStanza(stanza: string): AptSource | undefined {
  const fields = new Map<string, string>();
  let name = '';
  for (const line of stanza.split('\n')) {
    if (line.startsWith('#') || line.trim() === '') continue;
    const found = /^([A-Za-z-]+):(.*)$/.exec(line);
    if (found?.[1] !== undefined) {
      name = found[1];
      fields.set(name.toLowerCase(), line);
    } else if (name !== '') {
      fields.set(name.toLowerCase(), `${fields.get(name.toLowerCase()) ?? ''}\n${line}`);
    }
  }
  const value = (field: string): string => (fields.get(field) ?? '').replace(/^[^:]*:/, '').trim();
  if (!words(value('types')).includes('deb') || /^(?:no|false|0|off)$/i.test(value('enabled'))) return undefined;
  return {
    suites: words(value('suites')),
    components: words(value('components')),
    uris: value('uris'),
    otherFields: [...fields].filter(([field]) => !FIELDS_REPLACED.has(field)).map(([, text]) => text),
  };
}

function parseOneLine(line: string): AptSource | undefined {
  const found = /^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]+)/.exec(line);
  if (found === null) return undefined;
  const otherFields = words(found[1]).flatMap((option) => {
    const [key = '', value = ''] = option.split('=', 2);
    const field = OPTION_FIELDS[key.toLowerCase()];
    return field === undefined ? [] : [`${field}: ${value.replaceAll(',', ' ')}`];
  });
  return { suites: [found[3] ?? ''], components: words(found[4]), uris: found[2] ?? '', otherFields };
}

function parseFile(file: AptSourceFile): readonly AptSource[] {
  const parts = file.name.endsWith('.sources')
    ? file.text.split(/\n\s*\n/).map(parseStanza)
    : file.text.split('\n').map(parseOneLine);
  return parts.filter((source) => source !== undefined);
}

/**
 * The text of a `.sources` file for the backports of release `codename`, from the same archive and with the same keys as the
 * machine's own Debian; undefined where no source of these files looks like Debian's main archive.
 */
export function backportsSource(files: readonly AptSourceFile[], codename: string): string | undefined {
  const ofRelease = files
    .flatMap(parseFile)
    // Other vendors name their suites after the release too, but only Debian's archive has it with the component main.
    .filter((source) => source.suites.includes(codename) && source.components.includes('main'));
  const chosen = ofRelease.find((source) => /\/debian(?:[/.\s]|$)/.test(source.uris)) ?? ofRelease[0];
  if (chosen === undefined) return undefined;
  const lines = [
    '# Written by ecluse: the release has a gVisor that is too old, its backports have a newer one.',
    'Types: deb',
    `URIs: ${chosen.uris}`,
    `Suites: ${codename}-backports`,
    'Components: main',
    ...chosen.otherFields,
  ];
  return `${lines.join('\n')}\n`;
}
