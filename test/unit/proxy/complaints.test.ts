import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Complaints } from '#proxy/complaints.ts';

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['performance'] });
});

afterEach(() => {
  vi.useRealTimers();
});

test('what fails again and again is said once in ten seconds, each by itself', () => {
  const complaints = new Complaints();
  const said: string[] = [];
  const complain = (about: string): void => {
    complaints.of(about, () => said.push(`${about} ${String(performance.now())}`));
  };
  complain('one');
  complain('one');
  complain('other');
  vi.advanceTimersByTime(9_999);
  complain('one');
  expect(said).toEqual(['one 0', 'other 0']);
  vi.advanceTimersByTime(1);
  complain('one');
  expect(said).toEqual(['one 0', 'other 0', 'one 10000']);
});
