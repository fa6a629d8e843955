/** How a benchmark talks with the programs it starts: a command is a line of `NUMBER JSON` on stdin, its answer a line of the same on stdout. */
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import type { z } from 'zod';
import { reasonOf } from '#errors';
import type { Child } from '../proxy/stage.ts';

const ANSWER_MS_MAX = 60_000;
const STEP_MS = 5;
let last = 0;

/** Asks a child and waits for its answer. */
export async function ask<T>(child: Child, answer: z.ZodType<T>, command: object): Promise<T> {
  last += 1;
  const mark = `\n${String(last)} `;
  child.tell(`${String(last)} ${JSON.stringify(command)}`);
  const endMs = performance.now() + ANSWER_MS_MAX;
  for (;;) {
    const said = child.out();
    const at = said.lastIndexOf(mark);
    const end = at === -1 ? -1 : said.indexOf('\n', at + 1);
    if (end !== -1) return answer.parse(JSON.parse(said.slice(at + mark.length, end)));
    if (!child.running()) throw new Error(`it ended: ${child.err().slice(-2000)}`);
    if (performance.now() > endMs)
      throw new Error(`no answer to ${JSON.stringify(command).slice(0, 200)}: ${child.err().slice(-2000)}`);
    await sleep(STEP_MS);
  }
}

/** Answers commands until stdin ends. What `answer` throws ends the program. */
export function answerCommands(answer: (command: unknown) => object | Promise<object>): void {
  createInterface({ input: process.stdin }).on('line', (line) => {
    const at = line.indexOf(' ');
    void reply(line.slice(0, at), line.slice(at + 1), answer);
  });
}

async function reply(number: string, command: string, answer: (command: unknown) => object | Promise<object>): Promise<void> {
  try {
    process.stdout.write(`\n${number} ${JSON.stringify(await answer(JSON.parse(command)))}\n`);
  } catch (error) {
    process.stderr.write(`${reasonOf(error)}\n`);
    // oxlint-disable-next-line unicorn/no-process-exit -- who asked sees it end, with what it said
    process.exit(1);
  }
}

/** For programs that keep nothing: they end with stdin, whatever is open. */
export function endWithStdin(): void {
  process.stdin.on('end', () => {
    // oxlint-disable-next-line unicorn/no-process-exit -- the program's own end: its sockets stay open
    process.exit(0);
  });
}
