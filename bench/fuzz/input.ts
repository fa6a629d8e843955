/** One thing to try: bytes from one side of a connection, and what is known of it beside them. */
import type { HeadKind } from '#proxy/http1/head-view.ts';

export interface Context {
  /** Whether requests came over TLS, and from a proxy whose word is believed. */
  readonly secure: boolean;
  readonly trusted: boolean;
  /** Of the request that responses answer; whether it went on with an `Upgrade`; what its client is like. */
  readonly method: string;
  readonly upgrade: boolean;
  readonly clientMinor: 0 | 1;
  readonly clientPersistent: boolean;
}

export interface Input {
  readonly kind: HeadKind;
  readonly context: Context;
  /** Octets, in latin1. */
  readonly text: string;
}

export const PLAIN: Context = {
  secure: false,
  trusted: false,
  method: 'GET',
  upgrade: false,
  clientMinor: 1,
  clientPersistent: true,
};
