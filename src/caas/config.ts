/** The keys of `ecluse.yaml` that are about tenants' containers and images. */
import * as z from 'zod';

/** `*`, `registry.example.com`, `10.0.0.5:5000`, `http://10.0.0.5:5000`. */
const REGISTRY_PATTERN =
  /^(?:\*|(?:http:\/\/)?(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*)(?::\d{1,5})?)$/;
const REGISTRIES_MAX = 200;

const REBALANCE_MODES = ['off', 'advise', 'auto'] as const;
const REBALANCE_GOALS = ['relieve', 'consolidate'] as const;

export const caasKeys = {
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
