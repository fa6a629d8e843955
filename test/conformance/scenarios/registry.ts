/** Registries: where there is none, and one on loopback. */
import type { Scenario } from '../../support/transcript.ts';

export const registryScenarios: readonly Scenario[] = [
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
  {
    name: 'a registry on loopback',
    steps: [
      'tag bb %registry%/shop/web:1',
      'push %registry%/shop/web:1',
      { command: 'login -u tester --password-stdin %registry%', input: 'wrong' },
      { command: 'login -u tester --password-stdin %registry%', input: 'open sesame' },
      'push %registry%/shop/web:1',
      'push %registry%/shop/web:1',
      'push %registry%/shop/web:absent',
      'images --digests --format "{{.Repository}}:{{.Tag}} {{.Digest}} {{.ID}}" %registry%/shop/web',
      { command: 'inspect --format "{{index .RepoDigests 0}}" %registry%/shop/web:1', capture: 'digest' },
      'tag bb %registry%/shop/web:2',
      'push --all-tags %registry%/shop/web',
      'rmi %registry%/shop/web:1 %registry%/shop/web:2',
      'pull %registry%/shop/web:1',
      'pull -q %registry%/shop/web:1',
      'pull %registry%/shop/web:nothing',
      'pull %registry%/shop/nothing',
      'run --rm %registry%/shop/web:1 echo from the registry',
      'rmi %registry%/shop/web:1',
      'pull %digest%',
      'images --digests --format "{{.Repository}}:{{.Tag}} {{.Digest}} {{.ID}}" %registry%/shop/web',
      'rmi %digest%',
      { command: 'pull --all-tags %registry%/shop/web', stdout: 'any order' },
      { command: 'images --format "{{.Repository}}:{{.Tag}}" %registry%/shop/web', stdout: 'any order' },
      'rmi %registry%/shop/web:1 %registry%/shop/web:2',
      'run --rm %registry%/shop/web:2 echo pulled by run',
      { command: 'build --pull -', input: 'FROM %registry%/shop/web:1\nRUN echo built on it\n' },
      'run --rm --pull always %registry%/shop/web:1 echo always',
      'run --rm --pull never %registry%/shop/other echo never',
      'run --name changed %registry%/shop/web:1 sh -c "echo new > /new"',
      'commit changed %registry%/shop/layers:1',
      {
        command: 'push %registry%/shop/layers:1',
        differs: {
          reason: 'what an engine remembers of other repositories is not for its tenants to use: layers are not mounted across',
          stdout:
            /^The push refers to repository \[127\.0\.0\.1:<port1>\/shop\/layers\]\n(?:<id\d+:12>: (?:Preparing|Pushed)\n){4}1: digest: sha256:<id\d+> size: \d+\n$/,
        },
      },
      'rm changed',
      'rmi %registry%/shop/layers:1',
      // Whether the client hears of it depends on how long it takes.
      {
        command: 'pull %registry%/shop/layers:1',
        hide: [[/^.*: Verifying Checksum\n/gm, '']],
        differs: {
          reason: 'that a layer exists already would say that some tenant has it',
          stdout:
            /^1: Pulling from shop\/layers\n(?:<id\d+:12>: (?:Pulling fs layer|Download complete|Pull complete)\n){4}Digest: sha256:<id\d+>\nStatus: Downloaded newer image for (?<name>127\.0\.0\.1:<port1>\/shop\/layers:1)\n\k<name>\n$/,
        },
      },
      'run --rm %registry%/shop/layers:1 cat /new',
      'logout %registry%',
      'pull %registry%/shop/web:1',
    ],
  },
];
