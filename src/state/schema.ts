/**
 * The schema, one entry a version. An entry is never edited after it was released: a change is a new entry.
 * Times are wall-clock milliseconds, money-relevant quantities are integers in the unit of their name.
 */
export const SCHEMA_VERSIONS: readonly (readonly string[])[] = [
  [
    `CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT NOT NULL)`,
    `CREATE TABLE change (seq INTEGER PRIMARY KEY, at_ms BIGINT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, data TEXT NOT NULL)`,
    `CREATE TABLE tenant (
       name TEXT PRIMARY KEY, created_ms BIGINT NOT NULL, state TEXT NOT NULL,
       containers_max BIGINT NOT NULL, memory_bytes_max BIGINT NOT NULL, images_max BIGINT NOT NULL, domains TEXT NOT NULL)`,
    `CREATE TABLE tenant_certificate (
       fingerprint TEXT PRIMARY KEY, tenant TEXT NOT NULL REFERENCES tenant(name) ON DELETE CASCADE, not_after_ms BIGINT NOT NULL)`,
    `CREATE TABLE host (name TEXT PRIMARY KEY, engine TEXT NOT NULL, network_octet BIGINT NOT NULL, position BIGINT NOT NULL, created_ms BIGINT NOT NULL)`,
    `CREATE TABLE host_network (
       host TEXT NOT NULL, tenant TEXT NOT NULL, number BIGINT NOT NULL, PRIMARY KEY (host, tenant), UNIQUE (host, number))`,
    `CREATE TABLE container (
       id TEXT PRIMARY KEY, tenant TEXT NOT NULL REFERENCES tenant(name), name TEXT NOT NULL, host TEXT NOT NULL,
       engine_id TEXT NOT NULL, incarnation BIGINT NOT NULL, state TEXT NOT NULL, created_ms BIGINT NOT NULL,
       started_ms BIGINT, finished_ms BIGINT, restart_count BIGINT NOT NULL, address TEXT NOT NULL, resume BIGINT NOT NULL, carried_start TEXT NOT NULL,
       memory_bytes BIGINT NOT NULL, spec TEXT NOT NULL, UNIQUE (tenant, name))`,
    `CREATE TABLE image (tenant TEXT NOT NULL, image_id TEXT NOT NULL, created_ms BIGINT NOT NULL, PRIMARY KEY (tenant, image_id))`,
    `CREATE TABLE image_reference (
       tenant TEXT NOT NULL, reference TEXT NOT NULL, image_id TEXT NOT NULL, PRIMARY KEY (tenant, reference))`,
    `CREATE TABLE incarnation (
       container TEXT NOT NULL, incarnation BIGINT NOT NULL, tenant TEXT NOT NULL, host TEXT NOT NULL, name TEXT NOT NULL,
       cgroup TEXT NOT NULL, cgroup_identity TEXT NOT NULL, opened_ms BIGINT NOT NULL, closed_ms BIGINT, seq BIGINT NOT NULL, metered_to_ms BIGINT NOT NULL,
       cpu_ns BIGINT NOT NULL, memory_bytes BIGINT NOT NULL, PRIMARY KEY (container, incarnation))`,
    `CREATE TABLE ledger (
       container TEXT NOT NULL, incarnation BIGINT NOT NULL, seq BIGINT NOT NULL, tenant TEXT NOT NULL, host TEXT NOT NULL,
       from_ms BIGINT NOT NULL, to_ms BIGINT NOT NULL, cpu_ns BIGINT NOT NULL, memory_byte_ms BIGINT NOT NULL,
       requests BIGINT NOT NULL, ingress_bytes BIGINT NOT NULL, egress_bytes BIGINT NOT NULL, held_ms BIGINT NOT NULL,
       PRIMARY KEY (container, incarnation, seq))`,
    `CREATE INDEX ledger_tenant_time ON ledger (tenant, from_ms)`,
    `CREATE TABLE migration (
       id TEXT PRIMARY KEY, container TEXT NOT NULL, source_host TEXT NOT NULL, target_host TEXT NOT NULL,
       source_engine_id TEXT NOT NULL, target_engine_id TEXT, state TEXT NOT NULL, started_ms BIGINT NOT NULL, updated_ms BIGINT NOT NULL)`,
    `CREATE UNIQUE INDEX migration_open ON migration (container) WHERE state IN ('preparing', 'paused', 'committed')`,
  ],
  [
    // Networks are membership: who may talk to whom, and under which names. Addresses belong to containers.
    `CREATE TABLE network (
       id TEXT PRIMARY KEY, tenant TEXT NOT NULL REFERENCES tenant(name), name TEXT NOT NULL, created_ms BIGINT NOT NULL,
       internal BIGINT NOT NULL, attachable BIGINT NOT NULL, labels TEXT NOT NULL, UNIQUE (tenant, name))`,
    `CREATE TABLE network_member (
       network TEXT NOT NULL, container TEXT NOT NULL REFERENCES container(id) ON DELETE CASCADE, tenant TEXT NOT NULL,
       endpoint TEXT NOT NULL, aliases TEXT NOT NULL, links TEXT NOT NULL, position BIGINT NOT NULL, PRIMARY KEY (network, container))`,
    `CREATE INDEX network_member_container ON network_member (container)`,
    // host is empty until a container uses the volume for the first time.
    `CREATE TABLE volume (
       tenant TEXT NOT NULL REFERENCES tenant(name), name TEXT NOT NULL, id TEXT NOT NULL, host TEXT NOT NULL, created_ms BIGINT NOT NULL,
       anonymous BIGINT NOT NULL, labels TEXT NOT NULL, options TEXT NOT NULL, PRIMARY KEY (tenant, name))`,
    // A container holds its ports while it runs, as in Docker.
    `CREATE TABLE published_port (
       address TEXT NOT NULL, protocol TEXT NOT NULL, port BIGINT NOT NULL, tenant TEXT NOT NULL,
       container TEXT NOT NULL REFERENCES container(id) ON DELETE CASCADE, container_port BIGINT NOT NULL, PRIMARY KEY (address, protocol, port))`,
    `CREATE INDEX published_port_container ON published_port (container)`,
    `ALTER TABLE container ADD COLUMN lan_address TEXT NOT NULL DEFAULT ''`,
    // Taken on the target before the container is there; both addresses are its own until one is given up.
    `ALTER TABLE migration ADD COLUMN target_address TEXT NOT NULL DEFAULT ''`,
    `ALTER TABLE container ADD COLUMN placement TEXT NOT NULL DEFAULT ''`,
    `ALTER TABLE tenant ADD COLUMN networks_max BIGINT NOT NULL DEFAULT 20`,
    `ALTER TABLE tenant ADD COLUMN volumes_max BIGINT NOT NULL DEFAULT 100`,
    `ALTER TABLE tenant ADD COLUMN ports_max BIGINT NOT NULL DEFAULT 100`,
    `ALTER TABLE tenant ADD COLUMN cpu_milli_max BIGINT NOT NULL DEFAULT 0`,
    `ALTER TABLE tenant ADD COLUMN address TEXT NOT NULL DEFAULT ''`,
    `CREATE TABLE image_digest (
       tenant TEXT NOT NULL, repository TEXT NOT NULL, digest TEXT NOT NULL, image_id TEXT NOT NULL, PRIMARY KEY (tenant, repository, digest))`,
  ],
  [
    // A container that sleeps shows as paused, and names the snapshot that it goes on from; empty: it is awake.
    `ALTER TABLE container ADD COLUMN snapshot TEXT NOT NULL DEFAULT ''`,
    `CREATE TABLE snapshot (
       id TEXT PRIMARY KEY, tenant TEXT NOT NULL, container TEXT NOT NULL, name TEXT NOT NULL, host TEXT NOT NULL, kind TEXT NOT NULL,
       state TEXT NOT NULL, created_ms BIGINT NOT NULL, image_bytes BIGINT NOT NULL, file_bytes BIGINT NOT NULL, runtime TEXT NOT NULL,
       serves BIGINT NOT NULL, memory_bytes BIGINT NOT NULL, spec TEXT NOT NULL)`,
    `CREATE INDEX snapshot_container ON snapshot (container)`,
  ],
  [`ALTER TABLE host ADD COLUMN state TEXT NOT NULL DEFAULT 'active'`],
  [
    // What operators wrote of the edge: JSON, checked by routing/operator/schema.ts. The routes of a host are one row, because their order counts.
    `CREATE TABLE edge_service (name TEXT PRIMARY KEY, body TEXT NOT NULL)`,
    `CREATE TABLE edge_host (host TEXT PRIMARY KEY, routes TEXT NOT NULL)`,
    // Each with what takes it back, so that any of them can be gone back to.
    `CREATE TABLE config_version (
       version BIGINT PRIMARY KEY, at_ms BIGINT NOT NULL, cause TEXT NOT NULL, note TEXT NOT NULL, services BIGINT NOT NULL,
       hosts BIGINT NOT NULL, bytes BIGINT NOT NULL, patch TEXT NOT NULL, inverse TEXT NOT NULL)`,
  ],
  [
    // Certificates with their keys, which are sealed (tls/key-seal.ts); sealed_by names the key of the data directory that opens them.
    `CREATE TABLE certificate (
       name TEXT PRIMARY KEY, version BIGINT NOT NULL, source TEXT NOT NULL, added_ms BIGINT NOT NULL, not_before_ms BIGINT NOT NULL,
       not_after_ms BIGINT NOT NULL, hosts TEXT NOT NULL, issuer TEXT NOT NULL, key_kind TEXT NOT NULL, fingerprint TEXT NOT NULL,
       leaf TEXT NOT NULL, chain TEXT NOT NULL, sealed_key TEXT NOT NULL, sealed_by TEXT NOT NULL)`,
    `CREATE INDEX certificate_not_after ON certificate (not_after_ms)`,
  ],
  // CAs that operators' routes and services name: JSON, as edge_service.
  [`CREATE TABLE edge_ca_bundle (name TEXT PRIMARY KEY, body TEXT NOT NULL)`],
  [
    // The ledger's chain (metering/ledger-chain.ts). Rows from before have no number until they were taken up.
    `ALTER TABLE ledger ADD COLUMN number BIGINT`,
    `ALTER TABLE ledger ADD COLUMN kind TEXT NOT NULL DEFAULT 'interval'`,
    `ALTER TABLE ledger ADD COLUMN reason TEXT NOT NULL DEFAULT ''`,
    `ALTER TABLE ledger ADD COLUMN hash TEXT NOT NULL DEFAULT ''`,
    `ALTER TABLE ledger ADD COLUMN snapshot_byte_ms BIGINT NOT NULL DEFAULT 0`,
    `CREATE UNIQUE INDEX ledger_number ON ledger (tenant, number)`,
    // Where each chain stands; totals: the sums up to there, as JSON. Rows up to rolled are in the sums of usage_…, rows up to dropped are gone.
    `CREATE TABLE ledger_chain (
       tenant TEXT PRIMARY KEY, number BIGINT NOT NULL, hash TEXT NOT NULL, totals TEXT NOT NULL, rolled BIGINT NOT NULL, dropped BIGINT NOT NULL)`,
    `CREATE TABLE ledger_head (
       tenant TEXT NOT NULL, day TEXT NOT NULL, number BIGINT NOT NULL, hash TEXT NOT NULL, totals TEXT NOT NULL, signed_ms BIGINT NOT NULL,
       key TEXT NOT NULL, signature TEXT NOT NULL, PRIMARY KEY (tenant, day))`,
    `CREATE TABLE ledger_key (id TEXT PRIMARY KEY, public_key TEXT NOT NULL, since_ms BIGINT NOT NULL)`,
    // Sums of the ledger. A subject is a container on a host, or with an empty container everything of a tenant on a host,
    // or of the node. Byte·ms are split,
    // because their sums exceed 64 bits: memory_gib_ms * 2^30 + memory_rest.
    `CREATE TABLE usage_subject (
       id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, container TEXT NOT NULL, host TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (tenant, container, host))`,
    `CREATE TABLE usage_minute (
       subject BIGINT NOT NULL, start_ms BIGINT NOT NULL, from_ms BIGINT NOT NULL, to_ms BIGINT NOT NULL, cpu_ns BIGINT NOT NULL,
       memory_gib_ms BIGINT NOT NULL, memory_rest BIGINT NOT NULL, requests BIGINT NOT NULL, ingress_bytes BIGINT NOT NULL,
       egress_bytes BIGINT NOT NULL, held_ms BIGINT NOT NULL, snapshot_gib_ms BIGINT NOT NULL, snapshot_rest BIGINT NOT NULL,
       PRIMARY KEY (subject, start_ms)) WITHOUT ROWID`,
    `CREATE TABLE usage_hour (
       subject BIGINT NOT NULL, start_ms BIGINT NOT NULL, from_ms BIGINT NOT NULL, to_ms BIGINT NOT NULL, cpu_ns BIGINT NOT NULL,
       memory_gib_ms BIGINT NOT NULL, memory_rest BIGINT NOT NULL, requests BIGINT NOT NULL, ingress_bytes BIGINT NOT NULL,
       egress_bytes BIGINT NOT NULL, held_ms BIGINT NOT NULL, snapshot_gib_ms BIGINT NOT NULL, snapshot_rest BIGINT NOT NULL,
       PRIMARY KEY (subject, start_ms)) WITHOUT ROWID`,
    `CREATE TABLE usage_day (
       subject BIGINT NOT NULL, start_ms BIGINT NOT NULL, from_ms BIGINT NOT NULL, to_ms BIGINT NOT NULL, cpu_ns BIGINT NOT NULL,
       memory_gib_ms BIGINT NOT NULL, memory_rest BIGINT NOT NULL, requests BIGINT NOT NULL, ingress_bytes BIGINT NOT NULL,
       egress_bytes BIGINT NOT NULL, held_ms BIGINT NOT NULL, snapshot_gib_ms BIGINT NOT NULL, snapshot_rest BIGINT NOT NULL,
       PRIMARY KEY (subject, start_ms)) WITHOUT ROWID`,
    // Up to when a snapshot is in the ledger; 0: it is not yet.
    `ALTER TABLE snapshot ADD COLUMN metered_ms BIGINT NOT NULL DEFAULT 0`,
    // Price books: JSON, checked by metering/price-book.ts. None is ever changed.
    `CREATE TABLE price_book (version INTEGER PRIMARY KEY, from_ms BIGINT NOT NULL, at_ms BIGINT NOT NULL, note TEXT NOT NULL, body TEXT NOT NULL)`,
  ],
  [
    // ACME. What is known of a host is JSON, checked by tls/acme/host-state.ts; a lease says who works at it. acme_spent is what CAs were asked for.
    `CREATE TABLE acme_account (
       ca TEXT PRIMARY KEY, url TEXT NOT NULL, sealed_key TEXT NOT NULL, sealed_by TEXT NOT NULL, created_ms BIGINT NOT NULL)`,
    `CREATE TABLE acme_ca (ca TEXT PRIMARY KEY, failures BIGINT NOT NULL, last_ms BIGINT NOT NULL, until_ms BIGINT NOT NULL)`,
    `CREATE TABLE acme_host (
       host TEXT PRIMARY KEY, wanted_ms BIGINT NOT NULL, state TEXT NOT NULL, order_ca TEXT NOT NULL, order_url TEXT NOT NULL,
       order_key TEXT NOT NULL, lease_owner TEXT NOT NULL, lease_until_ms BIGINT NOT NULL)`,
    `CREATE TABLE acme_spent (
       seq BIGINT NOT NULL, id TEXT NOT NULL, ca TEXT NOT NULL, limit_name TEXT NOT NULL, subject TEXT NOT NULL, at_ms BIGINT NOT NULL)`,
    `CREATE INDEX acme_spent_seq ON acme_spent (seq)`,
    `CREATE INDEX acme_spent_id ON acme_spent (id)`,
    `CREATE INDEX acme_spent_time ON acme_spent (at_ms)`,
  ],
  [
    // What the edge moved for containers and the ledger has not yet, and the number of the last report of each worker (state/edge-traffic.ts).
    `CREATE TABLE edge_epoch (epoch TEXT PRIMARY KEY, number BIGINT NOT NULL, seen_ms BIGINT NOT NULL)`,
    `CREATE TABLE edge_pending (
       container TEXT PRIMARY KEY, requests BIGINT NOT NULL, ingress_bytes BIGINT NOT NULL, egress_bytes BIGINT NOT NULL, held_ms BIGINT NOT NULL)`,
  ],
  [
    // How many heads a chain has, and which of them each is; 0: from before they were counted.
    `ALTER TABLE ledger_chain ADD COLUMN heads BIGINT NOT NULL DEFAULT 0`,
    `ALTER TABLE ledger_head ADD COLUMN sequence BIGINT NOT NULL DEFAULT 0`,
    `UPDATE ledger_chain SET heads = (SELECT COUNT(*) FROM ledger_head WHERE ledger_head.tenant = ledger_chain.tenant)`,
  ],
  [
    // Invoices that were sent: JSON (metering/issued-invoice.ts). None is ever changed.
    `CREATE TABLE invoice (
       tenant TEXT NOT NULL, month TEXT NOT NULL, number BIGINT NOT NULL UNIQUE, issued_ms BIGINT NOT NULL, currency TEXT NOT NULL,
       total TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (tenant, month))`,
    `CREATE INDEX change_tenant ON change (key, seq) WHERE kind IN ('tenant.added', 'tenant.removed')`,
  ],
  [
    // What containers and volumes have on disk, and how long streams were open. What is hashed and signed from here on covers both.
    `ALTER TABLE ledger ADD COLUMN format BIGINT NOT NULL DEFAULT 1`,
    `ALTER TABLE ledger ADD COLUMN disk_byte_ms BIGINT NOT NULL DEFAULT 0`,
    `ALTER TABLE ledger ADD COLUMN stream_ms BIGINT NOT NULL DEFAULT 0`,
    `ALTER TABLE ledger_head ADD COLUMN format BIGINT NOT NULL DEFAULT 2`,
    `UPDATE ledger_head SET format = 1 WHERE sequence = 0`,
    ...['minute', 'hour', 'day'].flatMap((grain) =>
      ['disk_gib_ms', 'disk_rest', 'stream_ms'].map(
        (name) => `ALTER TABLE usage_${grain} ADD COLUMN ${name} BIGINT NOT NULL DEFAULT 0`,
      ),
    ),
    `ALTER TABLE edge_pending ADD COLUMN stream_ms BIGINT NOT NULL DEFAULT 0`,
    // id: a container's, or volume/ID. In the ledger up to metered_ms; bytes: what was found last. gone_ms: a volume was removed; closed_ms: it is
    // in the ledger up to its end.
    `CREATE TABLE disk_use (
       id TEXT PRIMARY KEY, tenant TEXT NOT NULL, name TEXT NOT NULL, host TEXT NOT NULL, bytes BIGINT NOT NULL, metered_ms BIGINT NOT NULL,
       gone_ms BIGINT, closed_ms BIGINT)`,
    `CREATE INDEX disk_use_metered ON disk_use (metered_ms) WHERE closed_ms IS NULL`,
  ],
  [
    // Those from before snapshots were metered begin an hour ago.
    `UPDATE snapshot SET metered_ms = MAX(created_ms, CAST(strftime('%s', 'now') AS INTEGER) * 1000 - 3600000) WHERE metered_ms = 0`,
    // What snapshots that are gone took on disk and is not in the ledger yet.
    `CREATE TABLE snapshot_gone (
       id TEXT PRIMARY KEY, tenant TEXT NOT NULL, container TEXT NOT NULL, host TEXT NOT NULL, bytes BIGINT NOT NULL, metered_ms BIGINT NOT NULL,
       gone_ms BIGINT NOT NULL)`,
    // Another number whenever a container's row is another, whoever writes it: what is asked for each second is read again only then.
    `CREATE TABLE container_edition (number BIGINT NOT NULL)`,
    `INSERT INTO container_edition (number) VALUES (1)`,
    ...['INSERT', 'UPDATE', 'DELETE'].map(
      (change) => `CREATE TRIGGER container_after_${change.toLowerCase()} AFTER ${change} ON container
         BEGIN UPDATE container_edition SET number = number + 1; END`,
    ),
  ],
];
