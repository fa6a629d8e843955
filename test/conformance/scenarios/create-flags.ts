/** What `docker create` and `docker run` take, and what inspect says of it. */
import type { Difference, Scenario } from '../../support/transcript.ts';

const HOST_ACCESS = 'containers of a tenant have no access to the host';

export const createFlagScenarios: readonly Scenario[] = [
  {
    name: 'flags that a program sees',
    files: { 'env.txt': '# a comment\nFROM_FILE=1\nEMPTY=\n', 'labels.txt': 'from=file\n' },
    steps: [
      'run --rm -e A=b -e EMPTY= --env-file env.txt bb sh -c "echo $A-$EMPTY-$FROM_FILE-$HOME"',
      'run --rm -w /made/here bb pwd',
      'run --rm -u 1000:1001 bb id -u',
      'run --rm -u 1000:1001 bb id -g',
      'run --rm -u nobody bb id',
      'run --rm --hostname h1 bb hostname',
      'run --rm --hostname h1 --domainname d1 bb hostname -f',
      'run --rm --entrypoint echo bb from entrypoint',
      'run --rm --entrypoint "" bb echo none',
      'run --rm --read-only bb touch /x',
      'run --rm --tmpfs /scratch:size=1m,mode=700 bb stat -c %a /scratch',
      'run --rm --add-host one:192.0.2.1 bb grep 192.0.2.1 /etc/hosts',
      'run --rm --group-add 42 -u 1 bb id -G',
      'run --rm --ulimit nofile=100:200 bb sh -c "ulimit -n"',
      'run --rm --init bb sh -c "cat /proc/1/comm"',
      'run --rm --stop-signal 9 bb echo ok',
      'run --rm --cap-drop ALL bb chown 1 /tmp',
      'run --rm -l x=y bb true',
    ],
  },
  {
    name: 'flags that inspect shows',
    files: { 'env.txt': 'FROM_FILE=1\n', 'labels.txt': 'from=file\n' },
    steps: [
      'create --name c1 -e A=b --env-file env.txt -l x=y --label-file labels.txt -w /w -u 7 --hostname h --domainname d --entrypoint "" --stop-signal TERM --stop-timeout 3 --expose 80 --expose 90/udp -i -t bb sh -c ls',
      'inspect --format "{{json .Config}}" c1',
      'inspect --format "{{.Path}} {{json .Args}} {{.Platform}} {{.Driver}}" c1',
      'inspect --format "{{json .State}}" c1',
      'create --name c2 -m 64m --memory-swap 128m --memory-reservation 32m --cpus 0.5 --cpu-shares 512 --pids-limit 40 --shm-size 1m --ulimit nofile=10:20 --init --read-only --cap-drop MKNOD --security-opt no-new-privileges --dns-search example.test --dns-option ndots:2 --add-host one:192.0.2.1 --group-add 42 --restart on-failure:3 --tmpfs /t:size=1m --log-opt max-size=1m --rm=false bb true',
      'inspect --format "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.MemoryReservation}} {{.HostConfig.NanoCpus}} {{.HostConfig.CpuShares}} {{.HostConfig.PidsLimit}}" c2',
      'inspect --format "{{.HostConfig.ShmSize}} {{json .HostConfig.Ulimits}} {{.HostConfig.Init}} {{.HostConfig.ReadonlyRootfs}} {{json .HostConfig.CapDrop}}" c2',
      'inspect --format "{{json .HostConfig.SecurityOpt}} {{json .HostConfig.DnsSearch}} {{json .HostConfig.DnsOptions}} {{json .HostConfig.ExtraHosts}}" c2',
      'inspect --format "{{json .HostConfig.GroupAdd}} {{json .HostConfig.RestartPolicy}} {{json .HostConfig.Tmpfs}} {{.HostConfig.AutoRemove}}" c2',
      'inspect --format "{{.HostConfig.Privileged}} {{.HostConfig.PublishAllPorts}} {{json .HostConfig.Binds}} {{json .HostConfig.VolumesFrom}} {{json .HostConfig.CapAdd}} {{json .HostConfig.Links}}" c2',
      'inspect --format "{{.HostConfig.IpcMode}} {{.HostConfig.PidMode}} {{.HostConfig.UTSMode}} {{.HostConfig.UsernsMode}} {{.HostConfig.NetworkMode}}" c2',
      'inspect --format "{{.HostConfig.LogConfig.Type}}" c2',
      'create --name c3 --cidfile cid.txt bb true',
      { command: 'create --name c4 --cidfile cid.txt bb true' },
      'inspect --format "{{json .Config.Cmd}} {{json .Config.Env}} {{json .Config.Labels}} {{json .Config.Volumes}} {{.Config.Image}}" c3',
      'inspect --format "{{json .Mounts}} {{json .NetworkSettings.Ports}}" c3',
    ],
  },
  {
    name: 'values that are refused',
    steps: [
      'create -m 64m --memory-swap 32m bb true',
      'create --cpus 1000 bb true',
      'create --pids-limit nonsense bb true',
      'create --shm-size 0x bb true',
      'create -w relative bb true',
      'create --ulimit bogus=1 bb true',
      'create --stop-signal BOGUS bb true',
      'create --cap-add BOGUS bb true',
      'create --security-opt bogus bb true',
      'create --log-opt bogus=1 bb true',
      'create --tmpfs relative bb true',
      'create --mount type=bogus,target=/x bb true',
      'create --mount type=volume bb true',
      'create -v relative:/x/../y:bogus bb true',
      'create -v vol:relative bb true',
      'create -p 99999:80 bb true',
      'create -p 80:80:80:80 bb true',
      'create --name "" BAD/Image:Ref:x true',
      'create --volumes-from nothing bb true',
      'create --link nothing:x bb true',
      'create --network nothing --name early bb true',
      'start early',
      'create --no-such-flag bb true',
      'create',
      'ps -a --format "{{.Image}} {{.Status}}"',
    ],
  },
  {
    name: 'what a sandbox has not',
    steps: [
      { command: 'create --privileged bb true', differs: refused(HOST_ACCESS, /[Pp]rivileged/) },
      { command: 'create -v /etc:/host bb true', differs: refused(HOST_ACCESS, /host paths cannot be mounted/) },
      {
        command: 'create --mount type=bind,source=/etc,target=/host bb true',
        differs: refused(HOST_ACCESS, /host paths cannot be mounted/),
      },
      { command: 'create --network host bb true', differs: refused(HOST_ACCESS, /NetworkMode.*host/) },
      { command: 'create --pid host bb true', differs: refused(HOST_ACCESS, /PidMode/) },
      { command: 'create --device /dev/null bb true', differs: refused(HOST_ACCESS, /Devices/) },
      {
        command: 'create --network container:nothing bb true',
        differs: refused('a sandbox has a network of its own', /NetworkMode/),
      },
      { command: 'create --runtime runc bb true', differs: refused('there is one runtime', /Runtime/) },
      { command: 'create --dns 192.0.2.53 bb true', differs: refused('names are answered by the node', /Dns/) },
      { command: 'create --log-driver none bb true', differs: refused('logs move with containers', /json-file/) },
      {
        command: 'create -m 6m bb true',
        differs: refused('a sandbox needs room for its own kernel', /Minimum memory limit allowed is 64MB/),
      },
      { command: 'create --hostname "bad host" bb true', differs: refused('it is a name in the tenant’s networks', /Hostname/) },
    ],
  },
];

/** What Écluse refuses, with its reason. */
function refused(reason: string, words: RegExp): Difference {
  return { reason, exitCode: 1, stdout: '', stderr: new RegExp(`^Error response from daemon: ecluse: .*(?:${words.source})`) };
}
