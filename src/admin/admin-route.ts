/** One route of the admin API, and what it is given. */
import type { Clock } from '#clock';
import type { EventStreams } from './event-stream.ts';
import type { Exchange } from './exchange.ts';
import type { NodeControl } from './node-control.ts';

export interface RouteContext {
  readonly control: NodeControl;
  readonly clock: Clock;
  readonly streams: EventStreams;
}

export interface AdminRoute {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** Segments after `/v1`; `{name}` captures one. */
  readonly path: string;
  readonly handle: (exchange: Exchange, context: RouteContext) => Promise<void>;
}
