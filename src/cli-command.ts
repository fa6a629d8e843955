/** What a command line asks for: plain data, made by `cli.ts` and carried out by `cli-run.ts`. */
import type { UsageGrouping } from '#caas/usage.ts';
import type { RouteMatchSettings, RouteSettings } from '#routing/operator/schema.ts';
import type { ServiceSettings } from '#routing/operator/service-schema.ts';

/** How to find the daemon. Undefined: ECLUSE_DATA, then the default. */
export interface DaemonAddress {
  readonly dataDir: string | undefined;
  readonly adminSocket: string | undefined;
}

/** A moment, as it was written: absolute, or so long before now. */
export type Moment = { readonly kind: 'at'; readonly atMs: number } | { readonly kind: 'ago'; readonly ms: number };

export interface TenantSettings {
  readonly memoryBytesMax: number | undefined;
  readonly containersMax: number | undefined;
  readonly imagesMax: number | undefined;
  readonly networksMax: number | undefined;
  readonly volumesMax: number | undefined;
  readonly portsMax: number | undefined;
  readonly cpuMilliMax: number | undefined;
  /** Undefined: as they are. */
  readonly domains: readonly string[] | undefined;
  /** Empty: that of the Docker endpoint. Undefined: as it is. */
  readonly address: string | undefined;
}

interface Remote {
  readonly daemon: DaemonAddress;
  readonly json: boolean;
}

/** How a change of the edge's settings is made. */
export interface ChangeFlags {
  /** Undefined: whatever there is. */
  readonly ifVersion: number | undefined;
  readonly dryRun: boolean;
  readonly note: string;
}

export type EdgeCommand = Remote &
  (
    | ({
        readonly kind: 'apply';
        readonly files: readonly string[];
        /** Goes on for ever. */ readonly watch: boolean;
      } & ChangeFlags)
    | ({ readonly kind: 'rollback'; readonly to: number } & ChangeFlags)
    | { readonly kind: 'history'; readonly last: number }
    | { readonly kind: 'diff-since'; readonly since: number }
    | { readonly kind: 'config-show' }
    | { readonly kind: 'config-lint' }
    | { readonly kind: 'route-ls'; readonly host: string | undefined }
    | ({ readonly kind: 'route-add'; readonly route: RouteSettings } & ChangeFlags)
    | ({ readonly kind: 'route-rm'; readonly match: RouteMatchSettings } & ChangeFlags)
    | { readonly kind: 'service-ls' }
    | ({
        readonly kind: 'service-set';
        readonly name: string;
        readonly service: ServiceSettings;
      } & ChangeFlags)
    | ({ readonly kind: 'service-rm'; readonly name: string } & ChangeFlags)
    | {
        readonly kind: 'explain';
        readonly host: string;
        readonly target: string;
        readonly method: string;
        readonly headers: Readonly<Record<string, string>>;
        readonly version: number | undefined;
      }
  );

/** Days by UTC; undefined: from the first, to now. */
interface Days {
  readonly fromDay: string | undefined;
  readonly toDay: string | undefined;
}

export type LedgerCommand = Remote &
  (
    | ({ readonly kind: 'ledger-verify'; readonly tenant: string | undefined } & Days)
    | ({ readonly kind: 'ledger-export'; readonly tenant: string } & Days)
    | { readonly kind: 'ledger-key' }
    | {
        readonly kind: 'ledger-correct';
        readonly container: string;
        readonly reason: string;
        readonly at: Moment;
        readonly quantities: {
          readonly cpuNs: number;
          readonly memoryByteMs: bigint;
          readonly requests: number;
          readonly egressBytes: number;
          readonly ingressBytes: number;
          readonly diskByteMs: bigint;
          readonly streamMs: number;
        };
      }
  );

export type InvoiceFormat = 'text' | 'json' | 'csv' | 'focus' | 'cloudevents';

export type PriceCommand = Remote &
  (
    | { readonly kind: 'prices-check' | 'prices-apply'; readonly file: string; readonly note: string }
    | { readonly kind: 'prices-show'; /** Undefined: the last. */ readonly version: number | undefined }
    | { readonly kind: 'prices-history' }
    | { readonly kind: 'invoice'; readonly tenant: string; readonly month: string; readonly format: InvoiceFormat }
    | { readonly kind: 'invoice-ls'; /** Undefined: all. */ readonly month: string | undefined }
    | { readonly kind: 'invoice-issue'; /** Undefined: all. */ readonly tenant: string | undefined; readonly month: string }
  );

