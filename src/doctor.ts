/** `ecluse doctor`: says what the machine lacks to run a node, and mends it. Silent and quick where nothing is missing. */
import { errorLine } from '#errors';
import { groundChecks, inspectSafely, machineChecks } from './doctor-checks.ts';
import type { Check, Finding } from './doctor-checks.ts';
import { canInstallPackages, installPackages } from './doctor-packages.ts';

export interface DoctorOptions {
  readonly fix: boolean;
  /** Prints only what is not well, and what is being done. */
  readonly quiet: boolean;
  readonly json: boolean;
  readonly dataDir: string;
  /** Also what only the test suite needs. */
  readonly forTests: boolean;
}

type Write = (line: string) => void;

interface Report {
  readonly check: Check;
  readonly finding: Finding;
}

async function inspectAll(checks: readonly Check[]): Promise<readonly Report[]> {
  return await Promise.all(checks.map(async (check) => ({ check, finding: await inspectSafely(check) })));
}

function isFit(reports: readonly Report[]): boolean {
  return reports.every((report) => report.finding.state !== 'bad');
}

/** Mends what can be mended. What fails is said, and the inspection that follows has the last word. */
async function mendAll(reports: readonly Report[], say: Write): Promise<void> {
  const broken = reports.filter((report) => report.finding.state === 'bad').map((report) => report.check);
  const packages = [...new Set(broken.flatMap((check) => check.debianPackage ?? []))];
  const attempts: (() => Promise<void>)[] = broken.flatMap((check) => (check.fix === undefined ? [] : [check.fix.bind(check)]));
  if (packages.length > 0 && canInstallPackages()) attempts.unshift(async () => await installPackages(packages, say));
  for (const attempt of attempts) {
    try {
      await attempt(); // One after the other: they change the machine.
    } catch (error) {
      say(`setup: ${errorLine(error)}`);
    }
  }
}

function lineOf({ check, finding }: Report): string {
  if (finding.state === 'ok') return `ok       ${check.title}: ${finding.detail}`;
  return `${finding.state.padEnd(8)} ${check.title}: ${finding.why}; ${finding.mend}`;
}

function print(reports: readonly Report[], options: DoctorOptions, write: Write): void {
  if (options.json) {
    const checks = reports.map(({ check, finding }) => ({ id: check.id, title: check.title, ...finding }));
    write(JSON.stringify({ fit: isFit(reports), checks }));
    return;
  }
  for (const report of reports) {
    if (!options.quiet || report.finding.state !== 'ok') write(lineOf(report));
  }
}

/** Looks at everything, mends with `fix`, prints through `write`; true where a node can run. */
export async function runDoctor(options: DoctorOptions, write: Write): Promise<boolean> {
  const ground = await inspectAll(groundChecks);
  if (!isFit(ground)) {
    // Without these nothing else can be seen rightly or mended, so nothing else is said.
    print(options.json ? ground : ground.filter((report) => report.finding.state !== 'ok'), options, write);
    return false;
  }
  const say: Write = options.json ? () => undefined : write;
  const checks = machineChecks(options);
  let reports = await inspectAll(checks);
  if (options.fix && !isFit(reports)) {
    await mendAll(reports, say);
    reports = await inspectAll(checks);
  }
  const all = [...ground, ...reports];
  print(all, options, write);
  return isFit(all);
}
