/** The keys of `ecluse.yaml` that are about tenants' containers and images. */
import * as z from 'zod';
import { parseSizeBytes } from '#units';

/** `*`, `registry.example.com`, `10.0.0.5:5000`, `http://10.0.0.5:5000`. */
const REGISTRY_PATTERN =
  /^(?:\*|(?:http:\/\/)?(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*)(?::\d{1,5})?)$/;
const REGISTRIES_MAX = 200;

const REBALANCE_MODES = ['off', 'advise', 'auto'] as const;
const REBALANCE_GOALS = ['relieve', 'consolidate'] as const;

const AT_ONCE_MAX = 16;

/** A rate in bytes a second, like `100MiB`. */
const bandwidth = z.string().transform((text, context): number => {
  try {
    const bytes = parseSizeBytes(text);
    if (bytes >= 64 * 1024) return bytes;
  } catch {
    // Said below, with the path.
  }
  context.issues.push({
    code: 'custom',
    input: text,
    message: 'is no rate; write bytes a second like "100MiB", at least "64KiB"',
  });
  return z.NEVER;
});

export const caasKeys = {
  migration: z
    .strictObject({
      transfer: z
        .enum(['shared', 'tls'])
        .default('shared')
        .describe(
          'How memory gets to the target host. shared: both hosts are on this machine, and nothing is sent. tls: as between machines, over TLS with pre-copy while the container runs.',
        ),
      bandwidth: bandwidth
        .optional()
        .describe('The most that one move may send, in bytes a second. Without it: as fast as it goes. Only for transfer: tls.'),
      concurrency: z
        .int()
        .min(1)
        .max(AT_ONCE_MAX)
        .default(2)
        .describe('Moves at one time; others wait. Each needs memory for twice its container beside it.'),
    })
    .prefault({})
    .describe('Moving containers between hosts.'),
  rebalance: z
    .strictObject({
      mode: z
        .enum(REBALANCE_MODES, {
          error: ({ input }) => `${JSON.stringify(input).slice(0, 80)} is no mode; write ${REBALANCE_MODES.join(', ')}`,
        })
        .prefault('off')
        .describe(
          '"off": containers move when they are told to. "advise": every five minutes a plan goes into the change log. "auto": it is carried out.',
        ),
      goals: z
        .array(
          z.enum(REBALANCE_GOALS, {
            error: ({ input }) => `${JSON.stringify(input).slice(0, 80)} is no goal; write ${REBALANCE_GOALS.join(' or ')}`,
          }),
        )
        .prefault([...REBALANCE_GOALS])
        .describe('"relieve": containers leave hosts that are too full. "consolidate": hosts that hold little are emptied.'),
    })
    .prefault({})
    .describe('Moves that nobody ordered. `ecluse rebalance` plans with the same goals in every mode.'),
  registries: z
    .array(
      z.string().regex(REGISTRY_PATTERN, {
        error: ({ input }) =>
          `${JSON.stringify(input).slice(0, 80)} is no registry; write "*", or a host in small letters like "registry.example.com", "10.0.0.5:5000" or "http://10.0.0.5:5000"`,
      }),
    )
    .max(REGISTRIES_MAX, { error: `more than ${String(REGISTRIES_MAX)} registries` })
    .prefault(['*'])
    .describe(
      'Image registries that tenants may pull from and push to. "*": any public one. Private, loopback and link-local addresses only where they are named, with their port unless it is 443; "http://" before a host lets it be spoken to without TLS.',
    ),
};
