import { describe, expect, test } from 'vitest';
import { parseCounters, wasReset } from '#isolation/sandbox-connections.ts';

/** As runsc 20240729 prints it. */
const TEXT = `# Command-line export for sandbox a (filtered using regular expression: "netstack_tcp_(current_open|resets_sent)$")
# Writing data from snapshot containing 2 data points taken at 2026-11-30 08:48:36.856245035 +0000 UTC.

# HELP runsc_netstack_tcp_current_open Number of connections that are in connected state.
# TYPE runsc_netstack_tcp_current_open gauge
runsc_netstack_tcp_current_open{iteration="2798j3xonybm8",sandbox="a"} 5 1796028516790
# TYPE runsc_netstack_tcp_resets_sent counter
runsc_netstack_tcp_resets_sent{iteration="2798j3xonybm8",sandbox="a"} 12 1796028516790

# End of metric data.
`;

describe('parseCounters()', () => {
  test('reads both, and takes what is not there for a counter that never moved', () => {
    expect(parseCounters(TEXT)).toEqual({ open: 5, resets: 12 });
    expect(parseCounters(TEXT.replaceAll(/^runsc_netstack_tcp_resets_sent.*\n/gm, ''))).toEqual({ open: 5, resets: 0 });
    expect(parseCounters('# End of metric data.\n')).toEqual({ open: 0, resets: 0 });
  });

  test.each(['', 'no such command', TEXT.slice(0, 400)])('takes no other text for numbers: %j', (text) => {
    expect(parseCounters(text)).toBeUndefined();
  });
});

describe('wasReset()', () => {
  test.each([
    [{ open: 0, resets: 3 }, { open: 0, resets: 3 }, false],
    [{ open: 7, resets: 3 }, { open: 0, resets: 3 }, false], // They were closed in order.
    [{ open: 0, resets: 3 }, { open: 1, resets: 3 }, false],
    [{ open: 7, resets: 3 }, { open: 0, resets: 4 }, true],
    [undefined, { open: 0, resets: 0 }, true],
    [{ open: 0, resets: 0 }, undefined, true],
  ])('before %j, during %j: %s', (before, during, expected) => {
    expect(wasReset(before, during)).toBe(expected);
  });
});
