/** The doctor on the machine that runs the tests, which scripts/setup.sh has made fit. */
import { expect, test } from 'vitest';
import { runscDateYmd, probeRunsc } from '#isolation/runsc-probe.ts';
import { runDoctor } from '../../src/doctor.ts';
import { groundChecks, inspectSafely, machineChecks } from '../../src/doctor-checks.ts';

const options = { fix: false, quiet: true, json: false, dataDir: '/var/lib/ecluse/not/yet/there', forTests: true } as const;

test('a fit machine is told so at once', async () => {
  const lines: string[] = [];
  expect(await runDoctor(options, (line) => lines.push(line))).toBe(true);
  expect(lines.filter((line) => !line.startsWith('warning'))).toEqual([]);
});

test('every check reports, as a line and as JSON', async () => {
  const lines: string[] = [];
  await runDoctor({ ...options, quiet: false }, (line) => lines.push(line));
  const json: string[] = [];
  await runDoctor({ ...options, json: true }, (line) => json.push(line));
  expect(json).toHaveLength(1);
  const parsed: unknown = JSON.parse(json.join(''));
  const count = groundChecks.length + machineChecks(options).length;
  expect(parsed).toMatchObject({ fit: true, checks: Array.from({ length: count }, () => ({})) });
  expect(lines).toHaveLength(count);
});

test('an inspection that throws is a finding that says so', async () => {
  const finding = await inspectSafely({
    id: 'x',
    title: 'x',
    inspect: async () => {
      throw new Error('no such file');
    },
  });
  expect(finding).toMatchObject({ state: 'bad', why: 'the check itself failed: no such file' });
});

test('the installed runsc can do what migration needs', async () => {
  const runsc = await probeRunsc();
  expect(runsc).toMatchObject({ leaveRunning: true, compressionNone: true, restoreDetach: true });
  expect(runsc.dateYmd).toBe(runscDateYmd(runsc.version));
});
