import { expect, test } from 'vitest';
import { runscDateYmd } from '#isolation/runsc-probe.ts';
import { backportsSource } from '../../src/doctor-sources.ts';

const sources = (text: string, name = 'debian.sources'): { name: string; text: string } => ({ name, text });

test("copies the archive and the keys of the machine's own Debian", () => {
  const text = `Types: deb
# a comment
URIs: http://mirror.internal/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/own.gpg

Types: deb
URIs: http://mirror.internal/debian-security
Suites: bookworm-security
Components: main
`;
  expect(
    backportsSource([sources(text)], 'bookworm')
      ?.split('\n')
      .slice(1),
  ).toEqual([
    'Types: deb',
    'URIs: http://mirror.internal/debian',
    'Suites: bookworm-backports',
    'Components: main',
    'Signed-By: /usr/share/keyrings/own.gpg',
    '',
  ]);
});

test('keeps an embedded key and further fields of a stanza', () => {
  const text = `Types: deb deb-src\nURIs: mirror+file:///etc/apt/mirrors/debian.list\nSuites: bookworm\nComponents: main\nCheck-Valid-Until: no\nSigned-By:\n -----BEGIN PGP\n .\n AAAA\n`;
  const made = backportsSource([sources(text)], 'bookworm');
  expect(made).toContain('URIs: mirror+file:///etc/apt/mirrors/debian.list\n');
  expect(made).toContain('Check-Valid-Until: no\nSigned-By:\n -----BEGIN PGP\n .\n AAAA\n');
  expect(made).toContain('Types: deb\n');
});

test('reads one-line sources with options, and skips other vendors of the same suite name', () => {
  const text = `# deb http://off.internal/debian bookworm main
deb [arch=amd64 signed-by=/k/docker.asc] https://docker.internal/linux/debian bookworm stable
deb [signed-by=/k/other.gpg] https://other.internal/packages bookworm main
deb-src http://mirror.internal/debian bookworm main
deb [arch=amd64,arm64 signed-by=/k/debian.gpg] http://mirror.internal/debian/ bookworm main contrib # ours
deb http://mirror.internal/debian/ bookworm-updates main
`;
  const made = backportsSource([sources(text, 'sources.list')], 'bookworm');
  expect(made).toContain('URIs: http://mirror.internal/debian/\nSuites: bookworm-backports\nComponents: main\n');
  expect(made).toContain('Architectures: amd64 arm64\nSigned-By: /k/debian.gpg\n');
});

test('prefers a snapshot of Debian over a vendor, and gives up where no source is of the release', () => {
  const vendor = sources('deb http://vendor.internal/packages bookworm main\n', 'a.list');
  const snapshot = sources('deb http://snap.internal/archive/debian/20250520T000000Z bookworm main\n', 'b.list');
  expect(backportsSource([vendor, snapshot], 'bookworm')).toContain(
    'URIs: http://snap.internal/archive/debian/20250520T000000Z\n',
  );
  const disabled = sources('Types: deb\nEnabled: no\nURIs: http://x/debian\nSuites: bookworm\nComponents: main\n');
  expect(backportsSource([disabled], 'bookworm')).toBeUndefined();
  expect(backportsSource([vendor], 'trixie')).toBeUndefined();
  expect(backportsSource([], 'bookworm')).toBeUndefined();
});

test.each([
  ['release-20240729.0', 20240729],
  ['0.0~20240729.0', 20240729],
  ['0.0~20221219.0-2+b3', 20221219],
  ['release-20260803.0-12-gdeadbeef', 20260803],
  ['VERSION_MISSING', undefined],
  ['1202407290', undefined],
])('the day of runsc %s is %s', (version, ymd) => {
  expect(runscDateYmd(version)).toBe(ymd);
});
