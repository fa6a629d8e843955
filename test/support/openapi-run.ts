/** Performs the scene of the OpenAPI tests at one Docker endpoint and judges what it answers. */
import type { ApiAnswer } from './docker-api.ts';
import type { OpenApi, Violation } from './openapi.ts';
import type { Scene, Speak, Step } from './openapi-scenario.ts';

export interface Findings {
  /** By `place | found`: in which versions. */
  readonly violations: ReadonlyMap<string, ReadonlySet<string>>;
  /** Answers with a status that the scene does not expect. */
  readonly wrongStatuses: readonly string[];
  /** What was asked and is served, as the documents name it. */
  readonly operations: ReadonlySet<string>;
}

/** Versions at which slow steps are done too: the oldest and newest, and where answers changed. */
const THOROUGH = new Set(['1.25', '1.30', '1.41', '1.44']);
/** Where the scene is set up and cleared; every endpoint knows it. */
const MAIN_VERSION = '1.41';

function textsOf(step: Step, answer: ApiAnswer): readonly string[] {
  if (step.method === 'HEAD' || answer.status === 304) return [''];
  if (step.lines === undefined || answer.status !== 200) return [answer.text];
  return answer.text.split('\n').filter((line) => line.trim() !== '');
}

/** Docker answers 403 to any request where an authorization plugin says no; the documents name it nowhere. What we do not allow is said like that. */
function isOwnRefusal(answer: ApiAnswer): boolean {
  return answer.status === 403 && answer.text.startsWith('{"message":"ecluse: ');
}

function judge(document: OpenApi, step: Step, answer: ApiAnswer): readonly Violation[] {
  const [path = ''] = step.path.split('?');
  const seen = { method: step.method, path, status: answer.status, contentType: answer.headers['content-type'] };
  const violations = textsOf(step, answer).flatMap((text) => [
    ...document.judge({ ...seen, text }),
    ...(typeof step.lines === 'string' && answer.status === 200 ? document.judgeAs(step.lines, text, path) : []),
  ]);
  return violations.filter(({ found }) => found !== 'status 403' || !isOwnRefusal(answer));
}

export async function perform(speak: Speak, scene: Scene, documents: ReadonlyMap<string, OpenApi>): Promise<Findings> {
  const violations = new Map<string, Set<string>>();
  const wrongStatuses: string[] = [];
  const operations = new Set<string>();
  const go = async (steps: readonly Step[], document: OpenApi): Promise<void> => {
    for (const step of steps) {
      const { method, body, headers } = step;
      const given = headers === undefined ? {} : { headers };
      const answer = await speak({ method, path: `/v${document.version}${step.path}`, body, ...given });
      step.look?.(answer);
      const place = `${step.method} /v${document.version}${step.path}`;
      if (![step.status].flat().includes(answer.status))
        wrongStatuses.push(`${place}: ${String(answer.status)} ${answer.text.trim().slice(0, 200)}`);
      const operation = document.operationOf(step.method, step.path.split('?')[0] ?? '');
      if (operation !== undefined && !answer.text.includes('page not found')) operations.add(operation);
      for (const { at, found } of judge(document, step, answer)) {
        const key = `${at} | ${found}`;
        violations.set(key, (violations.get(key) ?? new Set()).add(document.version));
      }
    }
  };
  const main = documents.get(MAIN_VERSION);
  if (main === undefined) throw new Error(`the document of API ${MAIN_VERSION} is missing`);
  await go(scene.setUp, main);
  for (const [version, document] of documents) {
    const steps = scene.everyVersion(version.replace('.', ''));
    await go(
      steps.filter(({ isSlow }) => isSlow !== true || THOROUGH.has(version)),
      document,
    );
  }
  await go(scene.once, main);
  return { violations, wrongStatuses, operations };
}
