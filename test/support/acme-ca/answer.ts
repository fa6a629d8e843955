/** What a request is answered by. */
export interface Answer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** Text is sent as it is, anything else as JSON; absent: no body. */
  readonly body?: unknown;
}