export type RemoteCommand =
  | EdgeCommand
  | LedgerCommand
  | PriceCommand
  | (Remote &
      (
        | { readonly kind: 'status' }
        | { readonly kind: 'reload' }
        | { readonly kind: 'tenant-add'; readonly name: string; readonly settings: TenantSettings }
        | { readonly kind: 'tenant-ls' }
        | { readonly kind: 'cert-ls' }
        | {
            readonly kind: 'cert-add';
            readonly name: string;
            readonly certFile: string;
            readonly keyFile: string;
            readonly force: boolean;
          }
        | { readonly kind: 'cert-rm'; readonly name: string }
        /** Null: all. */
        | { readonly kind: 'cert-renew'; readonly host: string | null; readonly force: boolean }
        | {
            readonly kind: 'tenant-set';
            readonly name: string;
            readonly settings: TenantSettings;
            readonly state: 'active' | 'suspended' | undefined;
          }
        | { readonly kind: 'tenant-rm'; readonly name: string }
        | { readonly kind: 'tenant-env'; readonly name: string }
        | { readonly kind: 'host-ls' }
        | { readonly kind: 'host-drain'; readonly host: string; readonly dryRun: boolean; readonly endSessions: boolean }
        | { readonly kind: 'host-undrain'; readonly host: string }
        | { readonly kind: 'rebalance'; readonly dryRun: boolean }
        | { readonly kind: 'ps'; readonly all: boolean; readonly tenant: string | undefined }
        | { readonly kind: 'top'; readonly once: boolean }
        | { readonly kind: 'events'; readonly follow: boolean; readonly last: number }
        | {
            readonly kind: 'usage';
            readonly tenant: string | undefined;
            readonly since: Moment;
            readonly until: Moment;
            readonly by: UsageGrouping;
            readonly format: 'table' | 'csv' | 'json' | 'focus' | 'cloudevents';
            /** Instead of since and until. */
            readonly month: string | undefined;
          }
        | { readonly kind: 'explain-container'; readonly container: string }
        | { readonly kind: 'migrate'; readonly container: string; readonly to: string; readonly endSessions: boolean }
        | { readonly kind: 'migrate-cancel'; readonly container: string }
        | { readonly kind: 'suspend'; readonly container: string }
        | { readonly kind: 'wake'; readonly container: string }
        | { readonly kind: 'upgrade'; readonly drainMs: number }
        | { readonly kind: 'clone'; readonly container: string; readonly count: number }
        | { readonly kind: 'snapshot'; readonly container: string }
        | { readonly kind: 'snapshot-ls' }
        | { readonly kind: 'snapshot-rm'; readonly snapshot: string }
        | { readonly kind: 'restore'; readonly reference: string; readonly to: string | undefined }
      ));

export interface UpCommand {
  readonly kind: 'up';
  readonly configFile: string | undefined;
  readonly dataDir: string | undefined;
  readonly demo: boolean;
  /** Says whether the configuration is in order, and runs nothing. */
  readonly checkOnly: boolean;
  /** Listen addresses, checked but as they were written. */
  readonly listen: {
    readonly http: string | undefined;
    readonly https: string | undefined;
    readonly docker: string | undefined;
    readonly metrics: string | undefined;
  };
}

export interface DoctorCommand {
  readonly kind: 'doctor';
  readonly fix: boolean;
  readonly quiet: boolean;
  readonly forTests: boolean;
  readonly json: boolean;
  readonly dataDir: string | undefined;
}

export type Command =
  | { readonly kind: 'help'; readonly topic: string }
  | { readonly kind: 'version'; readonly json: boolean }
  | { readonly kind: 'hash-password' }
  | { readonly kind: 'config-schema'; readonly of: 'node' | 'routes' | 'admin-api' }
  | { readonly kind: 'not-implemented'; readonly name: string }
  | UpCommand
  | DoctorCommand
  | RemoteCommand;
