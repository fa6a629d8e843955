/** Registries: where there is none, and one on loopback. */
import type { Scenario } from '../../support/transcript.ts';

export const registryErrorScenarios: readonly Scenario[] = [
  {
    name: 'registries that do not answer',
    steps: [
      'pull 127.0.0.1:1/nothing',
      'pull -a 127.0.0.1:1/nothing',
      'pull BAD:ref:x',
      'tag bb 127.0.0.1:1/nothing:1',
      'push 127.0.0.1:1/nothing:1',
      'push 127.0.0.1:1/never:1',
      'push nothing-local/x:1',
      { command: 'login -u someone --password-stdin 127.0.0.1:1', input: 'secret' },
      'logout 127.0.0.1:1',
      'search 127.0.0.1:1/x',
      'search --limit 1000 x',
      'manifest inspect 127.0.0.1:1/x',
    ],
  },
];
