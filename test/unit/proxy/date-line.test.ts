import { expect, test } from 'vitest';
import { dateLineAt } from '#proxy/date-line.ts';

const MOMENT = Date.UTC(2026, 10, 1, 8, 5, 9);

test('the line is the time of the whole second, as HTTP writes it', () => {
  expect(dateLineAt(MOMENT).toString('latin1')).toBe('Date: Sun, 01 Nov 2026 08:05:09 GMT\r\n');
  expect(dateLineAt(MOMENT + 999.9).toString('latin1')).toBe('Date: Sun, 01 Nov 2026 08:05:09 GMT\r\n');
  expect(dateLineAt(MOMENT + 1000).toString('latin1')).toBe('Date: Sun, 01 Nov 2026 08:05:10 GMT\r\n');
});

test('the line is made once a second', () => {
  expect(dateLineAt(MOMENT + 500)).toBe(dateLineAt(MOMENT));
});

test('a clock that is set back is followed', () => {
  dateLineAt(MOMENT);
  expect(dateLineAt(MOMENT - 60_000).toString('latin1')).toBe('Date: Sun, 01 Nov 2026 08:04:09 GMT\r\n');
});
