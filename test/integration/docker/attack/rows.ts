/** The rows of the danger table of the Docker API, and the rules of its wire: what the attack suite has to attack. */

export const ROWS = {
  'wire: versions': 'negotiation, paths without a version, versions too old and too new',
  'wire: errors': 'JSON `{"message"}` with a status, `page not found`, exact phrases',
  'wire: streams': 'attach, exec, logs and websockets as raw connections',
  'raw bodies': 'keys in any spelling, duplicates, queries, forms and paths that another parser reads differently',
  'API downgrade': 'a HostConfig in the body of start, old shapes of requests',
  checkpoints: 'paths of the host in checkpoint requests',
  top: 'host processes through ps_args',
  'filters of bytes': 'bodies that a filter does not see: empty by their length, too large, at the end',
  'classic build': 'host network, cgroups, remote contexts, other tenants’ images',
  BuildKit: '/session, /grpc, h2c, version 2',
  binds: 'host paths, and the socket of another tenant',
  'volume drivers': 'options that mount the host',
  'namespaces of others': 'VolumesFrom, container:ID in any mode',
  'host network': 'NetworkMode host in any place',
  privileges: 'privileged, capabilities, devices, security options, sysctls',
  placement: 'runtime, cgroup parent, OOM score, log drivers, storage, isolation',
  ports: 'ports of the host and of other tenants',
  'links and names': 'links, extra hosts and resolvers of others',
  'addresses and drivers': 'MACs, addresses, drivers and options of networks',
  'names and prefixes': 'collisions, ids and prefixes of ids of others',
  labels: 'ownership by label',
  filters: 'filters that reach others',
  images: 'list, tag, delete, run, save and inspect what others hold',
  'image load': 'archives that name what others hold',
  'whole-engine answers': 'prune, df, info, events, sizes and stats of others',
  registries: 'auth, distribution and search as a way into the node’s network',
  'not routed': 'plugins, swarm, debug',
  exec: 'sessions of others, privileged sessions',
  archive: 'paths, links and devices in copies',
  'inspect output': 'host paths, process ids and engine ids in answers',
  'slow readers': 'floods of streams and readers that do not read',
  'virtual ids': 'ids of the engine, and names that only the engine knows',
} as const;

export type Row = keyof typeof ROWS;

export const CASES_A_ROW_MIN = 3;
