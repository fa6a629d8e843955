/** The keys of `ecluse.yaml` that are about tenants' containers and images. */
import * as z from 'zod';

/** `*`, `registry.example.com`, `10.0.0.5:5000`, `http://10.0.0.5:5000`. */
const REGISTRY_PATTERN =
  /^(?:\*|(?:http:\/\/)?(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*)(?::\d{1,5})?)$/;
const REGISTRIES_MAX = 200;

export const caasKeys = {
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
