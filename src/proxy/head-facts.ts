/** What routes ask of a request besides its host and path, from the head that its record holds. Others never come here: it costs a string or more. */
import type { RequestFacts } from '#routing/route-conditions.ts';
import type { ExchangeRecord } from './record.ts';

export class HeadFacts implements RequestFacts {
  readonly #record: Pick<ExchangeRecord, 'head' | 'headBytes' | 'methodEnd'>;

  constructor(record: Pick<ExchangeRecord, 'head' | 'headBytes' | 'methodEnd'>) {
    this.#record = record;
  }

  requestMethod(): string {
    return this.#record.head.toString('latin1', 0, this.#record.methodEnd);
  }

  requestField(name: string): string | undefined {
    const { head, headBytes } = this.#record;
    const values: string[] = [];
    for (const line of head.toString('latin1', 0, headBytes).split('\r\n').slice(1)) {
      const colon = line.indexOf(':');
      if (colon === name.length && line.slice(0, colon).toLowerCase() === name)
        values.push(line.slice(colon + 1).replaceAll(/^[ \t]+|[ \t]+$/g, ''));
    }
    return values.length === 0 ? undefined : values.join(', ');
  }
}
