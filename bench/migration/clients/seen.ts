/** What the clients of the load saw in a window: told by the load program, read by the benchmark. */
import { z } from 'zod';

export const REQUEST_KINDS = ['get', 'post', 'chunked'] as const;
export type RequestKind = (typeof REQUEST_KINDS)[number];

const KIND_SEEN = z.object({
  requests: z.int(),
  failed: z.int(),
  /** The longest time between two good answers of this kind, one after the other. */
  gapMs: z.number(),
  /** From the moment at which a request was due to the end of its answer. */
  latencyP50Ms: z.number(),
  latencyWorstMs: z.number(),
});
export type KindSeen = z.infer<typeof KIND_SEEN>;

const REQUESTS_SEEN = z.object({
  ...KIND_SEEN.shape,
  kinds: z.record(z.enum(REQUEST_KINDS), KIND_SEEN),
  /** Why requests failed, and how many of them. */
  failures: z.record(z.string(), z.int()),
  /** Starts of the app that answered. */
  boots: z.array(z.string()),
  /** How late the client itself was with a request, at worst: above some ms its own results are in doubt. */
  clientLateMs: z.number(),
});
export type RequestsSeen = z.infer<typeof REQUESTS_SEEN>;

const STREAM_SEEN = z.object({
  clients: z.int(),
  messages: z.int(),
  /** What never came: ids that were skipped, messages without their echo when the connection closed. */
  missed: z.int(),
  duplicated: z.int(),
  /** Connections that ended, by what ended them. */
  ends: z.record(z.string(), z.int()),
  /** Of the client that waited longest. */
  gapMs: z.number(),
});
export type StreamSeen = z.infer<typeof STREAM_SEEN>;

export const SEEN = z.object({ requests: REQUESTS_SEEN, events: STREAM_SEEN, webSockets: STREAM_SEEN });
export type Seen = z.infer<typeof SEEN>;
