/** Configuration texts of the origin and of the peers that are configured by files. Pure. */

/** What every proxy of a scene is told. */
export interface ProxySpec {
  readonly directory: string;
  readonly httpPort: number;
  readonly httpsPort: number;
  readonly certFile: string;
  readonly keyFile: string;
  /** Certificate and key in one file. */
  readonly pemFile: string;
  /** Undefined: no access log. */
  readonly accessLog: string | undefined;
  readonly hosts: readonly string[];
  readonly workers: number;
  /** Ports of the origin; one endpoint each. */
  readonly endpointPorts: readonly number[];
  readonly websocketPort: number;
  /** Whether nginx and HAProxy take TLS 1.2 as well. */
  readonly tls12?: boolean;
}

/** The host that is asked for. It resolves everywhere, so that the server name of TLS needs no change to the machine. */
export const BENCH_HOST = 'localhost';
/** Of nginx, which counts those to its origin as well. */
const NGINX_CONNECTIONS_MAX = 30_000;

/** The bench host and others, as a table of many tenants would have them. */
export function hostNames(count: number): string[] {
  return [BENCH_HOST, ...Array.from({ length: count - 1 }, (_, index) => `app-${String(index)}.customers.example`)];
}

export function originConfig(directory: string, ports: readonly number[]): string {
  return `daemon off; master_process off; worker_processes 1;
pid ${directory}/origin.pid; error_log ${directory}/origin.err warn;
events { worker_connections ${String(NGINX_CONNECTIONS_MAX)}; }
http {
  access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_timeout 300s; keepalive_requests 1000000000;
  open_file_cache max=10 inactive=600s; client_max_body_size 10m; client_body_buffer_size 128k; default_type text/plain;
${temporaryPaths(directory, 'o')}
  server {
    ${ports.map((port) => `listen 127.0.0.1:${String(port)} backlog=4096;`).join(' ')}
    location / { return 200 "${'a'.repeat(200)}"; }
    location = /16k { root ${directory}; }
    location = /1m { root ${directory}; }
    location = /post { return 200 "ok\\n"; }
    location = /echo { return 200 "$http_host|$http_x_forwarded_for|$http_x_forwarded_proto"; }
    location = /origin-status { stub_status; }
  }
}
`;
}

const NGINX_LOG_FIELDS = {
  time: '"$time_iso8601"',
  requestId: '"$request_id"',
  traceId: '"$http_traceparent"',
  route: '"$server_name"',
  service: '"$proxy_host"',
  endpoint: '"$upstream_addr"',
  client: '"$remote_addr"',
  method: '"$request_method"',
  host: '"$host"',
  path: '"$uri"',
  status: '$status',
  downstreamInBytes: '$request_length',
  downstreamOutBytes: '$bytes_sent',
  upstreamInBytes: '"$upstream_bytes_received"',
  upstreamOutBytes: '"$upstream_bytes_sent"',
  totalMs: '$request_time',
  connectMs: '"$upstream_connect_time"',
  firstByteMs: '"$upstream_header_time"',
  tlsVersion: '"$ssl_protocol"',
  sni: '"$ssl_server_name"',
  alpn: '"$ssl_alpn_protocol"',
};

export function nginxConfig(spec: ProxySpec): string {
  const { directory, httpPort, httpsPort } = spec;
  const shared = spec.workers > 1 ? ' reuseport' : '';
  const listen = `listen 127.0.0.1:${String(httpPort)} backlog=4096${shared}; listen 127.0.0.1:${String(httpsPort)} ssl backlog=4096${shared};`;
  const format = Object.entries(NGINX_LOG_FIELDS).map(([name, value]) => `"${name}":${value}`);
  const proxied = 'proxy_http_version 1.1; proxy_set_header Host $http_host; proxy_max_temp_file_size 0;';
  const forwarded =
    'proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $http_host; proxy_set_header X-Request-Id $request_id;';
  return `daemon off; user root; master_process ${spec.workers > 1 ? 'on' : 'off'}; worker_processes ${String(spec.workers)};
pid ${directory}/nginx.pid; error_log ${directory}/nginx.err error;
events { worker_connections ${String(NGINX_CONNECTIONS_MAX)}; }
http {
  log_format bench escape=json '{${format.join(',')}}';
  access_log ${spec.accessLog === undefined ? 'off' : `${spec.accessLog} bench buffer=64k flush=1s`};
  tcp_nodelay on; keepalive_timeout 300s; keepalive_requests 1000000000; client_max_body_size 10m; client_body_buffer_size 128k;
  server_names_hash_max_size ${String(Math.max(512, 4 * spec.hosts.length))}; server_names_hash_bucket_size 128;
${temporaryPaths(directory, 'n')}
  upstream app { ${servers(spec)} keepalive 1024; keepalive_requests 1000000000; keepalive_timeout 300s; }
  ssl_session_cache shared:SSL:10m; ssl_protocols ${spec.tls12 === true ? 'TLSv1.2 ' : ''}TLSv1.3; ssl_certificate ${spec.certFile}; ssl_certificate_key ${spec.keyFile};
  map $http_upgrade $connection_field { default upgrade; "" ""; }
  server { ${listen} server_name ${spec.hosts.join('\n')};
    location / { proxy_pass http://app; ${proxied} ${forwarded} proxy_set_header Connection ""; }
    location /api/ { proxy_pass http://app/; ${proxied} ${forwarded} proxy_set_header Connection "";
      proxy_set_header X-Env prod; proxy_set_header X-Debug ""; add_header X-Frame-Options DENY; }
    location /ws { proxy_pass http://127.0.0.1:${String(spec.websocketPort)}; ${proxied} ${forwarded}
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_field; proxy_read_timeout 300s; }
  }
  server { listen 127.0.0.1:${String(httpPort)} default_server; listen 127.0.0.1:${String(httpsPort)} ssl default_server; return 404; }
}
`;
}

