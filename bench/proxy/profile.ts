/** Where a worker of Écluse spends its time: V8's sampling profiler, attached through the inspector for the measured seconds only. */
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';

export interface ProfiledFunction {
  readonly name: string;
  readonly where: string;
  readonly selfUs: number;
  readonly share: number;
}

const SAMPLING_US = 200;

const CPU_PROFILE = z.object({
  nodes: z.array(
    z.object({ id: z.int(), callFrame: z.object({ functionName: z.string(), url: z.string(), lineNumber: z.int() }) }),
  ),
  samples: z.array(z.int()),
  timeDeltas: z.array(z.int()),
});
const ANSWER = z.object({
  id: z.int().optional(),
  result: z.object({ profile: CPU_PROFILE.optional() }).optional(),
  error: z.object({ message: z.string() }).optional(),
});
type Answer = z.infer<typeof ANSWER>;

/** Profiles for `ms`. `said`: what the worker wrote to stderr, where Node tells the address of its inspector. */
export async function profileFor(said: string, ms: number): Promise<ProfiledFunction[]> {
  const address = [...said.matchAll(/Debugger listening on (ws:\/\/\S+)/g)].at(-1)?.[1];
  if (address === undefined) throw new Error('the worker opened no inspector');
  const socket = new WebSocket(address);
  const waiting = new Map<number, (answer: Answer) => void>();
  socket.addEventListener('message', (event) => {
    const answer = ANSWER.parse(JSON.parse(String(event.data)));
    if (answer.id !== undefined) waiting.get(answer.id)?.(answer);
  });
  await new Promise((resolve, reject) => {
    socket.addEventListener('open', resolve);
    socket.addEventListener('error', () => {
      reject(new Error('the inspector cannot be reached'));
    });
  });
  let seq = 0;
  const ask = async (method: string, params: object = {}): Promise<Answer> => {
    seq += 1;
    const answered = new Promise<Answer>((resolve) => waiting.set(seq, resolve));
    socket.send(JSON.stringify({ id: seq, method, params }));
    return await answered;
  };
  await ask('Profiler.enable');
  await ask('Profiler.setSamplingInterval', { interval: SAMPLING_US });
  await ask('Profiler.start');
  await sleep(ms);
  const { result, error } = await ask('Profiler.stop');
  socket.close();
  if (result?.profile === undefined) throw new Error(`no profile: ${error?.message ?? 'no reason given'}`);
  return selfTimes(result.profile);
}

function selfTimes({ nodes, samples, timeDeltas }: z.infer<typeof CPU_PROFILE>): ProfiledFunction[] {
  const frames = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]));
  const byFunction = new Map<string, { name: string; where: string; selfUs: number }>();
  let totalUs = 0;
  for (const [index, id] of samples.entries()) {
    const frame = frames.get(id);
    // A delta is the time before its sample: the sample before it was running.
    const selfUs = timeDeltas[index + 1] ?? 0;
    if (frame === undefined || frame.functionName === '(idle)') continue;
    totalUs += selfUs;
    const where = frame.url === '' ? '' : `${shortened(frame.url)}:${String(frame.lineNumber + 1)}`;
    const key = `${frame.functionName} ${where}`;
    const found = byFunction.get(key);
    if (found === undefined)
      byFunction.set(key, { name: frame.functionName === '' ? '(anonymous)' : frame.functionName, where, selfUs });
    else found.selfUs += selfUs;
  }
  return [...byFunction.values()]
    .map((one) => ({ ...one, share: one.selfUs / totalUs }))
    .toSorted((one, other) => other.selfUs - one.selfUs);
}

function shortened(url: string): string {
  const at = url.lastIndexOf('/src/');
  return at === -1 ? url.replace(/^.*\/node_modules\//, '') : url.slice(at + 1);
}

export function profileTable(functions: readonly ProfiledFunction[], operations: number, count: number): string {
  const rows = functions
    .slice(0, count)
    .map(
      ({ name, where, selfUs, share }) =>
        `| ${(100 * share).toFixed(1)} % | ${(selfUs / operations).toFixed(2)} | ${name} | ${where} |`,
    );
  return ['| self | µs per request | function | where |', '| --- | --- | --- | --- |', ...rows].join('\n');
}
