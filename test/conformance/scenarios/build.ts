/** docker build with the classic builder. */
import type { Scenario } from '../../support/transcript.ts';

export const buildScenarios: readonly Scenario[] = [
  {
    name: 'build',
    files: {
      Dockerfile:
        'FROM bb\nARG WHO=nobody\nENV A=b\nLABEL x=y\nWORKDIR /w\nCOPY f.txt .\nRUN echo "$WHO" > who && cat f.txt\nEXPOSE 80\nCMD cat who f.txt\n',
      'f.txt': 'a file\n',
      '.dockerignore': 'ignored\n',
      ignored: 'x\n',
    },
    steps: [
      'build -t built:1 .',
      'run --rm built:1',
      'build -t built:1 .',
      'build -q -t built:2 --build-arg WHO=somebody .',
      'run --rm built:2',
      'build --no-cache --label l=m -t built:3 -t also:3 .',
      'inspect --format "{{json .Config.Labels}} {{json .Config.Env}} {{.Config.WorkingDir}} {{json .Config.ExposedPorts}} {{json .Config.Cmd}}" built:3',
      'build --build-arg NOBODY_ASKED=1 -t built:4 .',
      'history --format "{{.CreatedBy}} {{.Size}}" built:1',
      { command: 'images built --format "{{.Repository}}:{{.Tag}} {{.Size}}"', stdout: 'any order' },
      'images also',
      { command: 'images --filter label=x --format "{{.Repository}}:{{.Tag}}"', stdout: 'any order' },
    ],
  },
  {
    name: 'build with stages, ADD and other files',
    files: {
      'dir/a.txt': 'a\n',
      'dir/b.txt': 'b\n',
      'multi/Dockerfile':
        'FROM bb AS first\nRUN echo first > /first\nFROM first AS second\nRUN echo second > /second\nFROM bb\nCOPY --from=second /second /\nADD dir /dir\nCOPY --chown=5:6 dir/a.txt /owned\n',
      'scratch/Dockerfile': 'FROM scratch\nCOPY dir /\n',
      'meta/Dockerfile':
        'FROM bb\nUSER 5\nVOLUME /data\nENTRYPOINT ["echo"]\nCMD ["default"]\nSTOPSIGNAL KILL\nHEALTHCHECK --interval=1m CMD true\nSHELL ["sh", "-ec"]\nONBUILD RUN true\nMAINTAINER someone\n',
    },
    steps: [
      'build -f multi/Dockerfile -t multi:1 .',
      'run --rm multi:1 sh -c "cat /second /dir/a.txt /dir/b.txt; ls /first; stat -c %u:%g /owned"',
      'build -f multi/Dockerfile --target first -t multi:first .',
      'run --rm multi:first ls /first /second',
      'build -f multi/Dockerfile --target nothing .',
      'build -f scratch/Dockerfile -t scratched:1 .',
      'create --name sss scratched:1 x',
      { command: 'cp sss:/a.txt a.txt', writes: 'a.txt' },
      'build -f meta/Dockerfile -t meta:1 .',
      'run --rm meta:1',
      'run --rm meta:1 other words',
      'inspect --format "{{json .Config}}" meta:1',
      'inspect --format "{{.Author}} {{.Os}}" meta:1',
    ],
  },
  {
    name: 'build from standard input',
    steps: [
      { command: 'build -t piped:1 -', input: 'FROM bb\nRUN echo piped > /p\n' },
      'run --rm piped:1 cat /p',
      { command: 'build -', input: 'FROM bb\nRUN exit 3\n' },
      { command: 'build -q -', input: 'FROM bb\nRUN exit 4\n' },
      { command: 'build -', input: 'FROM bb\nCOPY nothing /\n' },
      { command: 'build -', input: 'NONSENSE\n' },
      { command: 'build -', input: '' },
      { command: 'build -', input: 'FROM 127.0.0.1:1/nothing\n' },
      { command: 'build --force-rm -', input: 'FROM bb\nRUN echo err >&2; false\n' },
      'ps -a -q --filter label=none',
      { command: 'build --rm=false -', input: 'FROM bb\nRUN echo kept\n' },
      { command: 'build -t BAD:REF:x -', input: 'FROM bb\n' },
      'build nothing-here',
      'build -f missing .',
      {
        command: 'build --memory 64m --shm-size 1m --ulimit nofile=50:50 --add-host one:192.0.2.1 -',
        input: 'FROM bb\nRUN ulimit -n; grep 192.0.2.1 /etc/hosts\n',
      },
      { command: 'build --network none -', input: 'FROM bb\nRUN ip -o link | wc -l\n' },
      { command: 'build --cache-from nothing:1 -', input: 'FROM bb\nRUN echo cached\n' },
      { command: 'build --pull -', input: 'FROM 127.0.0.1:1/bb\n' },
      'builder prune -f',
      {
        command: 'build --network bogus -',
        input: 'FROM bb\nRUN true\n',
        differs: {
          reason: 'a build reaches the outside, not the containers of a network, and is told so before its first step',
          stdout: /^Sending build context to Docker daemon {2}2\.048kB\s*$/,
          stderr: /^Error response from daemon: ecluse: networkmode bogus: a build reaches the outside/m,
        },
      },
    ],
  },
];
