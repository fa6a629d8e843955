/** Where the published documents are wrong about what Docker answers. Each entry must be needed by us, and be seen in a plain dockerd's answers. */

export interface Deviation {
  /** Places in the schemas, as `OpenApi` names them. */
  readonly at: readonly string[];
  readonly found: string;
  readonly reason: string;
}

export const DEVIATIONS: readonly Deviation[] = [
  {
    found: 'null',
    reason: 'Go writes a nil slice or map as null; the documents call these fields arrays and objects',
    at: [
      ...['Cmd', 'Entrypoint', 'Env', 'Labels', 'OnBuild', 'Volumes'].flatMap((name) => [
        `Config.${name}`,
        `ContainerConfig.${name}`,
      ]),
      'EndpointSettings.Aliases',
      'EndpointSettings.Links',
      'GET /containers/{id}/changes 200',
      'GET /containers/{id}/json 200.ExecIDs',
      'GET /volumes 200.Warnings',
      ...['Binds', 'CapAdd', 'CapDrop', 'DnsOptions', 'DnsSearch', 'ExtraHosts', 'GroupAdd', 'SecurityOpt', 'VolumesFrom'].map(
        (name) => `HostConfig.${name}`,
      ),
      'IPAM.Options',
      'ImageSummary.RepoDigests',
      'PluginsInfo.Authorization',
      'PortMap.*',
      'POST /build/prune 200.CachesDeleted',
      'POST /containers/prune 200.ContainersDeleted',
      'POST /containers/{id}/update 200.Warnings',
      'POST /images/prune 200.ImagesDeleted',
      'POST /networks/prune 200.NetworksDeleted',
      'Resources.Ulimits',
      'SystemInfo.Warnings',
      'Volume.Labels',
      'Volume.Options',
      'VolumeListResponse.Warnings',
    ],
  },
  {
    found: 'null',
    reason: 'Go writes a nil pointer as null: there is no error, no code yet, no limit',
    at: [
      'ContainerWaitExitError',
      'EndpointSettings.IPAMConfig',
      'GET /exec/{id}/json 200.ExitCode',
      'POST /containers/{id}/wait 200.Error',
      'Resources.PidsLimit',
    ],
  },
  { found: 'object', reason: 'the documents have one array too many around the items of the list', at: ['ContainerSummary'] },
  { found: 'object', reason: 'a map of options, which the documents call an array of maps until 1.39', at: ['IPAM.Options'] },
  {
    found: 'object',
    reason: 'the ports by container port, which the documents call an array until 1.32',
    at: ['NetworkConfig.Ports'],
  },
  { found: 'array', reason: 'a port has several bindings; the documents know one until 1.35', at: ['HostConfig.PortBindings.*'] },
  {
    found: 'array',
    reason: 'the sessions, which the documents call a text until 1.38',
    at: ['GET /containers/{id}/json 200.ExecIDs'],
  },
  {
    found: 'empty',
    reason: 'Go writes an enumeration that is not set as an empty text',
    at: ['HostConfig.Isolation', 'RestartPolicy.Name'],
  },
  {
    found: 'no JSON: ',
    reason: '304 has no body in HTTP; the documents give it an error’s until 1.39',
    at: ['POST /containers/{id}/start', 'POST /containers/{id}/stop'],
  },
  { found: 'type ', reason: 'before 1.42 the stream of logs had no type', at: ['GET /containers/{id}/logs'] },
  {
    found: 'status 400',
    reason: 'requests that are wrong in themselves; the documents do not name the status',
    at: ['POST /build', 'POST /containers/{id}/exec', 'POST /volumes/prune'],
  },
  {
    found: 'status 403',
    reason: 'predefined networks stay; the documents do not say so until 1.30',
    at: ['DELETE /networks/{id}'],
  },
  {
    found: 'status 409',
    reason: 'what cannot be done in this state, or has that name already; the documents do not name the status',
    at: ['DELETE /containers/{id}', 'POST /containers/{id}/kill', 'POST /containers/{id}/pause', 'POST /networks/create'],
  },
  {
    found: 'status 503',
    reason: 'not a swarm manager; documented since 1.27',
    at: ['GET /nodes', 'GET /secrets', 'GET /services', 'GET /swarm', 'GET /tasks'],
  },
  {
    found: 'undocumented',
    reason: 'served at every version, documented later',
    at: ['GET /configs', 'GET /distribution/127.0.0.1:1/none:1/json', 'HEAD /_ping', 'POST /build/prune'],
  },
];