function servers(spec: ProxySpec): string {
  return spec.endpointPorts.map((port) => `server 127.0.0.1:${String(port)};`).join(' ');
}

function temporaryPaths(directory: string, prefix: string): string {
  return ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((what, index) => `  ${what}_temp_path ${directory}/${prefix}${String(index)};`)
    .join('\n');
}

const HAPROXY_LOG_FIELDS = {
  time: '"%tr"',
  requestId: '"%ID"',
  traceId: '"%[capture.req.hdr(1)]"',
  route: '"%ft"',
  service: '"%b"',
  endpoint: '"%s"',
  client: '"%ci"',
  method: '"%HM"',
  host: '"%[capture.req.hdr(0)]"',
  path: '"%HP"',
  status: '%ST',
  downstreamInBytes: '%U',
  downstreamOutBytes: '%B',
  totalMs: '%Ta',
  connectMs: '%Tc',
  firstByteMs: '%Tr',
  tlsVersion: '"%sslv"',
  sni: '"%[ssl_fc_sni]"',
  alpn: '"%[ssl_fc_alpn]"',
  errorCode: '"%ts"',
};

/**
 * `logPort`: where a reader of the log listens; HAProxy writes to no file. Of its ways out, a ring that it sends over TCP costs it least and loses
 * nothing: a unix datagram socket cost 2 µs a line and lost one line in seven. `hostsFile`: a map of hosts to backends.
 */
export function haproxyConfig(spec: ProxySpec, logPort: number | undefined, hostsFile: string): string {
  const format = Object.entries(HAPROXY_LOG_FIELDS).map(([name, value]) => `"${name}":${value}`);
  const log = logPort === undefined ? '' : 'log ring@lines len 2048 format raw local0';
  const logFormat = logPort === undefined ? '' : `log-format '{${format.join(',')}}'`;
  const ring = `ring lines
  format raw
  maxlen 2048
  size 16777216
  timeout connect 5s
  timeout server 300s
  server reader 127.0.0.1:${String(logPort)} log-proto legacy
`;
  return `global
  nbthread ${String(spec.workers)}
  no strict-limits
  maxconn 10500
  ssl-default-bind-options ssl-min-ver ${spec.tls12 === true ? 'TLSv1.2' : 'TLSv1.3'}
  ${log}
defaults
  mode http
  timeout client 300s
  timeout server 300s
  timeout connect 5s
  timeout tunnel 300s
  timeout http-keep-alive 300s
  http-reuse always
  option http-keep-alive
frontend edge
  bind 127.0.0.1:${String(spec.httpPort)} backlog 4096
  bind 127.0.0.1:${String(spec.httpsPort)} backlog 4096 ssl crt ${spec.pemFile} alpn http/1.1
  ${logPort === undefined ? '' : 'log global'}
  ${logFormat}
  capture request header Host len 128
  capture request header traceparent len 64
  unique-id-format %{+X}o%ci:%cp_%fi:%fp_%Ts_%rt:%pid
  unique-id-header X-Request-Id
  option forwardfor
  http-request set-header X-Forwarded-Proto https if { ssl_fc }
  http-request set-header X-Forwarded-Proto http if !{ ssl_fc }
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  use_backend ws if { path_beg /ws }
  use_backend rewritten if { path_beg /api/ }
  use_backend %[req.hdr(host),field(1,:),lower,map_str(${hostsFile},none)]
backend app
${spec.endpointPorts.map((port, index) => `  server s${String(index)} 127.0.0.1:${String(port)}`).join('\n')}
backend rewritten
  http-request replace-path ^/api/(.*) /\\1
  http-request set-header X-Env prod
  http-request del-header X-Debug
  http-response set-header X-Frame-Options DENY
${spec.endpointPorts.map((port, index) => `  server s${String(index)} 127.0.0.1:${String(port)}`).join('\n')}
backend ws
  server s1 127.0.0.1:${String(spec.websocketPort)}
backend none
  http-request return status 404
${logPort === undefined ? '' : ring}`;
}

export function caddyConfig(spec: ProxySpec): string {
  // A site's own log is found by host and port in 2.6, and clients do not name ours: all goes to the default log.
  const log =
    spec.accessLog === undefined
      ? ''
      : ` log default {\n  output file ${spec.accessLog} {\n   roll_disabled\n  }\n  format json\n }\n`;
  const endpoints = spec.endpointPorts.map((port) => `127.0.0.1:${String(port)}`).join(' ');
  const proxy = `reverse_proxy ${endpoints} {
   transport http {
    keepalive 300s
    keepalive_idle_conns 1024
    keepalive_idle_conns_per_host 1024
   }
  }`;
  const routes = `bind 127.0.0.1
 ${spec.accessLog === undefined ? '' : 'log'}
 handle /ws* {
  reverse_proxy 127.0.0.1:${String(spec.websocketPort)}
 }
 handle_path /api/* {
  request_header X-Env prod
  request_header -X-Debug
  header X-Frame-Options DENY
  ${proxy}
 }
 handle {
  ${proxy}
 }`;
  return `{
 admin off
 auto_https off
${log} grace_period 1s
 servers {
  protocols h1
 }
}
http://${BENCH_HOST}:${String(spec.httpPort)} {
 ${routes}
}
https://${BENCH_HOST}:${String(spec.httpsPort)} {
 tls ${spec.certFile} ${spec.keyFile} {
  protocols tls1.3
 }
 ${routes}
}
`;
}
