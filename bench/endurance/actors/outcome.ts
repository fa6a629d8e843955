/** What became of one thing that an actor of the soak did. */

/** Undefined: as it should be. Else what was wrong. */
export type Fault = string | undefined;

export interface Where {
  readonly httpPort: number;
  readonly httpsPort: number;
  readonly host: string;
}

export interface Actor {
  readonly name: string;
  /** How many do it beside each other. */
  readonly count: number;
  readonly pauseMs: number;
  readonly act: (where: Where) => Promise<Fault>;
}
